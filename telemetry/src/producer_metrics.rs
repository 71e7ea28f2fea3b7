//! What `producer emit` read, sent and refused.

use crate::definition::{Definition, Kind};
use crate::latency::{LatencyBatch, LatencyHistogram};
use metrics::{Counter, Gauge};
use std::sync::Arc;

const READ: Definition = Definition {
    name: "millrace_emit_read_total",
    kind: Kind::Counter,
    labels: &["topic"],
    help: "Events read from the input, rejected ones included.",
};
const ACKNOWLEDGED: Definition = Definition {
    name: "millrace_emit_acknowledged_total",
    kind: Kind::Counter,
    labels: &["topic"],
    help: "Events that Kafka acknowledged from all in-sync replicas.",
};
const REJECTED: Definition = Definition {
    name: "millrace_emit_rejected_total",
    kind: Kind::Counter,
    labels: &["topic", "reason"],
    help: "Input lines that did not become an event, by reason.",
};
const ACKNOWLEDGE_SECONDS: Definition = Definition {
    name: "millrace_emit_acknowledge_seconds",
    kind: Kind::Latency,
    labels: &["topic"],
    help: "Time from handing an event to the client to its acknowledgement.",
};
const QUEUE: Definition = Definition {
    name: "millrace_emit_queue_messages",
    kind: Kind::Gauge,
    labels: &["topic"],
    help: "Events handed to the client and not acknowledged yet.",
};

pub(crate) const DEFINITIONS: &[&Definition] = &[
    &READ,
    &ACKNOWLEDGED,
    &REJECTED,
    &ACKNOWLEDGE_SECONDS,
    &QUEUE,
];

const REJECT_REASONS: [&str; 5] = [
    "not_an_object",
    "missing_field",
    "wrong_field_type",
    "too_large",
    "other",
];

#[derive(Debug)]
struct Handles {
    read: Counter,
    acknowledged: Counter,
    rejected: Vec<(&'static str, Counter)>,
    acknowledge_seconds: LatencyHistogram,
    queue: Gauge,
}

/// Handles to the metrics of one emission. Cloning is cheap; clones count into the same series.
#[derive(Clone, Debug)]
pub struct EmitMetrics(Arc<Handles>);

impl EmitMetrics {
    /// Handles for one topic, all counters present from zero.
    pub fn new(topic: &str) -> EmitMetrics {
        EmitMetrics(Arc::new(Handles {
            read: READ.counter(&[topic]),
            acknowledged: ACKNOWLEDGED.counter(&[topic]),
            rejected: REJECT_REASONS
                .map(|reason| (reason, REJECTED.counter(&[topic, reason])))
                .to_vec(),
            acknowledge_seconds: ACKNOWLEDGE_SECONDS.latency(&[topic]),
            queue: QUEUE.gauge(&[topic]),
        }))
    }

    /// So many lines or rows were read.
    pub fn read(&self, count: u64) {
        self.0.read.increment(count);
    }

    /// So many events were acknowledged.
    pub fn acknowledged(&self, count: u64) {
        self.0.acknowledged.increment(count);
    }

    /// A line was rejected: `not_an_object`, `missing_field`, `wrong_field_type`, `too_large`;
    /// any other reason is counted as `other`.
    pub fn rejected(&self, reason: &str) {
        let known = self.0.rejected.iter().find(|(name, _)| *name == reason);
        if let Some((_, counter)) = known.or(self.0.rejected.last()) {
            counter.increment(1);
        }
    }

    /// Hand-over to acknowledgement, for a batch of events. Empties the batch.
    pub fn acknowledge_latencies(&self, batch: &mut LatencyBatch) {
        self.0.acknowledge_seconds.merge(batch);
    }

    /// How many events wait for their acknowledgement.
    pub fn queue_messages(&self, count: usize) {
        self.0.queue.set(count as f64);
    }
}
