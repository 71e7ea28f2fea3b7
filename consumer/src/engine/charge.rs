//! What a piece of work costs while it is held in memory.
//!
//! A plain value with two axes, because either one alone can be outgrown: a million empty events,
//! or a hundred of a megabyte each.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

/// An amount of held work, in events and in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// Events taken from the log and not yet committed.
    pub events: u64,
    /// Bytes held for them: payloads in, results out.
    pub bytes: u64,
}

impl Charge {
    /// Nothing.
    pub const NONE: Charge = Charge {
        events: 0,
        bytes: 0,
    };

    /// The charge of one event that holds `bytes`.
    #[must_use]
    pub fn event(bytes: u64) -> Charge {
        Charge { events: 1, bytes }
    }

    /// The charge of `bytes` held for an event that is charged already, such as its result.
    #[must_use]
    pub fn bytes(bytes: u64) -> Charge {
        Charge { events: 0, bytes }
    }

    /// What is left after taking `other` away; `None` when it is not all there.
    #[must_use]
    pub fn checked_sub(self, other: Charge) -> Option<Charge> {
        Some(Charge {
            events: self.events.checked_sub(other.events)?,
            bytes: self.bytes.checked_sub(other.bytes)?,
        })
    }

    /// What is left after taking `other` away, each axis at least zero.
    #[must_use]
    pub fn saturating_sub(self, other: Charge) -> Charge {
        Charge {
            events: self.events.saturating_sub(other.events),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// Whether either axis has come up to that of `limit`.
    #[must_use]
    pub fn reaches(self, limit: Charge) -> bool {
        self.events >= limit.events || self.bytes >= limit.bytes
    }

    /// Whether either axis is above that of `limit`.
    #[must_use]
    pub fn exceeds(self, limit: Charge) -> bool {
        self.events > limit.events || self.bytes > limit.bytes
    }

    /// `numerator / denominator` of each axis, rounded down, but at least one.
    pub(super) fn part(self, numerator: u64, denominator: u64) -> Charge {
        let of = |axis: u64| (axis / denominator.max(1)).saturating_mul(numerator).max(1);
        Charge {
            events: of(self.events),
            bytes: of(self.bytes),
        }
    }
}

impl Add for Charge {
    type Output = Charge;

    fn add(self, other: Charge) -> Charge {
        Charge {
            events: self.events.saturating_add(other.events),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

impl AddAssign for Charge {
    fn add_assign(&mut self, other: Charge) {
        *self = *self + other;
    }
}

impl Sum for Charge {
    fn sum<I: Iterator<Item = Charge>>(charges: I) -> Charge {
        charges.fold(Charge::NONE, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_axis_is_enough_to_reach_a_limit() {
        let limit = Charge {
            events: 10,
            bytes: 1_000,
        };
        assert!(
            Charge {
                events: 10,
                bytes: 0
            }
            .reaches(limit)
        );
        assert!(
            Charge {
                events: 0,
                bytes: 1_000
            }
            .reaches(limit)
        );
        assert!(
            !Charge {
                events: 9,
                bytes: 999
            }
            .reaches(limit)
        );
        assert!(!limit.exceeds(limit));
    }

    #[test]
    fn what_is_not_there_cannot_be_taken_away() {
        let held = Charge {
            events: 2,
            bytes: 50,
        };
        assert_eq!(
            held.checked_sub(Charge::event(50)),
            Some(Charge {
                events: 1,
                bytes: 0
            })
        );
        assert_eq!(held.checked_sub(Charge::event(51)), None);
    }
}
