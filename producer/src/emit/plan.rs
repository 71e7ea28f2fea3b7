//! What one `emit` is to do, checked for sense.

use std::path::PathBuf;

use super::format::FormatChoice;
use super::pointer::Fields;
use super::source::Input;

/// Everything that decides how input becomes events.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The inputs, in the order in which they are sent; at least one.
    pub inputs: Vec<Input>,
    /// NDJSON or CSV, or to be found out.
    pub format: FormatChoice,
    /// Task type of every event.
    pub task_type: String,
    /// Tenant of every event.
    pub tenant: String,
    /// Which fields give ordering key and dedup key.
    pub fields: Fields,
    /// The dedup key is the file's digest and the line.
    pub once: bool,
    /// Events per second at most.
    pub rate: Option<f64>,
    /// First physical line to be sent, counted from 1.
    pub from_line: u64,
    /// Where rejected lines are written; without, the first one ends the sending.
    pub rejects: Option<PathBuf>,
    /// Bytes that an encoded event may have.
    pub max_event_bytes: usize,
}

impl Plan {
    /// Whether what was sent before is dropped as a duplicate when it is sent again.
    pub fn repeatable(&self) -> bool {
        self.once || self.fields.dedup.is_some()
    }
}
