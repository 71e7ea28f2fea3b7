//! How long things took, in order.

use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;

/// Times in milliseconds that so many in 100 did not exceed.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    /// How many there were.
    pub count: usize,
    /// Half of them.
    pub p50_ms: f64,
    /// 99 in 100.
    pub p99_ms: f64,
    /// All of them.
    pub max_ms: f64,
}

impl Percentiles {
    /// # Errors
    /// When there are none.
    pub fn of(mut times: Vec<Duration>) -> anyhow::Result<Self> {
        ensure!(!times.is_empty(), "nothing was measured");
        times.sort_unstable();
        let at = |percent: usize| {
            let place = (times.len() * percent).div_ceil(100).max(1) - 1;
            let time = times.get(place).copied().unwrap_or_default();
            time.as_secs_f64() * 1_000.0
        };
        Ok(Self {
            count: times.len(),
            p50_ms: at(50),
            p99_ms: at(99),
            max_ms: at(100),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_from_the_fastest() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let found = Percentiles::of(times).ok();
        let found = found.map(|found| (found.p50_ms, found.p99_ms, found.max_ms));
        assert_eq!(found, Some((100.0, 198.0, 200.0)));
        assert!(Percentiles::of(Vec::new()).is_err());
    }
}
