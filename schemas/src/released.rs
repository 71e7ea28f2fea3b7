//! Every version of the schema that was ever released.
//!
//! A released file never changes: producers in the field write it, and records of it lie in topics.
//! Each comes with a sample of bytes that its own version wrote, and a test reads all of them with
//! today's reader. A new version is a new file and a new line here.

/// CRC-64-AVRO fingerprint of the current schema, as it is on the wire (little-endian there).
pub const CURRENT_FINGERPRINT: u64 = 0xF371_F4BE_E8E6_382C;

/// The current schema, `avro/task_event.avsc`.
pub const CURRENT_SCHEMA: &str = include_str!("../avro/task_event.avsc");

/// A version of the schema as it was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleasedSchema {
    /// Counted from 1.
    pub version: u32,
    /// CRC-64-AVRO fingerprint of the schema.
    pub fingerprint: u64,
    /// The schema, an Avro record in JSON.
    pub json: &'static str,
}

const RELEASED: [ReleasedSchema; 1] = [ReleasedSchema {
    version: 1,
    fingerprint: CURRENT_FINGERPRINT,
    json: include_str!("../avro/released/v1.avsc"),
}];

/// All released versions, the oldest first; the last one is the current schema.
pub fn released() -> &'static [ReleasedSchema] {
    &RELEASED
}
