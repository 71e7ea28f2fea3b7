//! What the worker and Postgres do together: flushes, claims, errors, days.

use crate::definition::{Definition, Kind};
use metrics::{Counter, Histogram};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const FLUSH_SECONDS: Definition = Definition {
    name: "millrace_flush_seconds",
    kind: Kind::Histogram(&[
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    ]),
    labels: &[],
    help: "Time of a flush until it is durable, outages and repeats included.",
};
const FLUSH_ROWS: Definition = Definition {
    name: "millrace_flush_rows",
    kind: Kind::Histogram(&[
        1.0, 10.0, 100.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 20000.0, 50000.0,
    ]),
    labels: &[],
    help: "Rows written by one flush.",
};
const FLUSH_BYTES: Definition = Definition {
    name: "millrace_flush_bytes",
    kind: Kind::Histogram(&[1e3, 1e4, 1e5, 5e5, 1e6, 2.5e6, 5e6, 1e7, 2.5e7, 5e7]),
    labels: &[],
    help: "Bytes sent by one flush.",
};
const ERRORS: Definition = Definition {
    name: "millrace_database_errors_total",
    kind: Kind::Counter,
    labels: &["kind"],
    help: "Failed database transactions, by what the failure means.",
};
const FENCE_LOSSES: Definition = Definition {
    name: "millrace_fence_losses_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Partitions dropped from a flush because somebody else claimed them.",
};
const CLAIMS: Definition = Definition {
    name: "millrace_claims_total",
    kind: Kind::Counter,
    labels: &["result"],
    help: "Attempts to claim a partition, by result.",
};
const REDOS: Definition = Definition {
    name: "millrace_flush_redos_total",
    kind: Kind::Counter,
    labels: &["path"],
    help: "Flushes that were done again, by the path taken.",
};
const DAYS_ATTACHED: Definition = Definition {
    name: "millrace_maintenance_tables_attached_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Day tables made and attached.",
};
const DAYS_DROPPED: Definition = Definition {
    name: "millrace_maintenance_tables_dropped_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Day tables detached and dropped after their retention.",
};
const MAINTENANCE_FAILURES: Definition = Definition {
    name: "millrace_maintenance_failures_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Maintenance runs that failed.",
};
const LAST_MAINTENANCE: Definition = Definition {
    name: "millrace_maintenance_last_run_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "When maintenance last succeeded in this process, in seconds since 1970.",
};

pub(crate) const DEFINITIONS: &[&Definition] = &[
    &FLUSH_SECONDS,
    &FLUSH_ROWS,
    &FLUSH_BYTES,
    &ERRORS,
    &FENCE_LOSSES,
    &CLAIMS,
    &REDOS,
    &DAYS_ATTACHED,
    &DAYS_DROPPED,
    &MAINTENANCE_FAILURES,
    &LAST_MAINTENANCE,
];

/// What a failed transaction means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseErrorKind {
    /// The database is away or cannot do anything: wait.
    Outage,
    /// A row was there already: the flush is done again on the conflict path.
    Conflict,
    /// A row was refused for what it is.
    Refused,
    /// A partition is no longer ours.
    FenceLost,
    /// The answer of COMMIT never came.
    UnknownCommit,
}

/// How an attempt to claim a partition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimResult {
    /// The partition is ours.
    Claimed,
    /// The log or the position does not fit: somebody has to decide.
    Stopped,
    /// The database did not answer; it is tried again.
    Failed,
}

/// How a flush was done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedoPath {
    /// With `ON CONFLICT DO NOTHING`, after a conflict.
    OnConflict,
    /// As smaller flushes, after a refused row.
    Smaller,
    /// Unchanged, after an outage or an unknown COMMIT.
    Same,
}

#[derive(Debug)]
struct Handles {
    seconds: Histogram,
    rows: Histogram,
    bytes: Histogram,
    errors: [Counter; 5],
    fence_losses: Counter,
    claims: [Counter; 3],
    redos: [Counter; 3],
    days_attached: Counter,
    days_dropped: Counter,
    maintenance_failures: Counter,
}

/// Handles to the database metrics. Cloning is cheap; clones count into the same series.
#[derive(Clone, Debug)]
pub struct DatabaseMetrics(Arc<Handles>);

impl Default for DatabaseMetrics {
    fn default() -> DatabaseMetrics {
        DatabaseMetrics::new()
    }
}

impl DatabaseMetrics {
    /// Handles to the process's database metrics, all counters present from zero.
    pub fn new() -> DatabaseMetrics {
        let errors = [
            "outage",
            "conflict",
            "refused",
            "fence_lost",
            "unknown_commit",
        ];
        DatabaseMetrics(Arc::new(Handles {
            seconds: FLUSH_SECONDS.histogram(&[]),
            rows: FLUSH_ROWS.histogram(&[]),
            bytes: FLUSH_BYTES.histogram(&[]),
            errors: errors.map(|kind| ERRORS.counter(&[kind])),
            fence_losses: FENCE_LOSSES.counter(&[]),
            claims: ["claimed", "stopped", "failed"].map(|result| CLAIMS.counter(&[result])),
            redos: ["on_conflict", "smaller", "same"].map(|path| REDOS.counter(&[path])),
            days_attached: DAYS_ATTACHED.counter(&[]),
            days_dropped: DAYS_DROPPED.counter(&[]),
            maintenance_failures: MAINTENANCE_FAILURES.counter(&[]),
        }))
    }

    /// A flush was committed: how long it took, rows written and bytes sent.
    pub fn flush(&self, time: Duration, rows: u64, bytes: u64) {
        self.0.seconds.record(time.as_secs_f64());
        self.0.rows.record(rows as f64);
        self.0.bytes.record(bytes as f64);
    }

    /// A transaction failed.
    pub fn error(&self, kind: DatabaseErrorKind) {
        let [outage, conflict, refused, fence_lost, unknown_commit] = &self.0.errors;
        match kind {
            DatabaseErrorKind::Outage => outage,
            DatabaseErrorKind::Conflict => conflict,
            DatabaseErrorKind::Refused => refused,
            DatabaseErrorKind::FenceLost => fence_lost,
            DatabaseErrorKind::UnknownCommit => unknown_commit,
        }
        .increment(1);
    }

    /// So many partitions fell out of a flush because their claim was no longer ours.
    pub fn fence_losses(&self, partitions: u64) {
        self.0.fence_losses.increment(partitions);
    }

    /// An attempt to claim a partition ended.
    pub fn claim(&self, result: ClaimResult) {
        let [claimed, stopped, failed] = &self.0.claims;
        match result {
            ClaimResult::Claimed => claimed,
            ClaimResult::Stopped => stopped,
            ClaimResult::Failed => failed,
        }
        .increment(1);
    }

    /// A flush is done again.
    pub fn redo(&self, path: RedoPath) {
        let [on_conflict, smaller, same] = &self.0.redos;
        match path {
            RedoPath::OnConflict => on_conflict,
            RedoPath::Smaller => smaller,
            RedoPath::Same => same,
        }
        .increment(1);
    }

    /// A maintenance run succeeded at `now`, having attached and dropped so many days.
    pub fn maintained(&self, now: SystemTime, days_attached: u64, days_dropped: u64) {
        self.0.days_attached.increment(days_attached);
        self.0.days_dropped.increment(days_dropped);
        let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        LAST_MAINTENANCE.gauge(&[]).set(since_1970.as_secs_f64());
    }

    /// A maintenance run failed.
    pub fn maintenance_failed(&self) {
        self.0.maintenance_failures.increment(1);
    }
}
