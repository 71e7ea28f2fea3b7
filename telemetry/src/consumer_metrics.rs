//! What a worker does with the tasks of its topic, summed over its partitions.
//!
//! Every call is made once a flush, a tick or an event, never once a record; the one value that
//! exists for each record, its latency, comes in as a [`LatencyBatch`]. What belongs to a single
//! partition is in [`crate::PartitionMetrics`].

use crate::definition::{Definition, Kind};
use crate::latency::{LATENCY_BOUNDS, LatencyBatch, LatencyHistogram};
use crate::partition_metrics::PartitionMetrics;
use crate::seconds_counter::SecondsCounter;
use metrics::{Counter, Gauge};
use std::sync::Arc;
use std::time::Duration;

const TASKS: Definition = Definition {
    name: "millrace_tasks_total",
    kind: Kind::Counter,
    labels: &["topic", "task_type", "outcome"],
    help: "Tasks whose outcome is durable, by type and outcome.",
};
const END_TO_END: Definition = Definition {
    name: "millrace_end_to_end_seconds",
    kind: Kind::Histogram(LATENCY_BOUNDS),
    labels: &["topic"],
    help: "Time from an event's submission to its committed result.",
};
const DUPLICATES: Definition = Definition {
    name: "millrace_duplicates_total",
    kind: Kind::Counter,
    labels: &["topic"],
    help: "Events dropped because their dedup key had been settled before.",
};
const DEAD_LETTERS: Definition = Definition {
    name: "millrace_dead_letters_total",
    kind: Kind::Counter,
    labels: &["topic", "reason"],
    help: "Events set aside as dead letters, by reason.",
};
const GAPS: Definition = Definition {
    name: "millrace_gaps_total",
    kind: Kind::Counter,
    labels: &["topic"],
    help: "Offsets that held no record (control records, compaction).",
};
const REBALANCES: Definition = Definition {
    name: "millrace_rebalances_total",
    kind: Kind::Counter,
    labels: &["topic", "event"],
    help: "Changes of the partition assignment, by event.",
};
const PARTITIONS_OWNED: Definition = Definition {
    name: "millrace_partitions_owned",
    kind: Kind::Gauge,
    labels: &["topic"],
    help: "Partitions that this worker holds a claim on.",
};
const IN_FLIGHT_EVENTS: Definition = Definition {
    name: "millrace_inflight_events",
    kind: Kind::Gauge,
    labels: &[],
    help: "Events taken from Kafka whose outcome is not durable yet.",
};
const IN_FLIGHT_BYTES: Definition = Definition {
    name: "millrace_inflight_bytes",
    kind: Kind::Gauge,
    labels: &[],
    help: "Bytes of events and results charged to the in-flight budget.",
};
const LIMIT_EVENTS: Definition = Definition {
    name: "millrace_inflight_limit_events",
    kind: Kind::Gauge,
    labels: &[],
    help: "The in-flight budget in events.",
};
const LIMIT_BYTES: Definition = Definition {
    name: "millrace_inflight_limit_bytes",
    kind: Kind::Gauge,
    labels: &[],
    help: "The in-flight budget in bytes.",
};
const BACKPRESSURE: Definition = Definition {
    name: "millrace_backpressure_seconds_total",
    kind: Kind::CounterSeconds,
    labels: &["pressure"],
    help: "Time spent holding back from Kafka: soft (budget used up) or hard (paused, outage).",
};

pub(crate) const DEFINITIONS: &[&Definition] = &[
    &TASKS,
    &END_TO_END,
    &DUPLICATES,
    &DEAD_LETTERS,
    &GAPS,
    &REBALANCES,
    &PARTITIONS_OWNED,
    &IN_FLIGHT_EVENTS,
    &IN_FLIGHT_BYTES,
    &LIMIT_EVENTS,
    &LIMIT_BYTES,
    &BACKPRESSURE,
];

/// The label value for whatever is not on a closed list.
const OTHER: &str = "other";

const DEAD_LETTER_REASONS: [&str; 10] = [
    "undecodable",
    "id_out_of_range",
    "id_conflict",
    "dedup_conflict",
    "row_refused",
    "unknown_type",
    "permanent",
    "attempts_exhausted",
    "crashed_worker",
    OTHER,
];

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has a result.
    Success,
    /// Its dedup key was settled before; it did not run, or its result was dropped.
    Duplicate,
    /// It was set aside with a reason.
    DeadLetter,
}

/// What the group did to this worker's assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebalanceEvent {
    /// Partitions were given to this worker.
    Assigned,
    /// Partitions were taken in good order: there was time to flush.
    Revoked,
    /// Partitions were gone before the worker knew.
    Lost,
}

/// How hard the worker holds back from Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// The budget is used up: one record a tick.
    Soft,
    /// Partitions are paused, as in an outage.
    Hard,
}

#[derive(Debug)]
struct TypeCounters {
    task_type: String,
    success: Counter,
    duplicate: Counter,
    dead_letter: Counter,
}

#[derive(Debug)]
struct Handles {
    group: String,
    topic: String,
    types: Vec<TypeCounters>,
    other_type: TypeCounters,
    end_to_end: LatencyHistogram,
    duplicates: Counter,
    dead_letters: Vec<(&'static str, Counter)>,
    gaps: Counter,
    assigned: Counter,
    revoked: Counter,
    lost: Counter,
    partitions_owned: Gauge,
    in_flight_events: Gauge,
    in_flight_bytes: Gauge,
    limit_events: Gauge,
    limit_bytes: Gauge,
    soft: SecondsCounter,
    hard: SecondsCounter,
}

/// Handles to a worker's metrics. Cloning is cheap; clones count into the same series.
#[derive(Clone, Debug)]
pub struct ConsumerMetrics(Arc<Handles>);

impl ConsumerMetrics {
    /// Handles for one worker. `task_types` are the registered ones; tasks of any other type are
    /// counted under `other`, so that strangers cannot grow the number of series.
    pub fn new(group: &str, topic: &str, task_types: &[&str]) -> ConsumerMetrics {
        let of_type = |task_type: &str| {
            let counter = |outcome: &str| TASKS.counter(&[topic, task_type, outcome]);
            TypeCounters {
                task_type: task_type.to_owned(),
                success: counter("success"),
                duplicate: counter("duplicate"),
                dead_letter: counter("dead_letter"),
            }
        };
        let dead_letters = DEAD_LETTER_REASONS
            .map(|reason| (reason, DEAD_LETTERS.counter(&[topic, reason])))
            .to_vec();
        let rebalances = |event: &str| REBALANCES.counter(&[topic, event]);
        ConsumerMetrics(Arc::new(Handles {
            group: group.to_owned(),
            topic: topic.to_owned(),
            types: task_types.iter().map(|name| of_type(name)).collect(),
            other_type: of_type(OTHER),
            end_to_end: LatencyHistogram::new(END_TO_END.histogram(&[topic])),
            duplicates: DUPLICATES.counter(&[topic]),
            dead_letters,
            gaps: GAPS.counter(&[topic]),
            assigned: rebalances("assigned"),
            revoked: rebalances("revoked"),
            lost: rebalances("lost"),
            partitions_owned: PARTITIONS_OWNED.gauge(&[topic]),
            in_flight_events: IN_FLIGHT_EVENTS.gauge(&[]),
            in_flight_bytes: IN_FLIGHT_BYTES.gauge(&[]),
            limit_events: LIMIT_EVENTS.gauge(&[]),
            limit_bytes: LIMIT_BYTES.gauge(&[]),
            soft: BACKPRESSURE.seconds_counter(&["soft"]),
            hard: BACKPRESSURE.seconds_counter(&["hard"]),
        }))
    }

    /// The series of one partition; they end when the last handle to the partition is dropped.
    pub fn partition(&self, partition: i32) -> PartitionMetrics {
        PartitionMetrics::new(&self.0.group, &self.0.topic, partition)
    }

    /// So many tasks of this type ended so, and it is durable. Duplicates and dead letters are
    /// also counted on their own, by [`Self::duplicates`] and [`Self::dead_letters`].
    pub fn tasks(&self, task_type: &str, outcome: Outcome, count: u64) {
        let counters = self
            .0
            .types
            .iter()
            .find(|counters| counters.task_type == task_type)
            .unwrap_or(&self.0.other_type);
        match outcome {
            Outcome::Success => &counters.success,
            Outcome::Duplicate => &counters.duplicate,
            Outcome::DeadLetter => &counters.dead_letter,
        }
        .increment(count);
    }

    /// Submission to committed result, for the results of one flush. Empties the batch.
    pub fn end_to_end(&self, batch: &mut LatencyBatch) {
        self.0.end_to_end.merge(batch);
    }

    /// So many events were dropped as duplicates.
    pub fn duplicates(&self, count: u64) {
        self.0.duplicates.increment(count);
    }

    /// So many dead letters for this reason; a reason that is not among the documented ones is
    /// counted as `other`.
    pub fn dead_letters(&self, reason: &str, count: u64) {
        let known = self.0.dead_letters.iter().find(|(name, _)| *name == reason);
        if let Some((_, counter)) = known.or(self.0.dead_letters.last()) {
            counter.increment(count);
        }
    }

    /// So many offsets held no record.
    pub fn gaps(&self, count: u64) {
        self.0.gaps.increment(count);
    }

    /// The assignment changed.
    pub fn rebalance(&self, event: RebalanceEvent) {
        match event {
            RebalanceEvent::Assigned => &self.0.assigned,
            RebalanceEvent::Revoked => &self.0.revoked,
            RebalanceEvent::Lost => &self.0.lost,
        }
        .increment(1);
    }

    /// How many partitions this worker now holds a claim on.
    pub fn partitions_owned(&self, count: usize) {
        self.0.partitions_owned.set(count as f64);
    }

    /// What is charged to the in-flight budget now.
    pub fn in_flight(&self, events: u64, bytes: u64) {
        self.0.in_flight_events.set(events as f64);
        self.0.in_flight_bytes.set(bytes as f64);
    }

    /// The in-flight budget.
    pub fn in_flight_limit(&self, events: u64, bytes: u64) {
        self.0.limit_events.set(events as f64);
        self.0.limit_bytes.set(bytes as f64);
    }

    /// The worker held back for this long since the last call (once a tick, say).
    pub fn held_back(&self, pressure: Pressure, time: Duration) {
        match pressure {
            Pressure::Soft => &self.0.soft,
            Pressure::Hard => &self.0.hard,
        }
        .add(time);
    }
}
