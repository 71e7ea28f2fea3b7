//! What operators see is one piece: metrics, dashboard, alerts, compose file and runbook agree.
//!
//! With `MILLRACE_SCRAPE_TARGETS` (`host:port,…`) dashboard and alerts are held against those
//! running processes; without it, against a listener of this process that moves every metric.
//! Suites that need Debian's `prometheus` package are noted as not run where it is missing, and
//! fail there when `CI` is set.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first thing that is not as stated"
)]

mod compose;
mod dashboard;
mod http;
mod images;
mod listener;
mod live_prometheus;
mod partition_series;
mod promtool;
mod queries;
mod rules;
mod sample_values;
mod scrape;
mod suite;
mod work_series;

use std::path::PathBuf;

/// A file or folder of the repository.
fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path)
}

/// The text of a file of the repository.
fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
