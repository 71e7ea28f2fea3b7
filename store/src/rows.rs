//! What a flush carries: settled records, each with how it ended, and where the position goes.
//!
//! The consumer builds these values and the flush writes them. A record keeps its raw bytes until its
//! outcome is durable, so a dead letter always has them.

use millrace_schemas::TaskId;
use uuid::Uuid;

use crate::books::Counts;
use crate::position::Fence;

/// One flush: what its partitions settle together in one transaction.
#[derive(Debug, Default)]
pub struct Flush {
    /// Ascending by partition, each at most once.
    pub shares: Vec<Share>,
}

/// One partition's part of a flush.
#[derive(Debug)]
pub struct Share {
    /// The partition.
    pub partition: i32,
    /// The fence as the last write of this claim left it.
    pub fence: Fence,
    /// Ascending by offset.
    pub records: Vec<Settling>,
    /// Where the partition stands once these records are settled.
    pub advance: Advance,
    /// Whether rows of these offsets may be there already: below the highest offset ever settled.
    pub may_repeat: bool,
}

/// The new position of a partition, and the counts that come with it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Advance {
    /// The first offset that will not be settled.
    pub next_offset: i64,
    /// Offsets passed by the position that this flush does not carry: gaps, and what settled earlier.
    pub counted: Counts,
    /// Leader epoch of the last record below the position.
    pub leader_epoch: Option<i32>,
    /// Timestamp of the last record below the position, in milliseconds since the Unix epoch.
    pub frontier_ms: Option<i64>,
}

/// A record and how it ended.
#[derive(Debug)]
pub struct Settling {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in Kafka, milliseconds since the Unix epoch; negative when it has none.
    pub timestamp_ms: i64,
    /// Its value, framed as it came.
    pub value: Box<[u8]>,
    /// How it ended.
    pub ending: Ending,
}

impl Settling {
    /// What it holds in memory, in bytes, beside its fixed size.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let letter = match &self.ending {
            Ending::Payload => 0,
            Ending::Dead(letter) => letter.held_bytes(),
        };
        (self.value.len() + letter) as u64
    }
}

/// How the work on a record ended.
#[derive(Debug, Clone)]
pub enum Ending {
    /// Success; the result is the payload of the event itself.
    Payload,
    /// Nobody could work on it.
    Dead(Box<DeadLetter>),
}

/// Why a record is a dead letter; the texts are fixed, since tools filter by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The bytes are no event under the schema that they name.
    Undecodable,
    /// The id was born before the kept days or after tomorrow.
    IdOutOfRange,
    /// The id is another task's, by content or tenant.
    IdConflict,
    /// The deduplication key was used for another content.
    DedupConflict,
    /// The database would not have the row.
    RowRefused,
}

impl Reason {
    /// Every reason there is.
    pub const ALL: [Self; 5] = [
        Self::Undecodable,
        Self::IdOutOfRange,
        Self::IdConflict,
        Self::DedupConflict,
        Self::RowRefused,
    ];

    /// The word in the table, in metrics and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::IdOutOfRange => "id_out_of_range",
            Self::IdConflict => "id_conflict",
            Self::DedupConflict => "dedup_conflict",
            Self::RowRefused => "row_refused",
        }
    }

    /// Whether the task's own id may carry a failed result: it is in range and nobody else's.
    #[must_use]
    pub const fn id_is_usable(self) -> bool {
        match self {
            Self::Undecodable | Self::DedupConflict | Self::RowRefused => true,
            Self::IdOutOfRange | Self::IdConflict => false,
        }
    }
}

/// A record set aside.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Why.
    pub reason: Reason,
    /// What exactly was wrong, for a person.
    pub error: String,
    /// The record's key, where the event cannot tell it.
    pub key: Option<Vec<u8>>,
    /// The record's headers, where they were kept.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The task's id, from the event or from a header.
    pub task_id: Option<TaskId>,
    /// The tenant, from the event or from a header.
    pub tenant: Option<String>,
}

impl DeadLetter {
    fn held_bytes(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        self.error.len() + self.key.as_ref().map_or(0, Vec::len) + headers
    }

    /// A dead letter about an event that decodes: the rest is read from the event.
    #[must_use]
    pub fn about_event(reason: Reason, error: impl Into<String>) -> Self {
        Self {
            reason,
            error: error.into(),
            key: None,
            headers: Vec::new(),
            task_id: None,
            tenant: None,
        }
    }
}

/// Text that Postgres can hold: without NUL, and at most `most` bytes.
#[must_use]
pub fn storable(text: &str, most: usize) -> String {
    let mut clean: String = text
        .chars()
        .map(|c| if c == '\0' { '\u{FFFD}' } else { c })
        .collect();
    if clean.len() > most {
        let end = (0..=most)
            .rev()
            .find(|&at| clean.is_char_boundary(at))
            .unwrap_or(0);
        clean.truncate(end);
    }
    clean
}

/// Whether Postgres can hold this time, in milliseconds since the Unix epoch. A record's timestamp is the
/// producer's word, and may be anything.
pub(crate) const fn is_storable_ms(ms: &i64) -> bool {
    *ms >= 0 && *ms <= millrace_schemas::limits::LATEST_MICROS / 1_000
}

/// An id of ours as sqlx binds it.
#[must_use]
pub const fn uuid_of(id: TaskId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}
