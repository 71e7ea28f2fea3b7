//! `--rate`: a token bucket. Time is passed in. Over any stretch of time no more events go out
//! than the rate allows, plus a burst of 20 ms worth that evens out the sleeper's coarse clock.

use std::time::{Duration, Instant};

const BURST: Duration = Duration::from_millis(20);

/// Says when the next event may go.
#[derive(Debug)]
pub struct Pace {
    /// Time between two events.
    interval: Duration,
    /// When the next event is due if no time had been lost.
    due: Instant,
}

impl Pace {
    /// `rate` events per second, beginning at `now`; `None` when the rate is not a positive number.
    pub fn new(rate: f64, now: Instant) -> Option<Self> {
        let usable = rate.is_finite() && rate > 0.0;
        let interval = Duration::try_from_secs_f64(1.0 / rate)
            .ok()
            .filter(|_| usable)?;
        Some(Pace { interval, due: now })
    }

    /// Takes leave for one event: `Ok` when it may go at `now`, else how long to wait before
    /// asking again.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let wait = self.due.saturating_duration_since(now);
        if !wait.is_zero() {
            return Err(wait);
        }
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        self.due = self.due.max(earliest) + self.interval;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        reason = "a test that cannot set up its case has failed"
    )]

    use super::*;

    fn sent_in(pace: &mut Pace, from: Instant, millis: u64, step: u64) -> u64 {
        let mut sent = 0;
        for at in (0..millis).step_by(usize::try_from(step).unwrap()) {
            while pace.take(from + Duration::from_millis(at)).is_ok() {
                sent += 1;
            }
        }
        sent
    }

    #[test]
    fn a_second_holds_as_many_events_as_the_rate_says() {
        let start = Instant::now();
        for (rate, step) in [(1_000.0, 1), (1_000.0, 7), (250_000.0, 3), (2.0, 1)] {
            let mut pace = Pace::new(rate, start).unwrap();
            let sent = sent_in(&mut pace, start, 1_000, step) as f64;
            assert!((sent - rate).abs() <= rate * 0.02 + 1.0, "{sent} at {rate}");
        }
    }

    #[test]
    fn after_a_stall_only_the_burst_is_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::new(1_000.0, start).unwrap();
        let later = start + Duration::from_secs(60);
        assert!(sent_in(&mut pace, later, 1, 1) <= 21);
    }

    #[test]
    fn the_wait_is_the_time_until_the_next_event() {
        let start = Instant::now();
        let mut pace = Pace::new(10.0, start).unwrap();
        pace.take(start).unwrap();
        assert_eq!(pace.take(start), Err(Duration::from_millis(100)));
        assert_eq!(
            pace.take(start + Duration::from_millis(40)),
            Err(Duration::from_millis(60))
        );
    }

    #[test]
    fn a_rate_is_a_positive_number() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Pace::new(rate, Instant::now()).is_none());
        }
    }
}
