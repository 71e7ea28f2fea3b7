//! Tasks that do not run yet: in lanes, between two attempts, parked, or paused by a person.
//!
//! Sums over the partitions of one worker; what is parked in a single partition is in
//! [`crate::PartitionMetrics`].

use crate::definition::{Definition, Kind};
use crate::task_metrics::OTHER;
use metrics::{Counter, Gauge};

const PARKED: Definition = Definition {
    name: "millrace_tasks_parked_total",
    kind: Kind::Counter,
    labels: &["topic", "kind"],
    help: "Tasks that were parked in the database, by why they wait there.",
};
const WOKEN: Definition = Definition {
    name: "millrace_tasks_woken_total",
    kind: Kind::Counter,
    labels: &["topic"],
    help: "Parked tasks that were loaded to be worked on.",
};
const PARKED_LIMIT: Definition = Definition {
    name: "millrace_partition_parked_limit",
    kind: Kind::Gauge,
    labels: &["topic"],
    help: "How many tasks of one partition may be parked before it is paused.",
};
const LANES: Definition = Definition {
    name: "millrace_lanes",
    kind: Kind::Gauge,
    labels: &["topic"],
    help: "Keys with work in memory.",
};
const RETRIES_WAITING: Definition = Definition {
    name: "millrace_retries_waiting",
    kind: Kind::Gauge,
    labels: &["topic"],
    help: "Tasks in memory that wait for their next attempt.",
};
const CAREFUL: Definition = Definition {
    name: "millrace_partitions_careful",
    kind: Kind::Gauge,
    labels: &["topic"],
    help: "Partitions that run one task at a time, since a task may have killed their worker.",
};
const PAUSES: Definition = Definition {
    name: "millrace_pauses",
    kind: Kind::Gauge,
    labels: &["scope"],
    help: "Task types and tenants that somebody paused.",
};

pub(crate) const DEFINITIONS: &[&Definition] = &[
    &PARKED,
    &WOKEN,
    &PARKED_LIMIT,
    &LANES,
    &RETRIES_WAITING,
    &CAREFUL,
    &PAUSES,
];

const KINDS: [&str; 6] = ["retry", "behind", "delayed", "running", "redrive", OTHER];

#[derive(Debug)]
pub(crate) struct WaitingHandles {
    parked: [(&'static str, Counter); KINDS.len()],
    pub(crate) woken: Counter,
    pub(crate) parked_limit: Gauge,
    pub(crate) lanes: Gauge,
    pub(crate) retries: Gauge,
    pub(crate) careful: Gauge,
    pub(crate) paused_types: Gauge,
    pub(crate) paused_tenants: Gauge,
}

impl WaitingHandles {
    pub(crate) fn new(topic: &str) -> WaitingHandles {
        WaitingHandles {
            parked: KINDS.map(|kind| (kind, PARKED.counter(&[topic, kind]))),
            woken: WOKEN.counter(&[topic]),
            parked_limit: PARKED_LIMIT.gauge(&[topic]),
            lanes: LANES.gauge(&[topic]),
            retries: RETRIES_WAITING.gauge(&[topic]),
            careful: CAREFUL.gauge(&[topic]),
            paused_types: PAUSES.gauge(&["task_type"]),
            paused_tenants: PAUSES.gauge(&["tenant"]),
        }
    }

    pub(crate) fn parked(&self, kind: &str, count: u64) {
        let known = self.parked.iter().find(|(name, _)| *name == kind);
        if let Some((_, counter)) = known.or(self.parked.last()) {
            counter.increment(count);
        }
    }
}
