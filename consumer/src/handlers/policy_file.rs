//! The policy file: TOML, read strictly.
//!
//! `[type."name"]` is laid over what the program gave that type; where the program gave nothing, over
//! `[default]`, which is laid over the built-in defaults. A field or type that nobody knows, or a value that
//! cannot be meant, is an error that names the file, the line, the table and what would be right: a misspelt
//! limit that silently does not hold is worse than no start.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use toml::Spanned;

use super::policies::PolicySet;
use super::registry::{Found, Registry};
use crate::engine::{Mode, Policy};

/// A file beyond this is none of ours.
const MOST_BYTES: u64 = 1 << 20;

/// What is wrong with a policy file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFileError {
    /// It cannot be read.
    #[error("policy file {}: {problem}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// Something in it is wrong.
    #[error("policy file {}, line {line}, {table}: {problem}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The table, as it is written.
        table: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Option<Spanned<Table>>,
    #[serde(default, rename = "type")]
    types: BTreeMap<Spanned<String>, Spanned<Table>>,
}

/// What a table says; what it does not say stays as it is.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Table {
    mode: Option<Mode>,
    max_attempts: Option<u16>,
    max_age: Option<Time>,
    backoff_base: Option<Time>,
    backoff_cap: Option<Time>,
    timeout: Option<OrNone<Time>>,
    grace: Option<Time>,
    max_in_flight: Option<OrNone<usize>>,
    park_after: Option<Time>,
    run_long_after: Option<Time>,
}

impl Table {
    fn lay_over(self, policy: &mut Policy) {
        let set = |field: &mut Duration, value: Option<Time>| {
            if let Some(Time(value)) = value {
                *field = value;
            }
        };
        set(&mut policy.max_age, self.max_age);
        set(&mut policy.backoff_base, self.backoff_base);
        set(&mut policy.backoff_cap, self.backoff_cap);
        set(&mut policy.grace, self.grace);
        set(&mut policy.park_after, self.park_after);
        set(&mut policy.run_long_after, self.run_long_after);
        if let Some(mode) = self.mode {
            policy.mode = mode;
        }
        if let Some(most) = self.max_attempts {
            policy.max_attempts = most;
        }
        if let Some(OrNone(timeout)) = self.timeout {
            policy.timeout = timeout.map(|Time(timeout)| timeout);
        }
        if let Some(OrNone(most)) = self.max_in_flight {
            policy.max_in_flight = most;
        }
    }
}

/// A duration as people write it.
struct Time(Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration in quotes, such as \"500ms\", \"30s\" or \"10m\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                humantime::parse_duration(text)
                    .map(Time)
                    .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A limit, or `"none"`.
struct OrNone<T>(Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrNone<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = toml::Value::deserialize(deserializer)?;
        if value.as_str() == Some("none") {
            return Ok(Self(None));
        }
        T::deserialize(value)
            .map(|limit| Self(Some(limit)))
            .map_err(|error| de::Error::custom(format_args!("{}, or \"none\"", error.message())))
    }
}

/// The text of a policy file.
pub(super) fn read(path: &Path) -> Result<String, PolicyFileError> {
    let unreadable = |problem: String| PolicyFileError::Unreadable {
        path: path.to_owned(),
        problem,
    };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 > MOST_BYTES {
        return Err(unreadable(format!("it is longer than {MOST_BYTES} bytes")));
    }
    Ok(text)
}

/// The policies that this text makes of a worker's types.
pub(super) fn parse(
    path: &Path,
    text: &str,
    registry: &Registry,
) -> Result<PolicySet, PolicyFileError> {
    let wrong = |at: Range<usize>, problem: String| {
        let before = text.get(..at.start).unwrap_or(text);
        PolicyFileError::Wrong {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            table: table_at(text, at.start),
            problem: problem.replace('\n', "; "),
        }
    };
    let file: File = toml::from_str(text)
        .map_err(|error| wrong(error.span().unwrap_or_default(), error.message().to_owned()))?;
    let mut default = Policy::default();
    if let Some(table) = file.default {
        let at = table.span();
        table.into_inner().lay_over(&mut default);
        default
            .validate()
            .map_err(|error| wrong(at, error.to_string()))?;
    }
    let mut set = PolicySet::new(registry, &default);
    for (name, table) in file.types {
        let at = name.span();
        let policy = match registry.find(name.get_ref()) {
            Found::Handler(index) => set.get_mut(index),
            Found::Record | Found::Nobody => None,
        };
        let Some(policy) = policy else {
            return Err(wrong(at, nobody(name.get_ref(), registry)));
        };
        table.into_inner().lay_over(policy);
        policy
            .validate()
            .map_err(|error| wrong(at, error.to_string()))?;
    }
    Ok(set)
}

fn nobody(name: &str, registry: &Registry) -> String {
    let names: Vec<String> = registry.names().map(|name| format!("{name:?}")).collect();
    let known = if names.is_empty() {
        "this worker has none".to_owned()
    } else {
        format!("expected one of {}", names.join(", "))
    };
    format!("task type {name:?} has no handler: {known}")
}

/// The head of the table that a place in the text belongs to.
fn table_at(text: &str, at: usize) -> String {
    let end = text
        .get(at..)
        .and_then(|rest| rest.find('\n'))
        .map_or(text.len(), |length| at + length);
    text.get(..end)
        .unwrap_or(text)
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| line.starts_with('['))
        .map_or_else(|| "before any table".to_owned(), str::to_owned)
}
