//! Gauges of one partition, shown as long as somebody owns the partition.
//!
//! A worker that lost a partition must not go on reporting its lag beside the new owner, so the
//! series belong to a [`PartitionMetrics`]: when the last one for that partition is dropped, they
//! disappear within 60 s. Until then they stay, however seldom a value changes.

use crate::definition::{Definition, Kind};
use crate::standing_gauges::HeldGauge;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

const LAG: Definition = Definition {
    name: "kafka_consumergroup_lag",
    kind: Kind::Gauge,
    labels: &["consumergroup", "topic", "partition"],
    help: "Records between the durable position and the end of the log.",
};
const LAG_SECONDS: Definition = Definition {
    name: "kafka_consumergroup_lag_seconds",
    kind: Kind::Gauge,
    labels: &["consumergroup", "topic", "partition"],
    help: "Age of the oldest record that is not settled; 0 when there is none.",
};
const POSITION: Definition = Definition {
    name: "millrace_position_offset",
    kind: Kind::Gauge,
    labels: &["topic", "partition"],
    help: "The durable position in Postgres: the first offset that is not settled.",
};
const LOG_END: Definition = Definition {
    name: "millrace_log_end_offset",
    kind: Kind::Gauge,
    labels: &["topic", "partition"],
    help: "The offset that the next record of the log will get.",
};
const COMMITTED: Definition = Definition {
    name: "millrace_committed_offset",
    kind: Kind::Gauge,
    labels: &["topic", "partition"],
    help: "The offset committed to Kafka; it follows the durable position, as a hint for tools.",
};
const STOPPED: Definition = Definition {
    name: "millrace_partition_stopped",
    kind: Kind::Gauge,
    labels: &["topic", "partition"],
    help: "1 while the partition stands still until somebody decides, else 0.",
};
const PARKED: Definition = Definition {
    name: "millrace_partition_parked",
    kind: Kind::Gauge,
    labels: &["topic", "partition"],
    help: "Tasks of the partition that are parked in the database.",
};
const FRONTIER_AGE: Definition = Definition {
    name: "millrace_partition_frontier_age_seconds",
    kind: Kind::Gauge,
    labels: &["topic", "partition"],
    help: "How long the first unsettled offset has not moved while work is pending; else 0.",
};

pub(crate) const DEFINITIONS: &[&Definition] = &[
    &LAG,
    &LAG_SECONDS,
    &POSITION,
    &LOG_END,
    &COMMITTED,
    &STOPPED,
    &PARKED,
    &FRONTIER_AGE,
];

/// Records and seconds.
type Lag = (HeldGauge, HeldGauge);

/// The series of one owned partition. Hold it as long as the partition is owned.
#[derive(Debug)]
pub struct PartitionMetrics {
    /// Group, topic, partition.
    labels: [String; 3],
    lag: Mutex<Option<Lag>>,
    position: OnceLock<HeldGauge>,
    log_end: OnceLock<HeldGauge>,
    committed: OnceLock<HeldGauge>,
    stopped: OnceLock<HeldGauge>,
    parked: OnceLock<HeldGauge>,
    frontier_age: OnceLock<HeldGauge>,
}

impl PartitionMetrics {
    pub(crate) fn new(group: &str, topic: &str, partition: i32) -> PartitionMetrics {
        let metrics = PartitionMetrics {
            labels: [group.to_owned(), topic.to_owned(), partition.to_string()],
            lag: Mutex::new(None),
            position: OnceLock::new(),
            log_end: OnceLock::new(),
            committed: OnceLock::new(),
            stopped: OnceLock::new(),
            parked: OnceLock::new(),
            frontier_age: OnceLock::new(),
        };
        metrics.stopped(false);
        metrics.frontier_age(Duration::ZERO);
        metrics
    }

    fn set(&self, gauge: &OnceLock<HeldGauge>, definition: &Definition, value: f64) {
        let [_, topic, partition] = &self.labels;
        gauge
            .get_or_init(|| definition.held_gauge(&[topic, partition]))
            .set(value);
    }

    /// The distance to the end of the log in records, and the age of the oldest unsettled record
    /// in seconds (0 when nothing waits). `None` while unknown: no sample is better than a wrong
    /// one, so the last known lag disappears within 60 s.
    pub fn lag(&self, lag: Option<(u64, f64)>) {
        let mut shown = self.lag.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((records, seconds)) = lag else {
            *shown = None;
            return;
        };
        let [group, topic, partition] = &self.labels;
        let labels = [group.as_str(), topic, partition];
        let gauges =
            shown.get_or_insert_with(|| (LAG.held_gauge(&labels), LAG_SECONDS.held_gauge(&labels)));
        gauges.0.set(records as f64);
        gauges.1.set(seconds);
    }

    /// The durable position: the first offset that is not settled.
    pub fn position(&self, offset: i64) {
        self.set(&self.position, &POSITION, offset as f64);
    }

    /// The end of the log.
    pub fn log_end(&self, offset: i64) {
        self.set(&self.log_end, &LOG_END, offset as f64);
    }

    /// The offset that Kafka holds for the group.
    pub fn committed(&self, offset: i64) {
        self.set(&self.committed, &COMMITTED, offset as f64);
    }

    /// Whether the partition stands still and needs a decision.
    pub fn stopped(&self, stopped: bool) {
        self.set(&self.stopped, &STOPPED, if stopped { 1.0 } else { 0.0 });
    }

    /// How many tasks of the partition are parked.
    pub fn parked(&self, count: u64) {
        self.set(&self.parked, &PARKED, count as f64);
    }

    /// How long the frontier, the first unsettled offset, has not moved although work is pending;
    /// zero when none is.
    pub fn frontier_age(&self, age: Duration) {
        self.set(&self.frontier_age, &FRONTIER_AGE, age.as_secs_f64());
    }
}
