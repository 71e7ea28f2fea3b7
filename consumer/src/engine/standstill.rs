//! How long a partition has stood still although nothing is known to hold it up.
//!
//! Whoever asks says whether anything is under way that may move the frontier: an attempt, a flush, a look-up, a
//! wait for another attempt or for a free place. Guarantees that a partition is called stuck only after that was
//! not so, and the frontier did not move, for the whole time in one piece.

use std::time::{Duration, Instant};

/// The standstill of one partition; see the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standstill {
    since: Option<Instant>,
}

impl Standstill {
    /// Takes in that the frontier moved.
    pub const fn moved(&mut self) {
        self.since = None;
    }

    /// Takes in whether the partition has nothing to do, or something holds it up that is bounded by itself.
    /// Returns for how long neither was so.
    pub fn look(&mut self, is_held: bool, now: Instant) -> Duration {
        if is_held {
            self.since = None;
            return Duration::ZERO;
        }
        now.saturating_duration_since(*self.since.get_or_insert(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn time_runs_only_while_nothing_holds_it_up() {
        let (mut standstill, began) = (Standstill::default(), Instant::now());
        assert_eq!(standstill.look(true, began), Duration::ZERO);
        assert_eq!(standstill.look(false, began + MINUTE), Duration::ZERO);
        assert_eq!(standstill.look(false, began + 3 * MINUTE), 2 * MINUTE);
    }

    #[test]
    fn whatever_it_waited_for_gives_it_the_whole_time_again() {
        let (mut standstill, began) = (Standstill::default(), Instant::now());
        assert_eq!(standstill.look(false, began), Duration::ZERO);
        assert_eq!(standstill.look(true, began + 20 * MINUTE), Duration::ZERO);
        assert_eq!(standstill.look(false, began + 21 * MINUTE), Duration::ZERO);
        assert_eq!(standstill.look(false, began + 22 * MINUTE), MINUTE);
    }

    #[test]
    fn a_frontier_that_moves_begins_it_anew() {
        let (mut standstill, began) = (Standstill::default(), Instant::now());
        assert_eq!(standstill.look(false, began), Duration::ZERO);
        standstill.moved();
        assert_eq!(standstill.look(false, began + 9 * MINUTE), Duration::ZERO);
    }
}
