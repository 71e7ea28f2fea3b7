//! The books of a partition: how each offset ended, and how many ended so.
//!
//! `next_offset − first_offset = results + duplicates + dead_letters + parked + gaps + lost`: each
//! offset is counted once, when the frontier passes it. Counts are signed because a later move
//! between two states (a parked task that ends) is written as −1 and +1.

use std::ops::{Add, AddAssign};

/// How the offset of a received record ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A terminal result was written for it.
    Result,
    /// An earlier task with the same identity or deduplication key already stands for it.
    Duplicate,
    /// It was set aside with a reason.
    DeadLetter,
    /// It waits in the database; its offset is settled and its task is not.
    Parked,
}

/// How many offsets ended in each way. Additive: the counts of a range are the sum of its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Offsets with a terminal result.
    pub results: i64,
    /// Offsets that an earlier task stands for.
    pub duplicates: i64,
    /// Offsets set aside as dead letters.
    pub dead_letters: i64,
    /// Offsets whose task waits in the database.
    pub parked: i64,
    /// Offsets that hold no record for a reader: control records, compaction.
    pub gaps: i64,
    /// Offsets given up by hand, with a reason. The ledger never counts one.
    pub lost: i64,
}

impl Counts {
    /// No offsets at all.
    pub const NONE: Counts = Counts {
        results: 0,
        duplicates: 0,
        dead_letters: 0,
        parked: 0,
        gaps: 0,
        lost: 0,
    };

    /// Counts one more offset that ended as `outcome`.
    pub fn count(&mut self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Result => &mut self.results,
            Outcome::Duplicate => &mut self.duplicates,
            Outcome::DeadLetter => &mut self.dead_letters,
            Outcome::Parked => &mut self.parked,
        };
        *counter += 1;
    }

    /// All offsets counted, however they ended.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.results + self.duplicates + self.dead_letters + self.parked + self.gaps + self.lost
    }
}

impl Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        Counts {
            results: self.results + other.results,
            duplicates: self.duplicates + other.duplicates,
            dead_letters: self.dead_letters + other.dead_letters,
            parked: self.parked + other.parked,
            gaps: self.gaps + other.gaps,
            lost: self.lost + other.lost,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        *self = *self + other;
    }
}

impl FromIterator<Outcome> for Counts {
    fn from_iter<I: IntoIterator<Item = Outcome>>(outcomes: I) -> Counts {
        let mut counts = Counts::NONE;
        for outcome in outcomes {
            counts.count(outcome);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_end_is_in_the_total() {
        let by_outcome: Counts = [
            Outcome::Result,
            Outcome::Duplicate,
            Outcome::DeadLetter,
            Outcome::Parked,
        ]
        .into_iter()
        .collect();
        let by_hand = Counts {
            gaps: 10,
            lost: 100,
            ..Counts::NONE
        };
        assert_eq!((by_outcome + by_hand).total(), 114);
    }
}
