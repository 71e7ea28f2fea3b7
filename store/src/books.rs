//! The books of a partition: how each offset ended, and the sums that must balance.
//!
//! `next_offset − first_offset = results + duplicates + dead_letters + parked + gaps + lost`: the left
//! side comes from offsets, the right side from outcomes, so that neither can vouch for itself.

use std::ops::{Add, AddAssign};

/// How the record at an offset ended, for the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Its task has a result of its own.
    Result,
    /// Its task is another one's again.
    Duplicate,
    /// It is a dead letter.
    DeadLetter,
    /// It waits in the table of parked tasks.
    Parked,
}

/// How many offsets ended in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Tasks with a result of their own.
    pub results: i64,
    /// Repeats of a task that was there already.
    pub duplicates: i64,
    /// Records set aside with a reason.
    pub dead_letters: i64,
    /// Tasks that wait in Postgres.
    pub parked: i64,
    /// Offsets without a record: control records, compaction.
    pub gaps: i64,
    /// Offsets skipped by hand, with a reason.
    pub lost: i64,
}

impl Counts {
    /// Nothing booked.
    pub const NONE: Self = Self {
        results: 0,
        duplicates: 0,
        dead_letters: 0,
        parked: 0,
        gaps: 0,
        lost: 0,
    };

    /// All of them together.
    #[must_use]
    pub const fn total(&self) -> i64 {
        self.results + self.duplicates + self.dead_letters + self.parked + self.gaps + self.lost
    }

    /// One more offset that ended so.
    pub fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Result => self.results += 1,
            Outcome::Duplicate => self.duplicates += 1,
            Outcome::DeadLetter => self.dead_letters += 1,
            Outcome::Parked => self.parked += 1,
        }
    }
}

impl Counts {
    /// A task moves from one outcome to another: the sum stays.
    pub fn shift(&mut self, from: Outcome, to: Outcome) {
        let mut less = Self::NONE;
        less.count(from);
        self.results -= less.results;
        self.duplicates -= less.duplicates;
        self.dead_letters -= less.dead_letters;
        self.parked -= less.parked;
        self.count(to);
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
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
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl FromIterator<Outcome> for Counts {
    fn from_iter<I: IntoIterator<Item = Outcome>>(outcomes: I) -> Self {
        let mut counts = Self::NONE;
        outcomes
            .into_iter()
            .for_each(|outcome| counts.count(outcome));
        counts
    }
}
