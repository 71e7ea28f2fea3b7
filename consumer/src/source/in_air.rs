//! Tasks on their way into the database, and what their landing means.

use millrace_schemas::TaskId;
use millrace_store::{Ending, Origin, Outcome, ParkKind, Settling};

use millrace_telemetry as telemetry;

use crate::engine::{Charge, LaneKey, Offset, Spot};
use crate::handlers::TypeIndex;

/// A task on its way into the database, for the moment when it is there.
#[derive(Debug, Clone)]
pub struct Tracked {
    /// Its lane.
    pub lane: LaneKey,
    /// With whom it waits.
    pub key_hash: [u8; 16],
    /// Its deduplication hash.
    pub dedup: Option<[u8; 16]>,
    /// How it was parked before.
    pub was: Option<ParkKind>,
    /// How it is parked from now on.
    pub becomes: Option<ParkKind>,
    /// Its id, where it ends as cancelled: the request is then done with.
    pub cancelled: Option<TaskId>,
    /// It was taken for a repeat; if it is none after all, it is parked.
    pub repeats: bool,
}

/// A flush that was sent and not answered.
#[derive(Debug)]
pub(super) struct InAir {
    /// In order.
    pub flown: Vec<Flown>,
    /// The position that goes with them.
    pub next_offset: Offset,
    /// What is held for them.
    pub charge: Charge,
    /// Offsets without a record that the position passes.
    pub gaps: i64,
}

/// What a landed flush means for the rest of the worker.
#[derive(Debug)]
pub struct Settled {
    /// The position that is durable now.
    pub next_offset: Offset,
    /// Offsets without a record that it passed.
    pub gaps: i64,
    /// How many tasks of which type ended how, for metrics.
    pub counted: Vec<(TypeIndex, telemetry::Outcome, u64)>,
    /// Tasks of whose landing somebody has to hear.
    pub heard: Vec<(Spot, Tracked, Outcome)>,
}

/// What is kept of a task while its flush is in the air.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flown {
    pub spot: Spot,
    pub from_log: bool,
    task_type: TypeIndex,
    /// How it counts when the flush agrees with its ending.
    counts_as: telemetry::Outcome,
}

impl Flown {
    pub(super) const fn of(record: &Settling, task_type: TypeIndex, open_log: i32) -> Self {
        Self {
            spot: spot_of(record, open_log),
            from_log: matches!(record.origin, Origin::Log),
            task_type,
            counts_as: match &record.ending {
                Ending::Cancelled => telemetry::Outcome::Cancelled,
                Ending::Expired => telemetry::Outcome::Expired,
                Ending::Dead(letter) if letter.reason.was_worked_on() => telemetry::Outcome::Failed,
                _ => telemetry::Outcome::Success,
            },
        }
    }

    const fn outcome(&self, outcome: Outcome) -> telemetry::Outcome {
        match (outcome, self.counts_as) {
            (Outcome::Duplicate, _) => telemetry::Outcome::Duplicate,
            (Outcome::Parked, _) => telemetry::Outcome::Parked,
            (Outcome::DeadLetter, telemetry::Outcome::Failed) => telemetry::Outcome::Failed,
            (Outcome::DeadLetter, _) => telemetry::Outcome::DeadLetter,
            (Outcome::Result, counts_as) => counts_as,
        }
    }
}

impl Settled {
    /// Counts one more task that ended.
    pub(super) fn count(&mut self, one: &Flown, outcome: Outcome) {
        let (task_type, outcome) = (one.task_type, one.outcome(outcome));
        let mut counted = self.counted.iter_mut();
        match counted.find(|(other, ended, _)| (*other, *ended) == (task_type, outcome)) {
            Some((.., count)) => *count += 1,
            None => self.counted.push((task_type, outcome, 1)),
        }
    }
}

/// Where a task's record lies, given which log is open.
pub(super) const fn spot_of(record: &Settling, open_log: i32) -> Spot {
    let log_book = match record.origin {
        Origin::Log => open_log,
        Origin::Parked { log_book, .. } => log_book,
    };
    Spot {
        log_book,
        offset: record.offset,
    }
}

/// Whether an attempt is over with it: a task that goes on running, or of which another copy waits, is not.
pub(super) const fn is_end(ending: &Ending) -> bool {
    match ending {
        Ending::Parked(parking) => !matches!(parking.kind, ParkKind::Running),
        Ending::Known(_) => false,
        Ending::Payload
        | Ending::Output(_)
        | Ending::Dead(_)
        | Ending::Cancelled
        | Ending::Expired
        | Ending::Repeat(_) => true,
    }
}

/// How a task with this ending is parked, if it is.
pub(super) const fn kind_of(ending: &Ending) -> Option<ParkKind> {
    match ending {
        Ending::Parked(parking) => Some(parking.kind),
        Ending::Payload
        | Ending::Output(_)
        | Ending::Dead(_)
        | Ending::Cancelled
        | Ending::Expired
        | Ending::Repeat(_)
        | Ending::Known(_) => None,
    }
}
