//! What callers ask of a front door, and how it fares.

use crate::definition::{Definition, Kind};
use crate::latency::{LatencyBatch, LatencyHistogram};
use metrics::{Counter, Gauge};
use std::sync::Arc;
use std::time::Duration;

const REQUESTS: Definition = Definition {
    name: "millrace_door_requests_total",
    kind: Kind::Counter,
    labels: &["route", "code"],
    help: "Requests answered, by route and class of status code; streams count when they begin.",
};
const REQUEST_SECONDS: Definition = Definition {
    name: "millrace_door_request_seconds",
    kind: Kind::Latency,
    labels: &["route"],
    help: "Time from a request's head to its answer's head; of those that wait for a result, with the wait.",
};
const TASKS: Definition = Definition {
    name: "millrace_door_tasks_total",
    kind: Kind::Counter,
    labels: &["outcome"],
    help: "Tasks handed over: accepted, repeated (an idempotency key that was known), refused, unknown.",
};
const IN_FLIGHT: Definition = Definition {
    name: "millrace_door_in_flight_tasks",
    kind: Kind::Gauge,
    labels: &[],
    help: "Tasks on their way to Kafka.",
};
const LIMIT: Definition = Definition {
    name: "millrace_door_in_flight_limit_tasks",
    kind: Kind::Gauge,
    labels: &[],
    help: "Tasks that may be on their way to Kafka at present; shrinks while Kafka is slow or away.",
};
const WAITING: Definition = Definition {
    name: "millrace_door_waiting",
    kind: Kind::Gauge,
    labels: &[],
    help: "Callers that wait for the end of a task or watch one.",
};

pub(crate) const DEFINITIONS: &[&Definition] = &[
    &REQUESTS,
    &REQUEST_SECONDS,
    &TASKS,
    &IN_FLIGHT,
    &LIMIT,
    &WAITING,
];

/// A group of paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoorRoute {
    /// One task is handed over.
    Submit,
    /// Many tasks are handed over.
    SubmitMany,
    /// How a task stands.
    Status,
    /// What a task returned.
    Result,
    /// A task is to be cancelled.
    Cancel,
    /// Tasks are watched.
    Watch,
    /// Anything else.
    Other,
}

impl DoorRoute {
    const ALL: [DoorRoute; 7] = [
        DoorRoute::Submit,
        DoorRoute::SubmitMany,
        DoorRoute::Status,
        DoorRoute::Result,
        DoorRoute::Cancel,
        DoorRoute::Watch,
        DoorRoute::Other,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            DoorRoute::Submit => "submit",
            DoorRoute::SubmitMany => "submit_many",
            DoorRoute::Status => "status",
            DoorRoute::Result => "result",
            DoorRoute::Cancel => "cancel",
            DoorRoute::Watch => "watch",
            DoorRoute::Other => "other",
        }
    }
}

/// What became of a task that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoorOutcome {
    /// Kafka has it.
    Accepted,
    /// Its idempotency key was known.
    Repeated,
    /// It was not accepted.
    Refused,
    /// Kafka did not say.
    Unknown,
}

impl DoorOutcome {
    const ALL: [DoorOutcome; 4] = [
        DoorOutcome::Accepted,
        DoorOutcome::Repeated,
        DoorOutcome::Refused,
        DoorOutcome::Unknown,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            DoorOutcome::Accepted => "accepted",
            DoorOutcome::Repeated => "repeated",
            DoorOutcome::Refused => "refused",
            DoorOutcome::Unknown => "unknown",
        }
    }
}

const CODES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Debug)]
struct Route {
    requests: [Counter; 5],
    seconds: LatencyHistogram,
}

#[derive(Debug)]
struct Handles {
    routes: [Route; 7],
    tasks: [Counter; 4],
    in_flight: Gauge,
    limit: Gauge,
    waiting: Gauge,
}

/// Handles to the metrics of one front door. Clones count into the same series.
#[derive(Clone, Debug)]
pub struct DoorMetrics(Arc<Handles>);

impl Default for DoorMetrics {
    fn default() -> DoorMetrics {
        DoorMetrics::new()
    }
}

impl DoorMetrics {
    /// Handles, all counters present from zero.
    pub fn new() -> DoorMetrics {
        let route = |route: DoorRoute| Route {
            requests: CODES.map(|code| REQUESTS.counter(&[route.as_str(), code])),
            seconds: REQUEST_SECONDS.latency(&[route.as_str()]),
        };
        DoorMetrics(Arc::new(Handles {
            routes: DoorRoute::ALL.map(route),
            tasks: DoorOutcome::ALL.map(|outcome| TASKS.counter(&[outcome.as_str()])),
            in_flight: IN_FLIGHT.gauge(&[]),
            limit: LIMIT.gauge(&[]),
            waiting: WAITING.gauge(&[]),
        }))
    }

    /// A request was answered with this status code after so long.
    pub fn answered(&self, route: DoorRoute, status: u16, took: Duration) {
        if let Some(handles) = self.0.routes.get(route as usize) {
            let class = usize::from(status / 100).saturating_sub(1);
            if let Some(counter) = handles.requests.get(class) {
                counter.increment(1);
            }
            let mut one = LatencyBatch::default();
            one.record(took);
            handles.seconds.merge(&mut one);
        }
    }

    /// So many tasks were handed over with this outcome.
    pub fn tasks(&self, outcome: DoorOutcome, count: u64) {
        if let Some(counter) = self.0.tasks.get(outcome as usize) {
            counter.increment(count);
        }
    }

    /// Tasks on their way, how many there may be, and callers that wait.
    pub fn standing(&self, in_flight: usize, limit: usize, waiting: usize) {
        self.0.in_flight.set(in_flight as f64);
        self.0.limit.set(limit as f64);
        self.0.waiting.set(waiting as f64);
    }
}
