//! The gauges that the exporter must go on showing.
//!
//! The exporter has no way to remove a series; it forgets gauges that were not written for a
//! while. So the series of a lost partition end by being left alone, and every gauge that is to
//! stay is written to, without a change of its value, before each look for idle ones.

use metrics::{Gauge, Key};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// A gauge that is shown until its last handle is dropped, and for the idle time after that.
#[derive(Debug)]
pub(crate) struct HeldGauge(Arc<Gauge>);

impl HeldGauge {
    pub(crate) fn set(&self, value: f64) {
        self.0.set(value);
    }
}

/// Gauges that stay for ever, and gauges that stay while they are held.
#[derive(Default)]
pub(crate) struct StandingGauges {
    lasting: HashMap<Key, Gauge>,
    held: Vec<Weak<Gauge>>,
}

impl StandingGauges {
    /// Keeps the gauge of this key for ever; `make` is called for the first handle only.
    pub(crate) fn lasting(&mut self, key: &Key, make: impl FnOnce() -> Gauge) -> Gauge {
        if let Some(gauge) = self.lasting.get(key) {
            return gauge.clone();
        }
        let gauge = make();
        self.lasting.insert(key.to_retained(), gauge.clone());
        gauge
    }

    /// Keeps the gauge until the handle is dropped.
    pub(crate) fn held(&mut self, gauge: Gauge) -> HeldGauge {
        let gauge = Arc::new(gauge);
        self.held.push(Arc::downgrade(&gauge));
        HeldGauge(gauge)
    }

    /// Writes to every gauge that is to stay.
    pub(crate) fn touch(&mut self) {
        for gauge in self.lasting.values() {
            gauge.increment(0.0);
        }
        self.held.retain(|held| {
            let gauge = held.upgrade();
            if let Some(gauge) = &gauge {
                gauge.increment(0.0);
            }
            gauge.is_some()
        });
    }
}
