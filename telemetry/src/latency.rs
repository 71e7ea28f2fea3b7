//! Latencies of single records, gathered by one thread and entered into a histogram once a flush.
//!
//! A [`LatencyBatch`] needs no atomics and no allocation: for each bucket it holds a count and a
//! sum. A merge enters each bucket's mean as often as the bucket counts, so the histogram has the
//! same counts and the same sum as if every latency had been recorded by itself.

use metrics::Histogram;
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

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    count: usize,
    sum_us: u64,
}

/// Latencies gathered by one thread, to be merged into a [`LatencyHistogram`] once a flush.
#[derive(Clone, Debug, Default)]
pub struct LatencyBatch([Bucket; BOUNDS_US.len() + 1]);

impl LatencyBatch {
    /// Adds one latency in microseconds. A negative one (two machines' clocks disagree) counts
    /// as zero.
    pub fn record_micros(&mut self, micros: i64) {
        let micros = u64::try_from(micros).unwrap_or(0);
        let at = BOUNDS_US.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.0.get_mut(at) {
            bucket.count += 1;
            bucket.sum_us = bucket.sum_us.saturating_add(micros);
        }
    }

    /// Adds one latency.
    pub fn record(&mut self, latency: Duration) {
        self.record_micros(i64::try_from(latency.as_micros()).unwrap_or(i64::MAX));
    }

    /// How many latencies are in the batch.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|bucket| bucket.count as u64).sum()
    }
}

/// A handle to a latency histogram that takes whole batches.
#[derive(Clone, Debug)]
pub struct LatencyHistogram(Histogram);

impl LatencyHistogram {
    pub(crate) fn new(histogram: Histogram) -> LatencyHistogram {
        LatencyHistogram(histogram)
    }

    /// Adds the batch and leaves it empty for the next one.
    pub fn merge(&self, batch: &mut LatencyBatch) {
        for bucket in batch.0.iter().filter(|bucket| bucket.count > 0) {
            // Division of exact integers: the mean of a bucket does not leave the bucket.
            let mean_us = bucket.sum_us as f64 / bucket.count as f64;
            self.0
                .record_many(mean_us / MICROS_PER_SECOND, bucket.count);
        }
        *batch = LatencyBatch::default();
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        reason = "a test ends at the first thing that is not as stated"
    )]

    use super::*;
    use metrics::HistogramFn;
    use std::sync::{Arc, Mutex};

    #[derive(Default)]
    struct Samples(Mutex<Vec<f64>>);

    impl HistogramFn for Samples {
        fn record(&self, value: f64) {
            self.0.lock().unwrap().push(value);
        }
    }

    fn bucket_counts(samples: &[f64]) -> Vec<usize> {
        let below = |bound: &f64| samples.iter().filter(|sample| *sample <= bound).count();
        LATENCY_BOUNDS.iter().map(below).collect()
    }

    #[test]
    fn a_merged_batch_equals_its_samples_recorded_one_by_one() {
        let samples_us: Vec<i64> = BOUNDS_US
            .iter()
            .flat_map(|bound| {
                let bound = i64::try_from(*bound).unwrap();
                [bound - 1, bound, bound, bound + 1, bound + 137]
            })
            .chain([-5, 0, 9_000_000_000])
            .collect();
        let one_by_one: Vec<f64> = samples_us
            .iter()
            .map(|us| (*us).max(0) as f64 / MICROS_PER_SECOND)
            .collect();
        let mut batch = LatencyBatch::default();
        for us in &samples_us {
            batch.record_micros(*us);
        }
        assert_eq!(batch.count(), samples_us.len() as u64);

        let merged = Arc::new(Samples::default());
        LatencyHistogram::new(Histogram::from_arc(Arc::clone(&merged))).merge(&mut batch);

        let merged = merged.0.lock().unwrap();
        assert_eq!(merged.len(), one_by_one.len());
        assert_eq!(bucket_counts(&merged), bucket_counts(&one_by_one));
        let (a, b): (f64, f64) = (merged.iter().sum(), one_by_one.iter().sum());
        assert!((a - b).abs() < 1e-6, "{a} {b}");
        assert_eq!(batch.count(), 0, "the batch is ready for the next flush");
    }
}
