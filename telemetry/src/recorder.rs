//! The one recorder of the process: the Prometheus exporter's, behind the `metrics` facade.
//!
//! It comes to life with the first handle, so there is no order of installation to get wrong and
//! no handle that silently counts nothing. A handler of somebody else's that uses the facade's
//! macros appears on the same `/metrics`. If the process has installed a recorder of its own, that
//! one keeps the facade and this one keeps Millrace's metrics.
//!
//! Upkeep does not depend on a listener: a thread of its own runs it every second, so the samples
//! of histograms, which the exporter keeps until then, never hold more than a second's load.
//! Latencies of single records do not go through the exporter, see [`crate::latency_series`].

use crate::definition::{Definition, Kind, definitions};
use crate::latency::{LATENCY_BOUNDS, LatencyHistogram};
use crate::latency_series::LatencySeries;
use crate::process_metrics;
use crate::standing_gauges::{HeldGauge, StandingGauges};
use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Level, Metadata, Recorder, SharedString, Unit,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusRecorder};
use metrics_util::MetricKindMask;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

/// How long the exporter shows a gauge that nobody holds.
const IDLE: Duration = Duration::from_secs(30);

/// How often samples are drained into their histograms.
const UPKEEP: Duration = Duration::from_secs(1);

/// The exporter looks for idle gauges when it renders; where nobody scrapes, each so many upkeeps.
/// A gauge is gone at the latest after [`IDLE`] and two such rounds, which is under a minute.
const UPKEEPS_PER_ROUND: u32 = 10;

const METADATA: Metadata<'static> = Metadata::new("millrace", Level::INFO, None);

static EXPORTER: LazyLock<&'static Exporter> = LazyLock::new(|| {
    let exporter: &'static Exporter = Box::leak(Box::new(Exporter::new(IDLE)));
    // An application that set its own recorder keeps it; that is its choice, not an error.
    let _ = metrics::set_global_recorder(exporter);
    let upkeep = thread::Builder::new().name("metrics-upkeep".to_owned());
    if let Err(error) = upkeep.spawn(move || exporter.keep_up()) {
        tracing::error!(%error, "metrics have no upkeep: histograms will use more and more memory");
    }
    exporter
});

/// The exporter of the process; the first call starts it.
pub(crate) fn exporter() -> &'static Exporter {
    *EXPORTER
}

/// All metrics of the process as they are now, in the Prometheus text format.
pub fn render() -> String {
    process_metrics::publish();
    exporter().render()
}

/// The exporter's recorder, the gauges that it must not forget, and the latencies beside it.
pub(crate) struct Exporter {
    recorder: PrometheusRecorder,
    standing: Mutex<StandingGauges>,
    latencies: Mutex<LatencySeries>,
}

impl Exporter {
    /// A recorder that knows every definition and forgets gauges after `idle`.
    pub(crate) fn new(idle: Duration) -> Exporter {
        let builder = with_buckets().unwrap_or_else(|error| {
            tracing::error!(%error, "histograms have no buckets");
            PrometheusBuilder::new()
        });
        let recorder = builder
            .idle_timeout(MetricKindMask::GAUGE, Some(idle))
            .build_recorder();
        for definition in definitions() {
            let (name, help) = (KeyName::from(definition.name), definition.help.into());
            let unit = definition.unit();
            match definition.kind {
                Kind::Counter | Kind::CounterSeconds => {
                    recorder.describe_counter(name, unit, help);
                }
                Kind::Gauge => recorder.describe_gauge(name, unit, help),
                Kind::Histogram(_) => recorder.describe_histogram(name, unit, help),
                // These bring their own help text.
                Kind::Latency => {}
            }
        }
        Exporter {
            recorder,
            standing: Mutex::default(),
            latencies: Mutex::default(),
        }
    }

    pub(crate) fn counter(&self, key: &Key) -> Counter {
        self.register_counter(key, &METADATA)
    }

    pub(crate) fn histogram(&self, key: &Key) -> Histogram {
        self.register_histogram(key, &METADATA)
    }

    pub(crate) fn latency(&self, definition: &Definition, values: &[&str]) -> LatencyHistogram {
        self.latencies().histogram(definition, values)
    }

    /// A gauge that stays for the life of the process.
    pub(crate) fn gauge(&self, key: &Key) -> Gauge {
        self.register_gauge(key, &METADATA)
    }

    /// A gauge that stays as long as somebody holds a handle to it.
    pub(crate) fn held_gauge(&self, key: &Key) -> HeldGauge {
        let mut standing = self.standing();
        standing.held(self.recorder.register_gauge(key, &METADATA))
    }

    pub(crate) fn render(&self) -> String {
        let mut standing = self.standing();
        standing.touch();
        self.recorder.handle().render() + &self.latencies().render()
    }

    fn forget_idle(&self) {
        let mut standing = self.standing();
        standing.touch();
        // A sink takes everything.
        let _ = self.recorder.handle().render_to_write(&mut io::sink());
    }

    fn keep_up(&self) {
        loop {
            for _ in 0..UPKEEPS_PER_ROUND {
                thread::sleep(UPKEEP);
                self.recorder.handle().run_upkeep();
            }
            self.forget_idle();
        }
    }

    /// Locked while a gauge is made and while the exporter looks for idle ones: between being
    /// made and being noted here, a gauge cannot be forgotten.
    fn standing(&self) -> MutexGuard<'_, StandingGauges> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latencies(&self) -> MutexGuard<'_, LatencySeries> {
        self.latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn with_buckets() -> Result<PrometheusBuilder, BuildError> {
    // Without buckets, somebody else's histogram would become a summary.
    let mut builder = PrometheusBuilder::new().set_buckets(LATENCY_BOUNDS)?;
    for definition in definitions() {
        if let Kind::Histogram(bounds) = definition.kind {
            let name = Matcher::Full(definition.name.to_owned());
            builder = builder.set_buckets_for_metric(name, bounds)?;
        }
    }
    Ok(builder)
}

impl Recorder for Exporter {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.recorder.describe_counter(name, unit, help);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.recorder.describe_gauge(name, unit, help);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.recorder.describe_histogram(name, unit, help);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.recorder.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        let mut standing = self.standing();
        standing.lasting(key, || self.recorder.register_gauge(key, metadata))
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.recorder.register_histogram(key, metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(60);

    /// Renders over more than the idle time, as scrapes do.
    fn after_idling(exporter: &Exporter) -> String {
        let mut text = exporter.render();
        for _ in 0..4 {
            thread::sleep(SHORT / 2);
            text = exporter.render();
        }
        text
    }

    #[test]
    fn a_gauge_is_shown_as_long_as_somebody_holds_it() {
        let exporter = Exporter::new(SHORT);
        let key = Key::from_name("held");
        let first = exporter.held_gauge(&key);
        let second = exporter.held_gauge(&key);
        first.set(3.0);
        assert!(after_idling(&exporter).contains("\nheld 3\n"));

        drop(first);
        assert!(after_idling(&exporter).contains("\nheld 3\n"));

        drop(second);
        assert!(!after_idling(&exporter).contains("held"));
    }

    #[test]
    fn a_gauge_that_was_forgotten_can_be_made_again() {
        let exporter = Exporter::new(SHORT);
        let key = Key::from_name("held");
        drop(exporter.held_gauge(&key));
        assert!(!after_idling(&exporter).contains("held"));

        let again = exporter.held_gauge(&key);
        again.set(4.0);
        assert!(after_idling(&exporter).contains("\nheld 4\n"));
    }

    #[test]
    fn a_lasting_gauge_is_shown_though_it_was_set_only_once() {
        let exporter = Exporter::new(SHORT);
        exporter.gauge(&Key::from_name("lasting")).set(5.0);
        assert!(after_idling(&exporter).contains("\nlasting 5\n"));
    }

    #[test]
    fn a_histogram_has_buckets_even_if_it_is_not_in_the_table() {
        let exporter = Exporter::new(IDLE);
        exporter
            .histogram(&Key::from_name("somebody_elses_seconds"))
            .record(0.004);
        let text = exporter.render();
        assert!(text.contains("somebody_elses_seconds_bucket{le=\"0.003\"} 0\n"));
        assert!(text.contains("somebody_elses_seconds_bucket{le=\"0.005\"} 1\n"));
    }

    #[test]
    fn what_nobody_holds_is_forgotten_within_a_minute() {
        assert!(IDLE + UPKEEP * UPKEEPS_PER_ROUND * 2 < Duration::from_secs(60));
    }
}
