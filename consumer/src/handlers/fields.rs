//! Where the fields of an event are that a handler sees: in the record's value, as whoever decoded it has noted.
//!
//! A task is decoded when it is taken into memory; what was found then is not looked for again when an attempt
//! begins.

use millrace_schemas::{Decoded, TaskEvent};

/// The places of an event's fields within the value that it was decoded from.
#[derive(Debug, Clone, Copy)]
pub struct Spans {
    key: Option<Span>,
    content_type: Span,
    payload: Span,
    submitted_at: i64,
}

impl Spans {
    /// What to note of an event that was decoded from `value`. `None` when it was written with another schema: its
    /// fields are then no part of the value.
    #[must_use]
    pub fn of(value: &[u8], decoded: &Decoded<'_>) -> Option<Self> {
        let Decoded::Current(event) = decoded else {
            return None;
        };
        Some(Self {
            key: match event.key {
                Some(key) => Some(Span::of(value, key.as_bytes())?),
                None => None,
            },
            content_type: Span::of(value, event.content_type.as_bytes())?,
            payload: Span::of(value, event.payload)?,
            submitted_at: event.submitted_at,
        })
    }
}

/// A part of the record's value.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    length: u32,
}

impl Span {
    /// Where `part` is within `whole`.
    fn of(whole: &[u8], part: &[u8]) -> Option<Self> {
        let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
        let span = Self {
            start: u32::try_from(start).ok()?,
            length: u32::try_from(part.len()).ok()?,
        };
        (start + part.len() <= whole.len()).then_some(span)
    }

    fn bytes(self, whole: &[u8]) -> &[u8] {
        whole
            .get(self.start as usize..)
            .and_then(|rest| rest.get(..self.length as usize))
            .unwrap_or_default()
    }

    fn text(self, whole: &[u8]) -> &str {
        std::str::from_utf8(self.bytes(whole)).unwrap_or_default()
    }
}

/// The fields of one attempt's event.
#[derive(Debug)]
pub(super) enum Fields {
    /// In the record's value.
    Within(Spans),
    /// The event was written with another schema and had to be resolved.
    Apart(Box<TaskEvent>),
}

impl Fields {
    pub(super) fn key<'a>(&'a self, value: &'a [u8]) -> Option<&'a str> {
        match self {
            Self::Within(spans) => spans.key.map(|key| key.text(value)),
            Self::Apart(event) => event.key.as_deref(),
        }
    }

    pub(super) fn content_type<'a>(&'a self, value: &'a [u8]) -> &'a str {
        match self {
            Self::Within(spans) => spans.content_type.text(value),
            Self::Apart(event) => &event.content_type,
        }
    }

    pub(super) fn payload<'a>(&'a self, value: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Within(spans) => spans.payload.bytes(value),
            Self::Apart(event) => &event.payload,
        }
    }

    /// Microseconds since the Unix epoch.
    pub(super) const fn submitted_at(&self) -> i64 {
        match self {
            Self::Within(spans) => spans.submitted_at,
            Self::Apart(event) => event.submitted_at,
        }
    }
}
