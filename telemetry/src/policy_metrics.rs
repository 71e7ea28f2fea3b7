//! The policy file as the worker last read it.

use crate::definition::{Definition, Kind};
use metrics::Counter;
use std::time::{SystemTime, UNIX_EPOCH};

const LOADED: Definition = Definition {
    name: "millrace_policies_loaded_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "When the policies in force were loaded, in seconds since 1970.",
};
const ERRORS: Definition = Definition {
    name: "millrace_policies_errors_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Policy files that were refused while the worker ran; the old policies stay in force.",
};

pub(crate) const DEFINITIONS: &[&Definition] = &[&LOADED, &ERRORS];

/// Handles to the policy metrics. Cloning is cheap; clones count into the same series.
#[derive(Clone, Debug)]
pub struct PolicyMetrics {
    errors: Counter,
}

impl Default for PolicyMetrics {
    fn default() -> PolicyMetrics {
        PolicyMetrics::new()
    }
}

impl PolicyMetrics {
    /// Handles to the process's policy metrics; the time appears with the first load.
    pub fn new() -> PolicyMetrics {
        PolicyMetrics {
            errors: ERRORS.counter(&[]),
        }
    }

    /// Policies came into force at `now`, from a file or as the defaults at start.
    pub fn loaded(&self, now: SystemTime) {
        let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        LOADED.gauge(&[]).set(since_1970.as_secs_f64());
    }

    /// A changed file was refused.
    pub fn refused(&self) {
        self.errors.increment(1);
    }
}
