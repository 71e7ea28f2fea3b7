//! A task in memory, from the moment that it is taken from the log, or fetched from the table of parked
//! tasks, until its ending is on its way into the database.

use std::sync::Arc;
use std::time::Duration;

use millrace_store::{Due, Ending, Origin, ParkKind, Parking, Settling};

use crate::engine::{Charge, Laned, Spot};
use crate::handlers::{Task, TypeIndex};

/// The type of tasks whose payload is their result: no handler runs for them.
pub const RECORD: TypeIndex = TypeIndex(u16::MAX);

/// See the module.
#[derive(Debug)]
pub struct Job {
    /// What the handler gets.
    pub task: Arc<Task>,
    /// How it is parked, if it is: then the database holds a row of it.
    pub parked: Option<ParkKind>,
    /// Whether it was fetched from the database.
    pub woken: bool,
    /// With whom it waits in the database: the hash of its key, or its id.
    pub key_hash: [u8; 16],
    /// Attempts that ended without success.
    pub attempts: u16,
    /// Time spent running and in planned waits.
    pub age: Duration,
    /// Times that it was fetched from the database since it was parked.
    pub wakes: u16,
    /// The record's timestamp, milliseconds since the Unix epoch; negative when it has none.
    pub timestamp_ms: i64,
    /// When it was submitted, microseconds since the Unix epoch.
    pub submitted_at: i64,
    /// Its deduplication hash.
    pub dedup: Option<[u8; 16]>,
    /// What went wrong in the last attempt.
    pub error: Option<String>,
}

impl Laned for Job {
    fn spot(&self) -> Spot {
        Spot {
            log_book: self.task.place.log_book,
            offset: self.task.place.offset,
        }
    }

    fn joins_last(&self) -> bool {
        self.parked == Some(ParkKind::Delayed)
    }

    fn has_row(&self) -> bool {
        self.parked.is_some()
    }

    fn key_hash(&self) -> [u8; 16] {
        self.key_hash
    }

    /// One that was parked behind others does not own its deduplication key yet, and one for later may be a repeat
    /// that waits until its first has ended.
    fn is_to_be_looked_up(&self) -> bool {
        matches!(self.parked, Some(ParkKind::Behind | ParkKind::Delayed)) && self.dedup.is_some()
    }
}

impl Job {
    /// What is held in memory for it.
    #[must_use]
    pub fn charge(&self) -> Charge {
        Charge::event((self.task.value.len() + self.task.headers.as_bytes().len()) as u64)
    }

    /// Where it was before the next flush.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self.parked {
            None => Origin::Log,
            Some(_) => Origin::Parked {
                log_book: self.task.place.log_book,
                run: self.task.run,
            },
        }
    }

    /// How it goes into a flush with this ending.
    #[must_use]
    pub fn settling(&self, ending: Ending) -> Settling {
        Settling {
            offset: self.task.place.offset,
            timestamp_ms: self.timestamp_ms,
            value: Arc::clone(&self.task.value),
            headers: self.task.headers.clone(),
            origin: self.origin(),
            attempts: self.attempts,
            ending,
        }
    }

    /// The ending that makes it wait in the database.
    #[must_use]
    pub fn parking(&self, kind: ParkKind, due: Due) -> Ending {
        Ending::Parked(Box::new(Parking {
            kind,
            key_hash: self.key_hash,
            due,
            age: self.age,
            error: self.error.clone(),
        }))
    }
}
