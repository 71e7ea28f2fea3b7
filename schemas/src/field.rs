//! The fields of a task event by name, and what can be wrong with a field's value.
//!
//! Errors name a field by this type, so that producers and consumers speak of it in the same words
//! and nothing depends on matching texts.

use std::fmt;

use crate::task_id::TaskIdError;

/// A field of `avro/task_event.avsc`, in its order; displayed by its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// `task_id`
    TaskId,
    /// `task_type`
    TaskType,
    /// `tenant`
    Tenant,
    /// `key`
    Key,
    /// `dedup_key`
    DedupKey,
    /// `submitted_at`
    SubmittedAt,
    /// `run_at`
    RunAt,
    /// `deadline`
    Deadline,
    /// `content_type`
    ContentType,
    /// `reply`
    Reply,
    /// `callback`
    Callback,
    /// `payload`
    Payload,
}

impl Field {
    /// All fields in the order in which they are on the wire.
    pub const ALL: [Self; 12] = [
        Self::TaskId,
        Self::TaskType,
        Self::Tenant,
        Self::Key,
        Self::DedupKey,
        Self::SubmittedAt,
        Self::RunAt,
        Self::Deadline,
        Self::ContentType,
        Self::Reply,
        Self::Callback,
        Self::Payload,
    ];

    /// The field's name in the schema.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TaskId => "task_id",
            Self::TaskType => "task_type",
            Self::Tenant => "tenant",
            Self::Key => "key",
            Self::DedupKey => "dedup_key",
            Self::SubmittedAt => "submitted_at",
            Self::RunAt => "run_at",
            Self::Deadline => "deadline",
            Self::ContentType => "content_type",
            Self::Reply => "reply",
            Self::Callback => "callback",
            Self::Payload => "payload",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A field whose value the schema's rules do not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldOutOfRange {
    /// The field.
    pub field: Field,
    /// What was expected and found.
    pub problem: RangeProblem,
}

/// What is wrong with a field's value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeProblem {
    /// A length below zero.
    #[error("expected a length of 0 or more, found {found}")]
    NegativeLength {
        /// The length as decoded.
        found: i64,
    },
    /// An optional field whose union index is neither 0 (null) nor 1 (the value).
    #[error("expected union index 0 or 1, found {found}")]
    UnionIndex {
        /// The index as decoded.
        found: i64,
    },
    /// A boolean byte that is neither 0 nor 1.
    #[error("expected a boolean byte of 0 or 1, found {found}")]
    Boolean {
        /// The byte.
        found: u8,
    },
    /// A variable-length integer of more than 64 bits.
    #[error("expected an integer of at most 64 bits, found a longer one")]
    VarintOverflow,
    /// An id that is no UUIDv7.
    #[error(transparent)]
    TaskId(#[from] TaskIdError),
    /// A time outside [`limits::EARLIEST_MICROS`](crate::limits::EARLIEST_MICROS) to
    /// [`limits::LATEST_MICROS`](crate::limits::LATEST_MICROS).
    #[error("expected a time within the years 1 to 9999, found {found} microseconds since 1970")]
    Time {
        /// Microseconds since the Unix epoch.
        found: i64,
    },
    /// A text with a NUL character, which Postgres cannot hold.
    #[error("expected text without NUL characters, found one at byte {at}")]
    Nul {
        /// Position within the field, in bytes.
        at: usize,
    },
    /// A text that is over its limit.
    #[error("expected at most {limit} bytes, found {found}")]
    TooLong {
        /// Length of the text in bytes.
        found: usize,
        /// The field's limit in bytes.
        limit: usize,
    },
}
