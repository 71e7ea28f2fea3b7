//! Messages that the database holds for somebody else, and their sending.

use crate::definition::{Definition, Kind};
use crate::standing_gauges::HeldGauge;
use metrics::Counter;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const PENDING: Definition = Definition {
    name: "millrace_outbox_pending",
    kind: Kind::Gauge,
    labels: &[],
    help: "Messages in the outbox that are not sent yet.",
};
const OLDEST: Definition = Definition {
    name: "millrace_outbox_oldest_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "Age of the oldest message that is not sent; 0 when there is none.",
};
const SENT: Definition = Definition {
    name: "millrace_outbox_sent_total",
    kind: Kind::Counter,
    labels: &["kind"],
    help: "Messages of the outbox that their receiver acknowledged.",
};
const FAILURES: Definition = Definition {
    name: "millrace_outbox_failures_total",
    kind: Kind::Counter,
    labels: &["kind"],
    help: "Attempts to send a message of the outbox that failed; it stays and is tried again.",
};

pub(crate) const DEFINITIONS: &[&Definition] = &[&PENDING, &OLDEST, &SENT, &FAILURES];

/// What a message of the outbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboxKind {
    /// A copy of a dead letter, for the dead-letter topic.
    DeadLetterCopy,
    /// The outcome of a task, posted to whoever submitted it.
    Callback,
}

impl OutboxKind {
    const LABELS: [&str; 2] = ["dead_letter_copy", "callback"];
}

/// Messages, and the age of the oldest.
type Backlog = (HeldGauge, HeldGauge);

#[derive(Debug)]
struct Handles {
    backlog: Mutex<Option<Backlog>>,
    sent: [Counter; OutboxKind::LABELS.len()],
    failures: [Counter; OutboxKind::LABELS.len()],
}

/// Handles to the outbox metrics. Cloning is cheap; clones count into the same series.
#[derive(Clone, Debug)]
pub struct OutboxMetrics(Arc<Handles>);

impl Default for OutboxMetrics {
    fn default() -> OutboxMetrics {
        OutboxMetrics::new()
    }
}

impl OutboxMetrics {
    /// Handles to the process's outbox metrics, all counters present from zero.
    pub fn new() -> OutboxMetrics {
        OutboxMetrics(Arc::new(Handles {
            backlog: Mutex::new(None),
            sent: OutboxKind::LABELS.map(|kind| SENT.counter(&[kind])),
            failures: OutboxKind::LABELS.map(|kind| FAILURES.counter(&[kind])),
        }))
    }

    /// How many messages wait in the whole outbox, and for how long the oldest has (zero when none
    /// waits). `None` when this process no longer knows, say because another one sends: its last
    /// figures disappear within 60 s.
    pub fn backlog(&self, backlog: Option<(u64, Duration)>) {
        let mut shown = self
            .0
            .backlog
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some((pending, oldest)) = backlog else {
            *shown = None;
            return;
        };
        let gauges = shown.get_or_insert_with(|| (PENDING.held_gauge(&[]), OLDEST.held_gauge(&[])));
        gauges.0.set(pending as f64);
        gauges.1.set(oldest.as_secs_f64());
    }

    /// So many messages were acknowledged by their receiver.
    pub fn sent(&self, kind: OutboxKind, count: u64) {
        if let Some(counter) = self.0.sent.get(kind as usize) {
            counter.increment(count);
        }
    }

    /// So many attempts to send failed.
    pub fn failed(&self, kind: OutboxKind, count: u64) {
        if let Some(counter) = self.0.failures.get(kind as usize) {
            counter.increment(count);
        }
    }
}
