//! JSON pointers (RFC 6901) into one event's line.
//!
//! [`Fields::read`] goes over a line once: it proves that the line is one JSON object, and on the
//! way picks up the fields that the pointers name. A line that is something else is a
//! [`Misfit`] with the column where it stops being right. Strings come out as they are, integers
//! and booleans as their JSON text; everything else is no key.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

use super::misfit::{Misfit, MisfitKind};

/// A JSON pointer that names something inside an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    tokens: Vec<String>,
}

/// Why a text is no usable JSON pointer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PointerError {
    /// The pointer names the whole event.
    #[error("an empty pointer names the whole event; a field is written like /id")]
    WholeEvent,
    /// Pointers begin with a slash.
    #[error("a JSON pointer begins with a slash: did you mean /{0}")]
    NoSlash(String),
    /// A tilde is followed by neither 0 nor 1.
    #[error("in {0} a tilde stands alone: ~0 is a tilde, ~1 a slash")]
    Tilde(String),
}

impl std::str::FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(if text.is_empty() {
                PointerError::WholeEvent
            } else {
                PointerError::NoSlash(text.to_owned())
            });
        };
        let tokens = rest
            .split('/')
            .map(|token| unescape(token).ok_or_else(|| PointerError::Tilde(text.to_owned())))
            .collect::<Result<_, _>>()?;
        Ok(Pointer {
            text: text.to_owned(),
            tokens,
        })
    }
}

fn unescape(token: &str) -> Option<String> {
    let mut parts = token.split('~');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.as_bytes().first() {
            Some(b'0') => plain.push('~'),
            Some(b'1') => plain.push('/'),
            _ => return None,
        }
        plain.push_str(part.get(1..).unwrap_or_default());
    }
    Some(plain)
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The fields to pick up from each event.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    /// Ordering key.
    pub key: Option<Pointer>,
    /// Deduplication key.
    pub dedup: Option<Pointer>,
}

/// What [`Fields::read`] picked up.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Picked<'a> {
    /// Ordering key, when one was asked for.
    pub key: Option<Cow<'a, str>>,
    /// Deduplication key, when one was asked for.
    pub dedup: Option<Cow<'a, str>>,
}

impl Fields {
    /// Proves that `line` is one JSON object in UTF-8 and picks up its fields. Of a member that
    /// is there twice the last one counts, as in `Postgres`.
    pub fn read<'a>(&self, line: &'a [u8]) -> Result<Picked<'a>, Misfit> {
        let text = std::str::from_utf8(line).map_err(|error| not_utf8(line, &error))?;
        match text.trim_ascii_start().as_bytes().first() {
            Some(b'{') => {}
            first => return Err(not_an_object(text, first.copied())),
        }
        let mut found = [None, None];
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let outcome = if self.key.is_none() && self.dedup.is_none() {
            serde::de::Deserialize::deserialize(&mut deserializer).map(|_: IgnoredAny| ())
        } else {
            let wanted = [self.key.as_ref(), self.dedup.as_ref()];
            let active = wanted.map(|pointer| pointer.is_some());
            Walk {
                wanted,
                active,
                depth: 0,
                found: &mut found,
            }
            .deserialize(&mut deserializer)
        };
        outcome
            .and_then(|()| deserializer.end())
            .map_err(|error| broken_json(text, &error))?;
        let [key, dedup] = found;
        Ok(Picked {
            key: self
                .key
                .as_ref()
                .map(|pointer| scalar(text, pointer, key))
                .transpose()?,
            dedup: self
                .dedup
                .as_ref()
                .map(|pointer| scalar(text, pointer, dedup))
                .transpose()?,
        })
    }
}

/// One value of the event on the way down to the fields; `active` are the pointers whose first
/// `depth` tokens led here.
struct Walk<'p, 'f, 'de> {
    wanted: [Option<&'p Pointer>; 2],
    active: [bool; 2],
    depth: usize,
    found: &'f mut [Option<&'de RawValue>; 2],
}

impl<'de> Walk<'_, '_, 'de> {
    /// The pointers that go on with `token`, and whether one of them ends there.
    fn follow(&self, token: &str) -> ([bool; 2], bool) {
        let mut ends = false;
        let mut follows = self.active;
        for (follows, pointer) in follows.iter_mut().zip(self.wanted) {
            let tokens = pointer.map_or(&[][..], |pointer| &pointer.tokens);
            *follows &= tokens.get(self.depth).is_some_and(|wanted| wanted == token);
            ends |= *follows && tokens.len() == self.depth + 1;
        }
        (follows, ends)
    }

    /// Keeps `raw` for the pointers that end at it, and follows the others into it.
    fn keep<E: serde::de::Error>(
        &mut self,
        active: [bool; 2],
        raw: &'de RawValue,
    ) -> Result<(), E> {
        let mut deeper = active;
        for ((deeper, pointer), found) in deeper
            .iter_mut()
            .zip(self.wanted)
            .zip(self.found.iter_mut())
        {
            if *deeper && pointer.is_some_and(|pointer| pointer.tokens.len() == self.depth + 1) {
                *found = Some(raw);
                *deeper = false;
            }
        }
        if deeper.contains(&true) {
            let mut deserializer = serde_json::Deserializer::from_str(raw.get());
            self.down(deeper)
                .deserialize(&mut deserializer)
                .map_err(E::custom)?;
        }
        Ok(())
    }

    fn down(&mut self, active: [bool; 2]) -> Walk<'_, '_, 'de> {
        for (found, _) in self
            .found
            .iter_mut()
            .zip(active)
            .filter(|(_, active)| *active)
        {
            *found = None;
        }
        Walk {
            wanted: self.wanted,
            active,
            depth: self.depth + 1,
            found: &mut *self.found,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            match self.follow(&name) {
                ([false, false], _) => {
                    map.next_value::<IgnoredAny>()?;
                }
                (active, true) => {
                    let raw: &'de RawValue = map.next_value()?;
                    self.keep(active, raw)?;
                }
                (active, false) => map.next_value_seed(self.down(active))?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            let more = match self.follow(&index.to_string()) {
                ([false, false], _) => items.next_element::<IgnoredAny>()?.is_some(),
                (active, true) => match items.next_element::<&'de RawValue>()? {
                    Some(raw) => self.keep(active, raw).map(|()| true)?,
                    None => false,
                },
                (active, false) => items.next_element_seed(self.down(active))?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A member's name, borrowed from the line unless it holds escapes.
struct Name<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }
            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The text of a field's value, when it can be a key.
fn scalar<'a>(
    line: &str,
    pointer: &Pointer,
    raw: Option<&'a RawValue>,
) -> Result<Cow<'a, str>, Misfit> {
    let Some(raw) = raw.map(RawValue::get) else {
        let reason = format!("there is no field {pointer}");
        return Err(Misfit {
            kind: MisfitKind::MissingField,
            column: 1,
            reason,
        });
    };
    let at = (raw.as_ptr() as usize).saturating_sub(line.as_ptr() as usize);
    let refuse = |what: &str| Misfit {
        kind: MisfitKind::WrongFieldType,
        column: column_at(line, at),
        reason: format!("field {pointer} is {what}; a key is a string, an integer, true or false"),
    };
    match raw.as_bytes().first() {
        Some(b'"') if !raw.contains('\\') => Ok(Cow::Borrowed(raw.trim_matches('"'))),
        Some(b'"') => serde_json::from_str::<String>(raw)
            .map(Cow::Owned)
            .map_err(|error| refuse(&format!("a string with a broken escape ({error})"))),
        Some(b'{') => Err(refuse("an object")),
        Some(b'[') => Err(refuse("an array")),
        Some(b'n') => Err(refuse("null")),
        Some(b'-' | b'0'..=b'9') if raw.contains(['.', 'e', 'E']) => {
            Err(refuse("a number with a fraction or an exponent"))
        }
        _ => Ok(Cow::Borrowed(raw)),
    }
}

/// The character, counted from 1, that begins at or holds byte `at` of `line`.
fn column_at(line: &str, at: usize) -> u64 {
    let before = line
        .char_indices()
        .take_while(|(start, _)| *start < at)
        .count();
    before as u64 + 1
}

fn not_utf8(line: &[u8], error: &std::str::Utf8Error) -> Misfit {
    let valid = line.get(..error.valid_up_to()).unwrap_or_default();
    Misfit::shape(
        String::from_utf8_lossy(valid).chars().count() as u64 + 1,
        "not UTF-8",
    )
}

fn not_an_object(text: &str, first: Option<u8>) -> Misfit {
    let found = match first {
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b'-' | b'0'..=b'9') => "a number",
        None => "nothing",
        Some(_) => "something else",
    };
    let at = text.len() - text.trim_ascii_start().len();
    Misfit::shape(
        column_at(text, at),
        format!("expected a JSON object, found {found}"),
    )
}

fn broken_json(text: &str, error: &serde_json::Error) -> Misfit {
    let message = error.to_string();
    let reason = message.split(" at line ").next().unwrap_or_default();
    let at = error.column().saturating_sub(1).min(text.len());
    Misfit::shape(column_at(text, at), format!("broken JSON: {reason}"))
}

#[cfg(test)]
#[path = "pointer_tests.rs"]
mod tests;
