//! What handlers do: attempts that ended, how long they took, how many run, how long tasks waited.
//!
//! A task type is an index into the list that [`HandlerMetrics::new`] was given, so no call looks at
//! a name. Attempts are gathered in an [`AttemptBatch`] by the one thread that sees them end, and
//! entered together: an attempt costs two additions in memory, never an atomic or a lock.

use crate::definition::{Definition, Kind};
use crate::latency::{LatencyBatch, LatencyHistogram};
use crate::task_metrics::OTHER;
use metrics::{Counter, Gauge};
use std::sync::Arc;
use std::time::Duration;

const ATTEMPTS: Definition = Definition {
    name: "millrace_attempts_total",
    kind: Kind::Counter,
    labels: &["task_type", "outcome"],
    help: "Attempts that ended, by type and how they ended.",
};
const HANDLER_SECONDS: Definition = Definition {
    name: "millrace_handler_seconds",
    kind: Kind::Latency,
    labels: &["task_type"],
    help: "Time from an attempt's start to its end, however it ended.",
};
const RUNNING: Definition = Definition {
    name: "millrace_tasks_running",
    kind: Kind::Gauge,
    labels: &["task_type"],
    help: "Attempts that run now.",
};
const TYPE_LIMIT: Definition = Definition {
    name: "millrace_tasks_running_limit",
    kind: Kind::Gauge,
    labels: &["task_type"],
    help: "How many attempts of the type may run at once in this worker.",
};
const WORKER_LIMIT: Definition = Definition {
    name: "millrace_worker_tasks_running_limit",
    kind: Kind::Gauge,
    labels: &[],
    help: "How many attempts of all types may run at once in this worker.",
};
const WAIT_SECONDS: Definition = Definition {
    name: "millrace_task_wait_seconds",
    kind: Kind::Latency,
    labels: &[],
    help: "Time from an event's submission to the start of its first attempt.",
};

pub(crate) const DEFINITIONS: &[&Definition] = &[
    &ATTEMPTS,
    &HANDLER_SECONDS,
    &RUNNING,
    &TYPE_LIMIT,
    &WORKER_LIMIT,
    &WAIT_SECONDS,
];

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The handler returned a result.
    Success,
    /// The handler failed and may be tried again.
    Retry,
    /// The handler said that trying again is of no use.
    Permanent,
    /// The handler panicked.
    Panic,
    /// It ran longer than its type allows.
    Timeout,
    /// Somebody cancelled the task, or its deadline passed, and the handler stopped.
    Cancelled,
    /// The worker stopped waiting for it: it did not stop within its grace time, or its partition
    /// is gone. What it returns is dropped.
    Abandoned,
}

impl AttemptOutcome {
    /// In the order of the variants.
    const LABELS: [&str; 7] = [
        "success",
        "retry",
        "permanent",
        "panic",
        "timeout",
        "cancelled",
        "abandoned",
    ];
}

#[derive(Clone, Debug, Default)]
struct TypeBatch {
    outcomes: [u64; AttemptOutcome::LABELS.len()],
    seconds: LatencyBatch,
}

/// Attempts gathered by one thread, to be entered by [`HandlerMetrics::attempts`].
#[derive(Clone, Debug)]
pub struct AttemptBatch {
    registered: Vec<TypeBatch>,
    other: TypeBatch,
}

impl AttemptBatch {
    /// An attempt of the type with this index ended so and took so long.
    pub fn record(&mut self, task_type: usize, outcome: AttemptOutcome, took: Duration) {
        let batch = self
            .registered
            .get_mut(task_type)
            .unwrap_or(&mut self.other);
        if let Some(count) = batch.outcomes.get_mut(outcome as usize) {
            *count += 1;
        }
        batch.seconds.record(took);
    }
}

/// The metrics of one task type.
#[derive(Debug)]
pub struct TypeMetrics {
    attempts: [Counter; AttemptOutcome::LABELS.len()],
    seconds: LatencyHistogram,
    running: Gauge,
    limit: Gauge,
}

impl TypeMetrics {
    fn new(task_type: &str) -> TypeMetrics {
        TypeMetrics {
            attempts: AttemptOutcome::LABELS.map(|outcome| ATTEMPTS.counter(&[task_type, outcome])),
            seconds: HANDLER_SECONDS.latency(&[task_type]),
            running: RUNNING.gauge(&[task_type]),
            limit: TYPE_LIMIT.gauge(&[task_type]),
        }
    }

    /// So many attempts ended so. Their time goes to [`Self::handler_seconds`]; an
    /// [`AttemptBatch`] does both.
    pub fn attempts(&self, outcome: AttemptOutcome, count: u64) {
        if let Some(counter) = self.attempts.get(outcome as usize) {
            counter.increment(count);
        }
    }

    /// How long attempts took. Empties the batch.
    pub fn handler_seconds(&self, batch: &mut LatencyBatch) {
        self.seconds.merge(batch);
    }

    /// How many attempts run now.
    pub fn running(&self, count: usize) {
        self.running.set(count as f64);
    }

    /// How many may run at once: the type's own limit, or the worker's where it has none.
    pub fn running_limit(&self, count: usize) {
        self.limit.set(count as f64);
    }

    fn enter(&self, batch: &mut TypeBatch) {
        for (counter, count) in self.attempts.iter().zip(&mut batch.outcomes) {
            if *count > 0 {
                counter.increment(std::mem::take(count));
            }
        }
        self.seconds.merge(&mut batch.seconds);
    }
}

#[derive(Debug)]
struct Handles {
    registered: Vec<TypeMetrics>,
    other: TypeMetrics,
    worker_limit: Gauge,
    waits: LatencyHistogram,
}

/// Handles to the metrics of a worker's handlers. Cloning is cheap; clones count into the same
/// series.
#[derive(Clone, Debug)]
pub struct HandlerMetrics(Arc<Handles>);

impl HandlerMetrics {
    /// Handles for the registered task types, whose indexes are their places in this list. All
    /// series are present from zero.
    pub fn new(task_types: &[&str]) -> HandlerMetrics {
        HandlerMetrics(Arc::new(Handles {
            registered: task_types
                .iter()
                .map(|name| TypeMetrics::new(name))
                .collect(),
            other: TypeMetrics::new(OTHER),
            worker_limit: WORKER_LIMIT.gauge(&[]),
            waits: WAIT_SECONDS.latency(&[]),
        }))
    }

    /// The metrics of the type with this index; those of `other` where nobody registered it.
    pub fn of(&self, task_type: usize) -> &TypeMetrics {
        self.0.registered.get(task_type).unwrap_or(&self.0.other)
    }

    /// An empty batch for these types.
    pub fn batch(&self) -> AttemptBatch {
        AttemptBatch {
            registered: vec![TypeBatch::default(); self.0.registered.len()],
            other: TypeBatch::default(),
        }
    }

    /// Attempts that ended, with their times; once a tick is enough. Empties the batch.
    pub fn attempts(&self, batch: &mut AttemptBatch) {
        for (metrics, batch) in self.0.registered.iter().zip(&mut batch.registered) {
            metrics.enter(batch);
        }
        self.0.other.enter(&mut batch.other);
    }

    /// How many attempts of all types may run at once.
    pub fn running_limit(&self, count: usize) {
        self.0.worker_limit.set(count as f64);
    }

    /// Submission to the start of the first attempt. Empties the batch.
    pub fn waits(&self, batch: &mut LatencyBatch) {
        self.0.waits.merge(batch);
    }
}
