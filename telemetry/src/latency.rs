//! Latencies of single records, gathered by one thread and entered into a histogram once a flush.
//!
//! A [`LatencyBatch`] needs no atomics and no allocation, and a [`LatencyHistogram`] keeps counts
//! and a sum, never samples: what a record costs does not depend on how many there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in microseconds of every latency that is recorded a record at a time: 1 ms to
/// half an hour, dense where the service goal (25 ms) lies.
const BOUNDS_US: [u64; 20] = [
    1_000,
    2_000,
    3_000,
    5_000,
    7_500,
    10_000,
    15_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    1_800_000_000,
];

const BUCKETS: usize = BOUNDS_US.len() + 1;

const MICROS_PER_SECOND: f64 = 1e6;

/// The same bounds in seconds.
pub(crate) const LATENCY_BOUNDS: &[f64] = &{
    let mut bounds = [0.0; BOUNDS_US.len()];
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] = BOUNDS_US[at] as f64 / MICROS_PER_SECOND;
        at += 1;
    }
    bounds
};

/// Latencies gathered by one thread, to be merged into a [`LatencyHistogram`] once a flush.
#[derive(Clone, Debug, Default)]
pub struct LatencyBatch {
    counts: [u64; BUCKETS],
    sum_us: u64,
}

impl LatencyBatch {
    /// Adds one latency in microseconds. A negative one (two machines' clocks disagree) counts
    /// as zero.
    pub fn record_micros(&mut self, micros: i64) {
        let micros = u64::try_from(micros).unwrap_or(0);
        let at = BOUNDS_US.partition_point(|bound| *bound < micros);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
            self.sum_us = self.sum_us.saturating_add(micros);
        }
    }

    /// Adds one latency.
    pub fn record(&mut self, latency: Duration) {
        self.record_micros(i64::try_from(latency.as_micros()).unwrap_or(i64::MAX));
    }

    /// How many latencies are in the batch.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// A latency histogram that takes whole batches. Clones count into the same series.
#[derive(Clone, Debug, Default)]
pub struct LatencyHistogram(Arc<Totals>);

#[derive(Debug, Default)]
struct Totals {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

/// What a histogram holds at one moment.
#[derive(Debug, PartialEq)]
pub(crate) struct Reading {
    /// How many latencies are at or below each of [`LATENCY_BOUNDS`].
    pub(crate) up_to: [u64; BOUNDS_US.len()],
    /// How many there are.
    pub(crate) count: u64,
    /// Their sum in seconds.
    pub(crate) sum: f64,
}

impl LatencyHistogram {
    /// Adds the batch and leaves it empty for the next one.
    pub fn merge(&self, batch: &mut LatencyBatch) {
        for (total, count) in self.0.counts.iter().zip(&batch.counts) {
            if *count > 0 {
                total.fetch_add(*count, Ordering::Relaxed);
            }
        }
        self.0.sum_us.fetch_add(batch.sum_us, Ordering::Relaxed);
        *batch = LatencyBatch::default();
    }

    /// The counts belong together; the sum may hold less or more than a batch that is merged at
    /// this moment.
    pub(crate) fn read(&self) -> Reading {
        let mut count = 0;
        let mut cumulated = self.0.counts.iter().map(|total| {
            count += total.load(Ordering::Relaxed);
            count
        });
        let up_to = std::array::from_fn(|_| cumulated.next().unwrap_or_default());
        let count = cumulated.next().unwrap_or_default();
        let sum_us = self.0.sum_us.load(Ordering::Relaxed);
        Reading {
            up_to,
            count,
            sum: sum_us as f64 / MICROS_PER_SECOND,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        reason = "a test ends at the first thing that is not as stated"
    )]

    use super::*;

    #[test]
    fn merged_batches_count_each_sample_in_every_bucket_that_holds_it() {
        let samples_us: Vec<i64> = BOUNDS_US
            .iter()
            .flat_map(|bound| {
                let bound = i64::try_from(*bound).unwrap();
                [bound - 1, bound, bound, bound + 1, bound + 137]
            })
            .chain([-5, 0, 9_000_000_000])
            .collect();
        let histogram = LatencyHistogram::default();
        let mut batch = LatencyBatch::default();
        for samples in samples_us.chunks(7) {
            for us in samples {
                batch.record_micros(*us);
            }
            assert_eq!(batch.count(), samples.len() as u64);
            histogram.clone().merge(&mut batch);
            assert_eq!(batch.count(), 0, "the batch is ready for the next flush");
        }

        let counted: Vec<u64> = samples_us.iter().map(|us| (*us).max(0) as u64).collect();
        let reading = histogram.read();
        for (bound, up_to) in BOUNDS_US.iter().zip(reading.up_to) {
            let expected = counted.iter().filter(|us| *us <= bound).count();
            assert_eq!(up_to, expected as u64, "up to {bound} us");
        }
        assert_eq!(reading.count, counted.len() as u64);
        let sum = counted.iter().sum::<u64>() as f64 / MICROS_PER_SECOND;
        assert!((reading.sum - sum).abs() < 1e-6);
    }
}
