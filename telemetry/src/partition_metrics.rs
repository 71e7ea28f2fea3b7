//! Gauges of one partition, alive exactly as long as somebody owns the partition.
//!
//! A worker that lost a partition must not go on reporting its lag beside the new owner, so the
//! series belong to a [`PartitionMetrics`] and end when the last one for that partition is dropped:
//! the next scrape no longer shows them. A partition that is taken again while the old handle
//! still drains keeps its series.

use crate::definition::{Definition, Kind};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

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

pub(crate) const DEFINITIONS: &[&Definition] = &[
    &LAG,
    &LAG_SECONDS,
    &POSITION,
    &LOG_END,
    &COMMITTED,
    &STOPPED,
];

/// How many handles each (group, topic, partition) has.
static HANDLES: Mutex<BTreeMap<[String; 3], usize>> = Mutex::new(BTreeMap::new());

/// The series of one owned partition. Hold it as long as the partition is owned.
#[derive(Debug)]
pub struct PartitionMetrics {
    /// Group, topic, partition.
    labels: [String; 3],
}

impl PartitionMetrics {
    pub(crate) fn new(group: &str, topic: &str, partition: i32) -> PartitionMetrics {
        let labels = [group.to_owned(), topic.to_owned(), partition.to_string()];
        let mut handles = HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
        *handles.entry(labels.clone()).or_insert(0) += 1;
        drop(handles);
        let metrics = PartitionMetrics { labels };
        metrics.stopped(false);
        metrics
    }

    fn with_group(&self) -> [&str; 3] {
        let [group, topic, partition] = &self.labels;
        [group, topic, partition]
    }

    fn without_group(&self) -> [&str; 2] {
        let [_, topic, partition] = &self.labels;
        [topic, partition]
    }

    /// The distance to the end of the log in records, and the age of the oldest unsettled record
    /// in seconds (0 when nothing waits). `None` while unknown: no sample is better than a wrong
    /// one.
    pub fn lag(&self, lag: Option<(u64, f64)>) {
        match lag {
            Some((records, seconds)) => {
                LAG.gauge(&self.with_group()).set(records as f64);
                LAG_SECONDS.gauge(&self.with_group()).set(seconds);
            }
            None => {
                LAG.end_gauge(&self.with_group());
                LAG_SECONDS.end_gauge(&self.with_group());
            }
        }
    }

    /// The durable position: the first offset that is not settled.
    pub fn position(&self, offset: i64) {
        POSITION.gauge(&self.without_group()).set(offset as f64);
    }

    /// The end of the log.
    pub fn log_end(&self, offset: i64) {
        LOG_END.gauge(&self.without_group()).set(offset as f64);
    }

    /// The offset that Kafka holds for the group.
    pub fn committed(&self, offset: i64) {
        COMMITTED.gauge(&self.without_group()).set(offset as f64);
    }

    /// Whether the partition stands still and needs a decision.
    pub fn stopped(&self, stopped: bool) {
        STOPPED
            .gauge(&self.without_group())
            .set(if stopped { 1.0 } else { 0.0 });
    }
}

impl Drop for PartitionMetrics {
    fn drop(&mut self) {
        // The lock is held to the end, so that a handle made meanwhile does not lose its series.
        let mut handles = HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
        match handles.get_mut(&self.labels) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                handles.remove(&self.labels);
                self.lag(None);
                for definition in [&POSITION, &LOG_END, &COMMITTED, &STOPPED] {
                    definition.end_gauge(&self.without_group());
                }
            }
        }
    }
}
