//! A counter of seconds whose parts are shorter than a second.
//!
//! The exporter's counters are whole numbers. What is short of a full second waits here for the
//! next addition, so nothing is lost over time.

use metrics::Counter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const MICROS_PER_SECOND: u64 = 1_000_000;

/// Counts durations, in whole seconds.
#[derive(Debug)]
pub(crate) struct SecondsCounter {
    seconds: Counter,
    micros: AtomicU64,
}

impl SecondsCounter {
    pub(crate) fn new(seconds: Counter) -> SecondsCounter {
        SecondsCounter {
            seconds,
            micros: AtomicU64::new(0),
        }
    }

    pub(crate) fn add(&self, time: Duration) {
        let added = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let before = self.micros.fetch_add(added, Ordering::Relaxed);
        let after = before.saturating_add(added);
        self.seconds
            .increment(after / MICROS_PER_SECOND - before / MICROS_PER_SECOND);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn parts_of_a_second_add_up() {
        let shown = Arc::new(AtomicU64::new(0));
        let counter = SecondsCounter::new(Counter::from_arc(Arc::clone(&shown)));
        for _ in 0..29 {
            counter.add(Duration::from_millis(100));
        }
        assert_eq!(shown.load(Ordering::Relaxed), 2);
        counter.add(Duration::from_millis(100));
        assert_eq!(shown.load(Ordering::Relaxed), 3);
        counter.add(Duration::from_secs(7));
        assert_eq!(shown.load(Ordering::Relaxed), 10);
    }
}
