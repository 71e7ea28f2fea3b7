//! How much work a worker may hold, and what it does when it holds that much.
//!
//! Charged when a record is polled, refunded when its flush has committed; so whatever the backlog,
//! memory is bounded by the limit and a small overshoot. Pressure has three steps, each of which
//! costs the log's client more than the one before, and one step back: below three quarters of the
//! limit everything is open again. Each partition has a share, so that one of them cannot fill the
//! budget and make the others stand still.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::charge::Charge;
use super::offsets::Partition;

/// A refund that does not match what was charged: the books of the budget are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BudgetError {
    /// More came back than the partition holds, or the partition was forgotten.
    #[error("partition {partition} holds {held:?} and cannot give back {refund:?}")]
    OverRefund {
        /// The partition named.
        partition: Partition,
        /// What it holds.
        held: Charge,
        /// What was to be given back.
        refund: Charge,
    },
}

/// What to do about polling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pressure {
    /// Poll and drain, up to [`Budget::room`].
    Open,
    /// Stop draining, but poll one record a tick: rebalances still arrive, nothing prefetched is
    /// thrown away, and the overshoot is charged.
    Soft,
    /// Pause every partition. What was prefetched is thrown away, and resuming may cost a second.
    Hard,
}

/// The settings of a [`Budget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetLimits {
    /// From here on, on either axis, pressure is at least soft.
    pub limit: Charge,
    /// What may come on top while pressure is soft; beyond it, on either axis, it is hard.
    pub overshoot: Charge,
    /// How long pressure may stay soft before it is hard: an outage, not a slow moment.
    pub patience: Duration,
}

impl BudgetLimits {
    /// The usual limits around `limit`: 64 records (about three seconds of one record a tick) or
    /// 8 MiB of overshoot, two seconds of patience.
    #[must_use]
    pub fn around(limit: Charge) -> BudgetLimits {
        BudgetLimits {
            limit,
            overshoot: Charge {
                events: 64,
                bytes: 8 << 20,
            },
            patience: Duration::from_secs(2),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Gate {
    Open,
    /// Since when, and the most that may be held before it is hard.
    Soft {
        since: Instant,
        ceiling: Charge,
    },
    Hard,
}

/// The budget of one worker, over all partitions assigned to it.
#[derive(Debug)]
pub struct Budget {
    limits: BudgetLimits,
    held: Charge,
    by_partition: BTreeMap<Partition, Charge>,
    partitions: u64,
    gate: Gate,
}

impl Budget {
    /// An empty budget whose limit `partitions` assigned partitions share.
    #[must_use]
    pub fn new(limits: BudgetLimits, partitions: usize) -> Budget {
        let mut budget = Budget {
            limits,
            held: Charge::NONE,
            by_partition: BTreeMap::new(),
            partitions: 1,
            gate: Gate::Open,
        };
        budget.share_among(partitions);
        budget
    }

    /// Changes by how many partitions the limit is shared; to be called when the assignment changes.
    pub fn share_among(&mut self, partitions: usize) {
        self.partitions = (partitions as u64).max(1);
    }

    /// Adds to what `partition` holds. Never refused: a record that was polled is there.
    pub fn charge(&mut self, partition: Partition, charge: Charge) {
        *self.by_partition.entry(partition).or_default() += charge;
        self.held += charge;
    }

    /// Gives back what `partition` holds no longer.
    ///
    /// # Errors
    /// [`BudgetError::OverRefund`] when it does not hold that much; the budget is then unchanged.
    pub fn refund(&mut self, partition: Partition, refund: Charge) -> Result<(), BudgetError> {
        let held = self.held_by(partition);
        let left = held.checked_sub(refund).ok_or(BudgetError::OverRefund {
            partition,
            held,
            refund,
        })?;
        if left == Charge::NONE {
            self.by_partition.remove(&partition);
        } else {
            self.by_partition.insert(partition, left);
        }
        self.held = self.held.saturating_sub(refund);
        Ok(())
    }

    /// Gives back all that `partition` holds, because its state was dropped. Returns how much.
    pub fn forget(&mut self, partition: Partition) -> Charge {
        let held = self.by_partition.remove(&partition).unwrap_or_default();
        self.held = self.held.saturating_sub(held);
        held
    }

    /// What is held for all partitions.
    #[must_use]
    pub fn held(&self) -> Charge {
        self.held
    }

    /// What is held for `partition`.
    #[must_use]
    pub fn held_by(&self, partition: Partition) -> Charge {
        self.by_partition
            .get(&partition)
            .copied()
            .unwrap_or_default()
    }

    /// Whether half of the limit is held, on either axis: what can wait elsewhere should.
    #[must_use]
    pub fn is_half_full(&self) -> bool {
        self.held.reaches(self.limits.limit.part(1, 2))
    }

    /// What may still be drained before pressure is soft.
    #[must_use]
    pub fn room(&self) -> Charge {
        self.limits.limit.saturating_sub(self.held)
    }

    /// The pressure at `now`, to be asked once a round. It becomes soft at the limit; hard when it
    /// stays soft past the patience or overshoots; open again below three quarters of the limit.
    pub fn pressure(&mut self, now: Instant) -> Pressure {
        let full = self.held.reaches(self.limits.limit);
        let relieved = !self.held.exceeds(self.limits.limit.part(3, 4));
        self.gate = match self.gate {
            Gate::Open if full => Gate::Soft {
                since: now,
                ceiling: self.held + self.limits.overshoot,
            },
            Gate::Soft { .. } | Gate::Hard if relieved && !full => Gate::Open,
            Gate::Soft { since, ceiling }
                if self.held.exceeds(ceiling)
                    || now.saturating_duration_since(since) >= self.limits.patience =>
            {
                Gate::Hard
            }
            unchanged => unchanged,
        };
        match self.gate {
            Gate::Open => Pressure::Open,
            Gate::Soft { .. } => Pressure::Soft,
            Gate::Hard => Pressure::Hard,
        }
    }

    /// Whether `partition` alone should be paused: it holds more than two even shares of the limit,
    /// and the budget is at least half full, so that others may need what it takes. Never for one that
    /// shares with nobody: soft pressure holds it back at less cost than a pause.
    #[must_use]
    pub fn over_share(&self, partition: Partition) -> bool {
        self.partitions > 1
            && self.held.reaches(self.limits.limit.part(1, 2))
            && self.held_by(partition).exceeds(self.over_share_limit())
    }

    /// Whether a partition that was over its share may go on: it is down to half of the share, or
    /// the budget is down to a quarter. Never true together with [`Budget::over_share`].
    #[must_use]
    pub fn below_share_floor(&self, partition: Partition) -> bool {
        let nearly_empty = !self.held.reaches(self.limits.limit.part(1, 4));
        nearly_empty || !self.held_by(partition).exceeds(self.share().part(1, 2))
    }

    fn share(&self) -> Charge {
        self.limits.limit.part(1, self.partitions)
    }

    /// Two even shares, at most three quarters of the limit. At one share, partitions that are drained side
    /// by side would all be over it together and all be paused, for up to a second each time.
    fn over_share_limit(&self) -> Charge {
        let (shares, most) = (
            self.limits.limit.part(2, self.partitions),
            self.limits.limit.part(3, 4),
        );
        Charge {
            events: shares.events.min(most.events),
            bytes: shares.bytes.min(most.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test states what must hold")]

    use super::*;

    const P0: Partition = Partition(0);
    const P1: Partition = Partition(1);

    fn events(events: u64) -> Charge {
        Charge { events, bytes: 0 }
    }

    fn budget_of_100_events(partitions: usize) -> Budget {
        Budget::new(
            BudgetLimits::around(Charge {
                events: 100,
                bytes: 1 << 20,
            }),
            partitions,
        )
    }

    #[test]
    fn pressure_is_soft_at_the_limit_and_open_again_below_three_quarters() {
        let mut budget = budget_of_100_events(1);
        let now = Instant::now();
        budget.charge(P0, events(99));
        assert_eq!(budget.pressure(now), Pressure::Open);
        budget.charge(P0, events(1));
        assert_eq!(budget.pressure(now), Pressure::Soft);
        budget.refund(P0, events(24)).unwrap();
        assert_eq!(budget.pressure(now), Pressure::Soft);
        budget.refund(P0, events(1)).unwrap();
        assert_eq!(budget.pressure(now), Pressure::Open);
    }

    #[test]
    fn bytes_alone_make_pressure() {
        let mut budget = budget_of_100_events(1);
        budget.charge(P0, Charge::event(1 << 20));
        assert_eq!(budget.pressure(Instant::now()), Pressure::Soft);
    }

    #[test]
    fn soft_pressure_that_outlasts_the_patience_is_hard_until_relieved() {
        let mut budget = budget_of_100_events(1);
        let start = Instant::now();
        budget.charge(P0, events(100));
        assert_eq!(budget.pressure(start), Pressure::Soft);
        assert_eq!(
            budget.pressure(start + Duration::from_millis(1_999)),
            Pressure::Soft
        );
        assert_eq!(
            budget.pressure(start + Duration::from_secs(2)),
            Pressure::Hard
        );
        budget.refund(P0, events(20)).unwrap();
        assert_eq!(
            budget.pressure(start + Duration::from_secs(3)),
            Pressure::Hard
        );
        budget.refund(P0, events(5)).unwrap();
        assert_eq!(
            budget.pressure(start + Duration::from_secs(3)),
            Pressure::Open
        );
    }

    #[test]
    fn overshoot_counts_from_where_pressure_became_soft() {
        let mut budget = budget_of_100_events(1);
        let now = Instant::now();
        budget.charge(P0, events(400));
        assert_eq!(
            budget.pressure(now),
            Pressure::Soft,
            "a last full drain is no overshoot"
        );
        budget.charge(P0, events(64));
        assert_eq!(budget.pressure(now), Pressure::Soft);
        budget.charge(P0, events(1));
        assert_eq!(budget.pressure(now), Pressure::Hard);
    }

    #[test]
    fn only_a_partition_above_two_even_shares_of_a_busy_budget_is_over() {
        let mut budget = budget_of_100_events(4);
        budget.charge(P0, events(49));
        assert!(!budget.over_share(P0), "nobody else needs the room");
        budget.charge(P0, events(11));
        budget.charge(P1, events(10));
        assert!(budget.over_share(P0));
        assert!(!budget.over_share(P1));
        budget.refund(P0, events(40)).unwrap();
        assert!(!budget.over_share(P0));
        assert!(
            !budget.below_share_floor(P0),
            "paused until half of the share"
        );
        budget.refund(P0, events(8)).unwrap();
        assert!(budget.below_share_floor(P0));
    }

    #[test]
    fn a_partition_that_shares_with_nobody_is_never_over() {
        let mut budget = budget_of_100_events(1);
        budget.charge(P0, events(101));
        assert!(!budget.over_share(P0));
        budget.share_among(2);
        assert!(budget.over_share(P0));
    }

    #[test]
    fn what_is_not_held_cannot_be_given_back() {
        let mut budget = budget_of_100_events(1);
        budget.charge(P0, Charge::event(10));
        let refused = budget.refund(P0, Charge::event(11));
        assert!(matches!(
            refused,
            Err(BudgetError::OverRefund { partition: P0, .. })
        ));
        assert_eq!(budget.forget(P0), Charge::event(10));
        assert!(
            budget.refund(P0, Charge::event(10)).is_err(),
            "it was forgotten"
        );
        assert_eq!(budget.held(), Charge::NONE);
    }
}
