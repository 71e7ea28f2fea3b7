//! Histograms of fixed size: a count for each bucket, nothing for each sample.
//!
//! The usual exporter keeps every sample until the next upkeep; at 200,000 records a second that
//! is memory which grows with the load. Here a histogram is one array of counters, whatever the
//! load, and a flush of any size enters it with one addition a bucket by way of [`LatencyBatch`],
//! which belongs to one thread and needs no atomics.

use metrics::HistogramFn;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in microseconds of every latency that is recorded a record at a time: 1 ms to
/// half an hour, dense where the service goal (25 ms) lies.
const LATENCY_BOUNDS_US: [u64; 20] = [
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

/// The same bounds in seconds.
pub(crate) const LATENCY_BOUNDS: &[f64] = &[
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0, 300.0, 1800.0,
];

/// A histogram's storage: one count a bucket (the last is `+Inf`) and the sum of all samples.
pub(crate) struct Buckets {
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// The state of a histogram at one moment, with cumulative counts as Prometheus wants them.
pub(crate) struct BucketsSnapshot {
    /// (upper bound, samples at or below it); without `+Inf`.
    pub(crate) cumulative: Vec<(f64, u64)>,
    /// All samples.
    pub(crate) count: u64,
    /// The sum of all samples.
    pub(crate) sum: f64,
}

impl Buckets {
    pub(crate) fn new(bounds: &'static [f64]) -> Buckets {
        Buckets {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0.0_f64.to_bits()),
        }
    }

    fn add_to_bucket(&self, bucket: usize, count: u64) {
        if let Some(slot) = self.counts.get(bucket) {
            slot.fetch_add(count, Ordering::Relaxed);
        }
    }

    fn add_to_sum(&self, amount: f64) {
        let _ = self
            .sum
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
                Some((f64::from_bits(bits) + amount).to_bits())
            });
    }

    pub(crate) fn snapshot(&self) -> BucketsSnapshot {
        let mut count = 0;
        let mut cumulative = Vec::with_capacity(self.bounds.len());
        for (slot, bound) in self.counts.iter().zip(self.bounds) {
            count += slot.load(Ordering::Relaxed);
            cumulative.push((*bound, count));
        }
        let above_all = self.counts.last().map_or(0, |c| c.load(Ordering::Relaxed));
        BucketsSnapshot {
            cumulative,
            count: count + above_all,
            sum: f64::from_bits(self.sum.load(Ordering::Relaxed)),
        }
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        self.record_many(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.add_to_bucket(bucket, count as u64);
        self.add_to_sum(value * count as f64);
    }
}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buckets")
            .field("bounds", &self.bounds.len())
            .finish_non_exhaustive()
    }
}

/// Latencies gathered by one thread, to be merged into a [`LatencyHistogram`] once a flush.
#[derive(Clone, Debug, Default)]
pub struct LatencyBatch {
    counts: [u64; LATENCY_BOUNDS_US.len() + 1],
    sum_us: u64,
}

impl LatencyBatch {
    /// Adds one latency in microseconds. A negative one (two machines' clocks disagree) counts
    /// as zero.
    pub fn record_micros(&mut self, micros: i64) {
        let micros = u64::try_from(micros).unwrap_or(0);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < micros);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum_us = self.sum_us.saturating_add(micros);
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

/// A handle to a latency histogram that takes whole batches.
#[derive(Clone, Debug)]
pub struct LatencyHistogram(Arc<Buckets>);

impl LatencyHistogram {
    pub(crate) fn new(buckets: Arc<Buckets>) -> LatencyHistogram {
        LatencyHistogram(buckets)
    }

    /// Adds the batch and leaves it empty for the next one.
    pub fn merge(&self, batch: &mut LatencyBatch) {
        for (bucket, count) in batch.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            self.0.add_to_bucket(bucket, *count);
        }
        self.0.add_to_sum(batch.sum_us as f64 / 1e6);
        *batch = LatencyBatch::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_of_latency_bounds_say_the_same() {
        let in_seconds: Vec<f64> = LATENCY_BOUNDS_US
            .iter()
            .map(|us| *us as f64 / 1e6)
            .collect();
        assert_eq!(in_seconds, LATENCY_BOUNDS);
    }

    #[test]
    fn a_merged_batch_equals_its_samples_recorded_one_by_one() {
        let samples_us: [i64; 9] = [
            -5,
            0,
            999,
            1_000,
            1_001,
            24_999,
            25_001,
            60_000_000,
            i64::MAX / 1_000_000,
        ];
        let one_by_one = Buckets::new(LATENCY_BOUNDS);
        let merged = Arc::new(Buckets::new(LATENCY_BOUNDS));
        let mut batch = LatencyBatch::default();
        for us in samples_us {
            one_by_one.record(us.max(0) as f64 / 1e6);
            batch.record_micros(us);
        }
        assert_eq!(batch.count(), 9);

        LatencyHistogram::new(Arc::clone(&merged)).merge(&mut batch);

        let (a, b) = (one_by_one.snapshot(), merged.snapshot());
        assert_eq!(a.cumulative, b.cumulative);
        assert_eq!(a.count, b.count);
        assert!((a.sum - b.sum).abs() < 1e-3, "{} {}", a.sum, b.sum);
        assert_eq!(batch.count(), 0, "the batch is ready for the next flush");
    }

    #[test]
    fn a_sample_above_every_bound_is_counted_only_in_the_total() {
        let buckets = Buckets::new(&[1.0, 2.0]);
        buckets.record_many(5.0, 3);
        let snapshot = buckets.snapshot();
        assert_eq!(snapshot.cumulative, vec![(1.0, 0), (2.0, 0)]);
        assert_eq!(snapshot.count, 3);
    }
}
