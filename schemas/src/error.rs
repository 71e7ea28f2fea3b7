//! Why bytes are no task event, and why a schema cannot be used to read them.
//!
//! The one distinction that callers act on: an unknown schema is an outage, to be waited for until
//! somebody publishes the schema, while every other [`DecodeError`] lies in the bytes themselves
//! and will never go away.

use std::fmt;

use crate::field::{Field, FieldOutOfRange};

/// What was wrong with bytes that should have been a task event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No bytes at all.
    #[error("expected a task event, found no bytes")]
    Empty,
    /// Neither of the two framings.
    #[error(
        "expected Avro single-object encoding (C3 01) or Confluent wire format (00), found {found:02X?}"
    )]
    Magic {
        /// The first one or two bytes.
        found: Vec<u8>,
    },
    /// The bytes end within the fingerprint or id of the schema.
    #[error("expected a header of {needed} bytes, found {found}")]
    TruncatedHeader {
        /// Length of the header in bytes.
        needed: usize,
        /// Length of what is there.
        found: usize,
    },
    /// A schema that this reader has not learned, by its CRC-64-AVRO fingerprint.
    #[error("unknown schema fingerprint {fingerprint:016x}")]
    UnknownFingerprint {
        /// The fingerprint as a number.
        fingerprint: u64,
    },
    /// A Confluent schema id that this reader was not told about.
    #[error("unknown Confluent schema id {id}")]
    UnknownSchemaId {
        /// The id.
        id: u32,
    },
    /// The bytes end within a field.
    #[error("{field}: expected {needed} more bytes, found {left}")]
    Truncated {
        /// The field.
        field: Field,
        /// Bytes that the field still needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// The event is complete and bytes are left over.
    #[error("expected the end after the last field, found {count} more bytes")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// A text field that is not UTF-8.
    #[error("{field}: expected UTF-8, found an invalid byte at {at}")]
    InvalidUtf8 {
        /// The field.
        field: Field,
        /// Position of the first invalid byte within the field.
        at: usize,
    },
    /// A value that the field's rules do not allow.
    #[error(transparent)]
    OutOfRange(#[from] FieldOutOfRange),
    /// Bytes of another known schema that do not decode under it, or cannot be resolved to the
    /// current one.
    #[error("cannot read this event of schema {fingerprint:016x}: {reason}")]
    Resolve {
        /// The writer's schema.
        fingerprint: u64,
        /// What the Avro library said.
        reason: String,
    },
}

impl DecodeError {
    /// The schema that has to be learned before these bytes can be judged: wait for it. None: the
    /// bytes do not decode and never will.
    pub fn unknown_schema(&self) -> Option<UnknownSchema> {
        match self {
            Self::UnknownFingerprint { fingerprint } => {
                Some(UnknownSchema::Fingerprint(*fingerprint))
            }
            Self::UnknownSchemaId { id } => Some(UnknownSchema::ConfluentId(*id)),
            Self::Empty
            | Self::Magic { .. }
            | Self::TruncatedHeader { .. }
            | Self::Truncated { .. }
            | Self::TrailingBytes { .. }
            | Self::InvalidUtf8 { .. }
            | Self::OutOfRange(_)
            | Self::Resolve { .. } => None,
        }
    }
}

/// A schema that a reader would have to learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnknownSchema {
    /// By its CRC-64-AVRO fingerprint.
    Fingerprint(u64),
    /// By its id in a Confluent schema registry.
    ConfluentId(u32),
}

impl fmt::Display for UnknownSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fingerprint(fingerprint) => write!(f, "schema fingerprint {fingerprint:016x}"),
            Self::ConfluentId(id) => write!(f, "Confluent schema id {id}"),
        }
    }
}

/// Why a writer's schema cannot be learned. Its events stay unknown, that is, they wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The text is no Avro schema.
    #[error("expected an Avro schema in JSON: {reason}")]
    Parse {
        /// What the Avro library said.
        reason: String,
    },
    /// The schema lacks a field that has no default, or a field has another type.
    #[error("events of this schema cannot be read as millrace.TaskEvent: {reason}")]
    Incompatible {
        /// Which field, and why.
        reason: String,
    },
    /// A few bytes of this schema could make a reader use any amount of memory or stack.
    #[error("events of this schema cannot be read within bounds: {reason}")]
    Unbounded {
        /// Which part of the schema, and why.
        reason: String,
    },
}
