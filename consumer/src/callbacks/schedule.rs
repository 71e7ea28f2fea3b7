//! When a callback is tried again: the schedule of Standard Webhooks 1.0.0, scaled.

use std::time::Duration;

/// Waits before each attempt after the first, in seconds.
const WAITS: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
/// Each wait is longer by up to this share, so that many that failed together do not come back together.
const JITTER: f64 = 0.1;
/// Longest time that a target may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(86_400);

/// How long to wait after `made` attempts; `None` after the last one. `chance` is from 0 to 1. A target that says
/// when to come again is obeyed, within a day.
pub(super) fn wait(
    made: usize,
    scale: f64,
    chance: f64,
    asked: Option<Duration>,
) -> Option<Duration> {
    let seconds = *WAITS.get(made.checked_sub(1)?)?;
    let wait = Duration::from_secs(seconds).mul_f64(scale * (1.0 + JITTER * chance));
    Some(wait.max(asked.unwrap_or_default().min(LONGEST_ASKED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_attempts_are_made_over_some_three_days() {
        let waits: Vec<_> = (1..).map_while(|made| wait(made, 1.0, 0.0, None)).collect();
        assert_eq!(waits.len(), 9);
        assert_eq!(waits[0], Duration::from_secs(5));
        assert_eq!(waits[8], Duration::from_secs(86_400));
        assert_eq!(wait(2, 0.01, 1.0, None), Some(Duration::from_millis(3_300)));
    }

    #[test]
    fn a_target_that_asks_for_time_gets_it_within_a_day() {
        let asked = |seconds| wait(1, 1.0, 0.0, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(60), Some(Duration::from_secs(60)));
        assert_eq!(asked(1), Some(Duration::from_secs(5)));
        assert_eq!(asked(1_000_000), Some(Duration::from_secs(86_400)));
        assert_eq!(wait(10, 1.0, 0.0, Some(Duration::from_secs(60))), None);
    }
}
