//! What a flush carries: settled records, each with how it ended, and where the position goes.
//!
//! The consumer builds these values and the flush writes them. A record keeps its raw bytes until its
//! outcome is durable, so a dead letter always has them.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use millrace_schemas::TaskId;
use uuid::Uuid;

use crate::books::{Counts, Outcome};
use crate::headers::Headers;
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
    /// Ascending by (log book, offset), at one place the record from the log first; those from the log are of
    /// the open log.
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
    /// Which of the last records did not decode: a bit each, the latest lowest, below a leading 1.
    pub decode_window: Option<i64>,
    /// The task that is noted as running alone comes to its end with this: the note goes, since a crash speaks
    /// against it no more.
    pub clears_suspect: bool,
}

/// A task and how it ended, or where it waits from now on.
#[derive(Debug)]
pub struct Settling {
    /// The offset of its record.
    pub offset: i64,
    /// The record's timestamp in Kafka, milliseconds since the Unix epoch; negative when it has none.
    pub timestamp_ms: i64,
    /// The record's value, framed as it came.
    pub value: Arc<[u8]>,
    /// The record's headers, where they were kept: the stock `record` handler keeps none.
    pub headers: Headers,
    /// Where it was until now.
    pub origin: Origin,
    /// Attempts that ended, this one included; 0 when none was started.
    pub attempts: u16,
    /// How it ended.
    pub ending: Ending,
}

/// Where a task was before this flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// In the log: its offset is settled by this flush.
    Log,
    /// In `parked_tasks`: its offset was settled when it was parked, and its row goes or changes now.
    Parked {
        /// The book with which its log began: the other half of its key.
        log_book: i32,
        /// 0, and one more with each redrive.
        run: i16,
    },
}

impl Settling {
    /// What tells it from every other record of its share: the book of a parked one, and its offset.
    pub(crate) const fn name(&self) -> (Option<i32>, i64) {
        match self.origin {
            Origin::Log => (None, self.offset),
            Origin::Parked { log_book, .. } => (Some(log_book), self.offset),
        }
    }

    /// 0, and one more with each redrive.
    #[must_use]
    pub const fn run(&self) -> i16 {
        match self.origin {
            Origin::Log => 0,
            Origin::Parked { run, .. } => run,
        }
    }

    /// What it holds in memory, in bytes, beside its fixed size.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let ending = match &self.ending {
            Ending::Output(output) => output.body.len() + output.content_type.len(),
            Ending::Dead(letter) => letter.held_bytes(),
            Ending::Parked(parking) => parking.error.as_ref().map_or(0, String::len),
            Ending::Payload
            | Ending::Cancelled
            | Ending::Expired
            | Ending::Known(_)
            | Ending::Repeat(_) => 0,
        };
        (self.value.len() + self.headers.as_bytes().len() + ending) as u64
    }
}

/// How the work on a task ended, for now or for good.
#[derive(Debug, Clone)]
pub enum Ending {
    /// Success; the result is the payload of the event itself.
    Payload,
    /// Success, with what the handler returned.
    Output(Box<Output>),
    /// Nobody could work on it, or the work failed for good.
    Dead(Box<DeadLetter>),
    /// Somebody asked for it to be cancelled, and it was not finished.
    Cancelled,
    /// Its deadline passed before it was finished.
    Expired,
    /// It waits in the database from now on; a parked task with this ending is parked anew.
    Parked(Box<Parking>),
    /// It was settled before, at this very offset, as a look-up has shown: nothing is written of it.
    Known(Outcome),
    /// A look-up showed that its deduplication key is another task's, so it was not run. If the flush finds
    /// that it is no longer so, it is parked behind the others of this key hash; without any it is due at once.
    Repeat([u8; 16]),
}

/// What a handler returned.
#[derive(Debug, Clone)]
pub struct Output {
    /// Media type of the body.
    pub content_type: Cow<'static, str>,
    /// The result, at most as long as the worker allows.
    pub body: Box<[u8]>,
}

/// How a task waits in the database.
#[derive(Debug, Clone)]
pub struct Parking {
    /// Why it waits.
    pub kind: ParkKind,
    /// 128 bits over (tenant, ordering key), or the id of a task without a key: whom it waits with.
    pub key_hash: [u8; 16],
    /// When it is due, by the database's clock.
    pub due: Due,
    /// Time spent running and in planned waits so far, the wait that begins now included.
    pub age: Duration,
    /// What went wrong in the last attempt.
    pub error: Option<String>,
}

/// Why a task is parked; the texts are those of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParkKind {
    /// It failed and is tried again when its key is due.
    Retry,
    /// An earlier task of its key is parked, or the key has more tasks than memory holds.
    Behind,
    /// Its `run_at` lies ahead. It blocks nobody.
    Delayed,
    /// It runs at this moment, for longer than the frontier can wait.
    Running,
    /// A dead letter that was sent to work again.
    Redrive,
}

impl ParkKind {
    /// Every kind there is.
    pub const ALL: [Self; 5] = [
        Self::Retry,
        Self::Behind,
        Self::Delayed,
        Self::Running,
        Self::Redrive,
    ];

    /// The label in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Behind => "behind",
            Self::Delayed => "delayed",
            Self::Running => "running",
            Self::Redrive => "redrive",
        }
    }
}

/// When a parked task, or its key, is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// So long after the flush; zero means at once, that is, as soon as its owner asks.
    In(Duration),
    /// At a point in time, microseconds since the Unix epoch.
    At(i64),
    /// Whenever its key is due: the key's time stays as it is; a key that had none is due at once.
    WithKey,
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
    /// No handler is registered for its type.
    UnknownType,
    /// The handler said that trying again is of no use.
    Permanent,
    /// It was tried as often, or for as long, as its policy allows.
    AttemptsExhausted,
    /// The worker died while it ran, again and again.
    CrashedWorker,
}

impl Reason {
    /// Every reason there is.
    pub const ALL: [Self; 9] = [
        Self::Undecodable,
        Self::IdOutOfRange,
        Self::IdConflict,
        Self::DedupConflict,
        Self::RowRefused,
        Self::UnknownType,
        Self::Permanent,
        Self::AttemptsExhausted,
        Self::CrashedWorker,
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
            Self::UnknownType => "unknown_type",
            Self::Permanent => "permanent",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::CrashedWorker => "crashed_worker",
        }
    }

    /// Whether the task's own id may carry a failed result: it is in range and nobody else's.
    #[must_use]
    pub const fn id_is_usable(self) -> bool {
        !matches!(self, Self::IdOutOfRange | Self::IdConflict)
    }

    /// Whether the task was worked on: then it owns its deduplication key like one that succeeded.
    #[must_use]
    pub const fn was_worked_on(self) -> bool {
        matches!(
            self,
            Self::Permanent | Self::AttemptsExhausted | Self::CrashedWorker
        )
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
    /// The task's id, from the event or from a header.
    pub task_id: Option<TaskId>,
    /// The tenant, from the event or from a header.
    pub tenant: Option<String>,
}

impl DeadLetter {
    fn held_bytes(&self) -> usize {
        self.error.len() + self.key.as_ref().map_or(0, Vec::len)
    }

    /// A dead letter about an event that decodes: the rest is read from the event.
    #[must_use]
    pub fn about_event(reason: Reason, error: impl Into<String>) -> Self {
        Self {
            reason,
            error: error.into(),
            key: None,
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
