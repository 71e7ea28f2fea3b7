//! Where the values live: one registry for the process, which is also the recorder of the
//! `metrics` facade.
//!
//! It comes to life with the first handle, so there is no order of installation to get wrong and
//! no handle that silently counts nothing. A handler of somebody else's that uses the facade's
//! macros appears on the same `/metrics`. If the process has installed a recorder of its own, that
//! one keeps the facade and this registry keeps Millrace's metrics.

use crate::buckets::{Buckets, LATENCY_BOUNDS};
use crate::definition::{Kind, definitions};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::registry::{Registry, Storage};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A counter's count, or the bits of a gauge's `f64`.
pub(crate) type Amount = AtomicU64;

/// All series of the process.
pub(crate) type Series = Registry<Key, Cells>;

/// Makes the storage of a new series.
pub(crate) struct Cells;

impl Storage<Key> for Cells {
    type Counter = Arc<Amount>;
    type Gauge = Arc<Amount>;
    type Histogram = Arc<Buckets>;

    fn counter(&self, _: &Key) -> Self::Counter {
        Arc::new(Amount::new(0))
    }

    fn gauge(&self, _: &Key) -> Self::Gauge {
        Arc::new(Amount::new(0.0_f64.to_bits()))
    }

    fn histogram(&self, key: &Key) -> Self::Histogram {
        let bounds = definitions().find_map(|definition| match definition.kind {
            Kind::Histogram(bounds) if definition.name == key.name() => Some(bounds),
            _ => None,
        });
        Arc::new(Buckets::new(bounds.unwrap_or(LATENCY_BOUNDS)))
    }
}

/// The registry; the first call makes it and offers it to the facade.
pub(crate) fn series() -> &'static Series {
    static SERIES: OnceLock<Series> = OnceLock::new();
    static OFFERED: OnceLock<()> = OnceLock::new();
    let series = SERIES.get_or_init(|| Registry::new(Cells));
    OFFERED.get_or_init(|| {
        // An application that set its own recorder keeps it; that is its choice, not an error.
        let _ = metrics::set_global_recorder(Facade);
    });
    series
}

fn foreign_help() -> &'static Mutex<BTreeMap<String, String>> {
    static HELP: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    &HELP
}

/// The help text of a metric that is not in the table, where its owner described it.
pub(crate) fn help_of_foreign(name: &str) -> Option<String> {
    foreign_help()
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(name)
        .cloned()
}

struct Facade;

impl Facade {
    fn describe(name: &KeyName, help: &SharedString) {
        foreign_help()
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name.as_str().to_owned())
            .or_insert_with(|| help.to_string());
    }
}

impl Recorder for Facade {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        Facade::describe(&name, &help);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        Facade::describe(&name, &help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        Facade::describe(&name, &help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let amount = series().get_or_create_counter(&key.to_retained(), Arc::clone);
        Counter::from_arc(amount)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let amount = series().get_or_create_gauge(&key.to_retained(), Arc::clone);
        Gauge::from_arc(amount)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let buckets = series().get_or_create_histogram(&key.to_retained(), Arc::clone);
        Histogram::from_arc(buckets)
    }
}
