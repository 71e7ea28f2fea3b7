//! The table of every metric: name, kind, labels and help text, each written once.
//!
//! A [`Definition`] hands out handles to its series, so a name cannot be used with the wrong kind
//! or without its help text. Names follow the Prometheus rules that `promtool check metrics`
//! enforces: base units (`_seconds`, `_bytes`), counters end in `_total`.

use crate::latency::LatencyHistogram;
use crate::recorder::exporter;
use crate::seconds_counter::SecondsCounter;
use crate::standing_gauges::HeldGauge;
use metrics::{Counter, Gauge, Histogram, Key, Label, Unit};

/// What a metric measures and how it is exposed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A count that only grows.
    Counter,
    /// A duration that only grows, in whole seconds.
    CounterSeconds,
    /// A value that goes up and down.
    Gauge,
    /// A distribution over these upper bounds (ascending, without `+Inf`).
    Histogram(&'static [f64]),
    /// A distribution of latencies over the bounds of [`LatencyBatch`](crate::LatencyBatch).
    Latency,
}

/// One metric: what it is called and what it means.
#[derive(Debug)]
pub struct Definition {
    /// The name on `/metrics`, unit suffix included.
    pub name: &'static str,
    /// Kind and, for histograms, bucket bounds.
    pub kind: Kind,
    /// Label names, in the order in which handles take their values.
    pub labels: &'static [&'static str],
    /// The HELP text.
    pub help: &'static str,
}

/// Every metric of the workspace, in the order of the documentation.
pub fn definitions() -> impl Iterator<Item = &'static Definition> {
    [
        crate::partition_metrics::DEFINITIONS,
        crate::task_metrics::DEFINITIONS,
        crate::handler_metrics::DEFINITIONS,
        crate::waiting_metrics::DEFINITIONS,
        crate::consumer_metrics::DEFINITIONS,
        crate::outbox_metrics::DEFINITIONS,
        crate::policy_metrics::DEFINITIONS,
        crate::database_metrics::DEFINITIONS,
        crate::broker_metrics::DEFINITIONS,
        crate::producer_metrics::DEFINITIONS,
        crate::door_metrics::DEFINITIONS,
        crate::health::DEFINITIONS,
        crate::build_info::DEFINITIONS,
        crate::process_metrics::DEFINITIONS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

impl Definition {
    /// The key of the series with these label values, one value for each of [`Self::labels`].
    pub(crate) fn key(&self, values: &[&str]) -> Key {
        debug_assert_eq!(values.len(), self.labels.len(), "labels of {}", self.name);
        let labels: Vec<Label> = self
            .labels
            .iter()
            .zip(values)
            .map(|(name, value)| Label::new(*name, (*value).to_owned()))
            .collect();
        Key::from_parts(self.name, labels)
    }

    /// The base unit, which the name ends in.
    pub(crate) fn unit(&self) -> Option<Unit> {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        if name.ends_with("_seconds") {
            Some(Unit::Seconds)
        } else if name.ends_with("_bytes") {
            Some(Unit::Bytes)
        } else {
            None
        }
    }

    /// The counter with these label values; it exists from now on, at zero.
    pub(crate) fn counter(&self, values: &[&str]) -> Counter {
        debug_assert!(matches!(self.kind, Kind::Counter | Kind::CounterSeconds));
        exporter().counter(&self.key(values))
    }

    /// The counter of durations with these label values; it exists from now on, at zero.
    pub(crate) fn seconds_counter(&self, values: &[&str]) -> SecondsCounter {
        debug_assert_eq!(self.kind, Kind::CounterSeconds);
        SecondsCounter::new(self.counter(values))
    }

    /// The gauge with these label values; it exists from now on, at zero.
    pub(crate) fn gauge(&self, values: &[&str]) -> Gauge {
        debug_assert_eq!(self.kind, Kind::Gauge);
        exporter().gauge(&self.key(values))
    }

    /// The gauge with these label values; it disappears within 60 s of the last handle.
    pub(crate) fn held_gauge(&self, values: &[&str]) -> HeldGauge {
        debug_assert_eq!(self.kind, Kind::Gauge);
        exporter().held_gauge(&self.key(values))
    }

    /// The histogram with these label values; it exists from now on, empty.
    pub(crate) fn histogram(&self, values: &[&str]) -> Histogram {
        debug_assert!(matches!(self.kind, Kind::Histogram(_)));
        exporter().histogram(&self.key(values))
    }

    /// The latency histogram with these label values; it exists from now on, empty.
    pub(crate) fn latency(&self, values: &[&str]) -> LatencyHistogram {
        debug_assert_eq!(self.kind, Kind::Latency);
        debug_assert_eq!(values.len(), self.labels.len(), "labels of {}", self.name);
        exporter().latency(self, values)
    }
}
