//! The numbers that Kafka gives a record: which partition, where in it, under which leader.
//!
//! They are types so that none of them can be passed for another. A position is always written as
//! the *next* offset, the first one not yet dealt with; never as the last one done.

use std::fmt;

/// A place in the log of one partition. As a position, it names the next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl Offset {
    /// The offset behind this one.
    #[must_use]
    pub fn next(self) -> Offset {
        Offset(self.0.saturating_add(1))
    }

    /// How many offsets lie in `self..later`; none when `later` is not later.
    #[must_use]
    pub fn distance(self, later: Offset) -> u64 {
        if later > self {
            later.0.abs_diff(self.0)
        } else {
            0
        }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a partition within its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub i32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The leader epoch under which a record was appended (KIP-101).
///
/// Kept with a position, it lets the broker notice that the log was truncated below it (KIP-320).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(pub i32);

impl LeaderEpoch {
    /// The epoch for Kafka's own number, in which a negative one means "not known".
    #[must_use]
    pub fn known(raw: i32) -> Option<LeaderEpoch> {
        (raw >= 0).then_some(LeaderEpoch(raw))
    }
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_is_counted_forwards_only() {
        assert_eq!(Offset(5).distance(Offset(9)), 4);
        assert_eq!(Offset(9).distance(Offset(5)), 0);
        assert_eq!(Offset(i64::MIN).distance(Offset(i64::MAX)), u64::MAX);
    }

    #[test]
    fn a_negative_leader_epoch_is_not_known() {
        assert_eq!(LeaderEpoch::known(-1), None);
        assert_eq!(LeaderEpoch::known(0), Some(LeaderEpoch(0)));
    }
}
