//! Tasks coming into memory: which lane, which handler, and what there is to know before one may start.
//!
//! The same for a record of the log and for a parked task that comes back.

use std::sync::Arc;

use millrace_schemas::TaskEventRef;
use millrace_store::parked::Parked;
use millrace_store::{DeadLetter, Ending, Headers, Reason};

use crate::engine::{LaneKey, Mode, Spot};
use crate::handlers::{FencingToken, Found, Place, Spans, Task, TypeIndex};
use crate::work::floor::Floor;
use crate::work::job::{Job, RECORD};

/// A task that has come into memory.
pub(super) enum Admitted {
    /// It goes into its lane.
    Runs { lane: LaneKey, job: Job },
    /// It has no handler, or cannot be read: it ends at once.
    Ends {
        lane: LaneKey,
        job: Job,
        ending: Ending,
    },
}

/// A record of the log, decoded.
pub(super) struct Arrival<'a> {
    pub partition: i32,
    pub spot: Spot,
    pub token: i64,
    pub timestamp_ms: i64,
    pub event: &'a TaskEventRef<'a>,
    pub found: Found,
    pub value: Arc<[u8]>,
    pub spans: Option<Spans>,
    pub headers: Headers,
}

/// Makes a task in memory of a record.
pub(super) fn admit(floor: &mut Floor, arrival: Arrival<'_>) -> Admitted {
    let (event, found) = (arrival.event, arrival.found);
    let task_type = index_of(found);
    let mode = floor.policies.get(task_type).mode;
    let (lane, key_hash) = match (mode, event.lane_hash()) {
        (Mode::Key, Some(hash)) => (LaneKey::Key(hash), hash),
        (Mode::Partition, _) => (LaneKey::Partition, *event.task_id.as_bytes()),
        (Mode::Key, None) | (Mode::Unordered, _) => {
            (LaneKey::Alone(arrival.spot), *event.task_id.as_bytes())
        }
    };
    let job = Job {
        task: Arc::new(Task {
            place: Place {
                partition: arrival.partition,
                log_book: arrival.spot.log_book,
                offset: arrival.spot.offset,
            },
            task_id: event.task_id,
            task_type,
            tenant: floor.tenant(event.tenant),
            run: 0,
            fencing: FencingToken {
                partition: arrival.partition,
                seq: arrival.token,
            },
            value: arrival.value,
            spans: arrival.spans,
            headers: arrival.headers,
            deadline_micros: event.deadline,
        }),
        parked: None,
        woken: false,
        key_hash,
        attempts: 0,
        age: std::time::Duration::ZERO,
        wakes: 0,
        timestamp_ms: arrival.timestamp_ms,
        submitted_at: event.submitted_at,
        dedup: event.dedup_hash().map(|hash| hash.0),
        error: None,
    };
    if found == Found::Nobody {
        return no_handler(lane, job, event.task_type);
    }
    Admitted::Runs { lane, job }
}

/// Makes a task in memory of a parked one.
pub(super) fn admit_parked(
    floor: &mut Floor,
    token: i64,
    parked: Parked,
    event: &TaskEventRef<'_>,
) -> Admitted {
    let found = floor.registry.find(event.task_type);
    let task_type = index_of(found);
    let spot = Spot {
        log_book: parked.log_book,
        offset: parked.offset,
    };
    let lane = match (floor.policies.get(task_type).mode, event.lane_hash()) {
        (Mode::Key, Some(_)) => LaneKey::Key(parked.key_hash),
        (Mode::Partition, _) => LaneKey::Partition,
        (Mode::Key, None) | (Mode::Unordered, _) => LaneKey::Alone(spot),
    };
    let tenant = floor.tenant(event.tenant);
    let job = Job {
        submitted_at: event.submitted_at,
        dedup: event.dedup_hash().map(|hash| hash.0),
        ..job_of(token, parked, task_type, tenant, event.deadline)
    };
    if found == Found::Nobody {
        return no_handler(lane, job, event.task_type);
    }
    Admitted::Runs { lane, job }
}

/// A parked task whose bytes cannot be read any more.
pub(super) fn unreadable(token: i64, parked: Parked) -> (LaneKey, Job) {
    let lane = LaneKey::Key(parked.key_hash);
    let tenant = Arc::from(&*parked.tenant);
    (lane, job_of(token, parked, RECORD, tenant, None))
}

fn job_of(
    token: i64,
    parked: Parked,
    task_type: TypeIndex,
    tenant: Arc<str>,
    deadline_micros: Option<i64>,
) -> Job {
    Job {
        task: Arc::new(Task {
            place: Place {
                partition: parked.partition,
                log_book: parked.log_book,
                offset: parked.offset,
            },
            task_id: parked.task_id,
            task_type,
            tenant,
            run: parked.run,
            fencing: FencingToken {
                partition: parked.partition,
                seq: token,
            },
            value: parked.value,
            spans: None,
            headers: parked.headers,
            deadline_micros,
        }),
        parked: Some(parked.kind),
        woken: true,
        key_hash: parked.key_hash,
        attempts: parked.attempts,
        age: parked.age,
        wakes: parked.wakes,
        timestamp_ms: parked.timestamp_ms,
        submitted_at: 0,
        dedup: None,
        error: None,
    }
}

const fn index_of(found: Found) -> TypeIndex {
    match found {
        Found::Handler(index) => index,
        Found::Record | Found::Nobody => RECORD,
    }
}

fn no_handler(lane: LaneKey, job: Job, task_type: &str) -> Admitted {
    let error = format!(
        "no handler is registered for task type {task_type:?}: register one in the worker, then redrive"
    );
    let letter = DeadLetter::about_event(Reason::UnknownType, error);
    Admitted::Ends {
        lane,
        job,
        ending: Ending::Dead(Box::new(letter)),
    }
}
