//! What a worker does with the tasks of its topic, summed over its partitions.
//!
//! Every call is made once a flush, a tick or an event, never once a record; the one value that
//! exists for each record, its latency, comes in as a [`LatencyBatch`]. What belongs to a single
//! partition is in [`crate::PartitionMetrics`].

use crate::definition::{Definition, Kind};
use crate::latency::{LatencyBatch, LatencyHistogram};
use crate::partition_metrics::PartitionMetrics;
use crate::seconds_counter::SecondsCounter;
use crate::task_metrics::{Outcome, TaskCounters};
use crate::waiting_metrics::WaitingHandles;
use metrics::{Counter, Gauge};
use std::sync::Arc;
use std::time::Duration;

const END_TO_END: Definition = Definition {
    name: "millrace_end_to_end_seconds",
    kind: Kind::Latency,
    labels: &["topic"],
    help: "Time from an event's submission to its committed result.",
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
    &END_TO_END,
    &GAPS,
    &REBALANCES,
    &PARTITIONS_OWNED,
    &IN_FLIGHT_EVENTS,
    &IN_FLIGHT_BYTES,
    &LIMIT_EVENTS,
    &LIMIT_BYTES,
    &BACKPRESSURE,
];

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
struct Handles {
    group: String,
    topic: String,
    tasks: TaskCounters,
    waiting: WaitingHandles,
    end_to_end: LatencyHistogram,
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
    /// Handles for one worker. `task_types` are the registered ones, and a type's index is its place
    /// in this list; tasks of any other type are counted under `other`, so that strangers cannot
    /// grow the number of series.
    pub fn new(group: &str, topic: &str, task_types: &[&str]) -> ConsumerMetrics {
        let rebalances = |event: &str| REBALANCES.counter(&[topic, event]);
        ConsumerMetrics(Arc::new(Handles {
            group: group.to_owned(),
            topic: topic.to_owned(),
            tasks: TaskCounters::new(topic, task_types),
            waiting: WaitingHandles::new(topic),
            end_to_end: END_TO_END.latency(&[topic]),
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

    /// So many tasks of the type with this index ended so, and it is durable; an index that nobody
    /// registered counts as `other`. Duplicates, dead letters (failed tasks among them) and parked
    /// tasks are also counted on their own, by [`Self::duplicates`], [`Self::dead_letters`] and
    /// [`Self::parked`].
    pub fn tasks_of(&self, task_type: usize, outcome: Outcome, count: u64) {
        self.0.tasks.tasks(task_type, outcome, count);
    }

    /// The same as [`Self::tasks_of`] for who has only the type's name: it is looked up.
    pub fn tasks(&self, task_type: &str, outcome: Outcome, count: u64) {
        self.tasks_of(self.0.tasks.index_of(task_type), outcome, count);
    }

    /// Submission to committed result, for the results of one flush. Empties the batch.
    pub fn end_to_end(&self, batch: &mut LatencyBatch) {
        self.0.end_to_end.merge(batch);
    }

    /// So many events were dropped as duplicates.
    pub fn duplicates(&self, count: u64) {
        self.0.tasks.duplicates(count);
    }

    /// So many dead letters for this reason; a reason that is not among the documented ones is
    /// counted as `other`.
    pub fn dead_letters(&self, reason: &str, count: u64) {
        self.0.tasks.dead_letters(reason, count);
    }

    /// So many tasks were parked, by the kind that the table `parked_tasks` holds: `retry`,
    /// `behind`, `delayed`, `running`, `redrive`; any other is counted as `other`.
    pub fn parked(&self, kind: &str, count: u64) {
        self.0.waiting.parked(kind, count);
    }

    /// So many parked tasks were loaded to be worked on.
    pub fn woken(&self, count: u64) {
        self.0.waiting.woken.increment(count);
    }

    /// How many tasks of one partition may be parked before it is paused.
    pub fn partition_parked_limit(&self, count: u64) {
        self.0.waiting.parked_limit.set(count as f64);
    }

    /// How many keys have work in memory.
    pub fn lanes(&self, count: usize) {
        self.0.waiting.lanes.set(count as f64);
    }

    /// How many tasks in memory wait for their next attempt.
    pub fn waiting_retries(&self, count: usize) {
        self.0.waiting.retries.set(count as f64);
    }

    /// How many partitions run one task at a time, since a task may have killed their worker.
    pub fn careful_partitions(&self, count: usize) {
        self.0.waiting.careful.set(count as f64);
    }

    /// How many task types and how many tenants are paused.
    pub fn pauses(&self, task_types: usize, tenants: usize) {
        self.0.waiting.paused_types.set(task_types as f64);
        self.0.waiting.paused_tenants.set(tenants as f64);
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
