//! Where the frontier of a ledger can go, and moving it there.
//!
//! Guarantees to the books: what a plan says, before its transaction is sent, is what the frontier passes once
//! that transaction is durable; whatever is received or settled meanwhile changes neither the position nor the
//! counts that were written. The frontier never moves back, nor over a record that has not ended, and each
//! offset that it passes is counted once.

use std::iter::Peekable;

use super::super::counts::Counts;
use super::super::misuse::LedgerError;
use super::super::offsets::Offset;
use super::{Ledger, State};

/// Where the frontier will be once some offsets are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The position to write.
    pub next_offset: Offset,
    /// The gaps and the offsets settled earlier that the frontier will pass. Those being settled
    /// are not in it: the flush counts them by the outcome it finds.
    pub counted: Counts,
    /// How many of the offsets being settled, from the first, the frontier will pass.
    pub boundary: usize,
    /// The highest offset settled by then.
    pub high: Option<Offset>,
    /// The log's timestamp of the last record below `next_offset`, in milliseconds since the epoch.
    pub timestamp_ms: Option<i64>,
}

/// What the frontier passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advanced {
    /// Where it is now.
    pub next_offset: Offset,
    /// How the offsets that it passed ended. Their total is the distance it moved.
    pub counts: Counts,
}

impl Ledger {
    /// Where the frontier will be when the offsets in `settling` are settled too, so that the
    /// transaction which settles them can write it. Changes nothing. With no offsets, it is how far
    /// the frontier could go already.
    ///
    /// Always `frontier + counted.total() + boundary = next_offset`.
    ///
    /// # Errors
    /// [`LedgerError::Unsorted`] unless `settling` ascends; otherwise those of [`Ledger::settle`].
    pub fn plan(&self, settling: &[Offset]) -> Result<Plan, LedgerError> {
        for pair in settling.windows(2) {
            if let [after, found] = *pair
                && found <= after
            {
                return Err(LedgerError::Unsorted { after, found });
            }
        }
        let mut counted = Counts::NONE;
        let mut next_offset = self.expected;
        let mut timestamp_ms = self.frontier_timestamp_ms;
        let mut passed = 0_u64;
        let mut rest = settling.iter().copied().peekable();
        for record in &self.records {
            match (record.state, take(&mut rest, record.offset)) {
                (State::Open, true) => {}
                (State::Open, false) => {
                    next_offset = record.offset;
                    break;
                }
                (State::Settled(outcome), false) => counted.count(outcome),
                (State::Settled(outcome), true) => {
                    return Err(LedgerError::AlreadySettled {
                        offset: record.offset,
                        outcome,
                    });
                }
            }
            passed += 1;
            timestamp_ms = Some(record.timestamp_ms);
        }
        let boundary = settling.len() - rest.len();
        let mut cursor = 0;
        for offset in rest {
            cursor = self.find_open(offset, cursor)? + 1;
        }
        counted.gaps = signed(self.frontier.distance(next_offset) - passed);
        let high = self.high.max(settling.last().copied());
        Ok(Plan {
            next_offset,
            counted,
            boundary,
            high,
            timestamp_ms,
        })
    }

    /// Moves the frontier to `next_offset`, which a flush has made durable: exactly there, whatever
    /// else was received or settled while that flush was in the air.
    ///
    /// # Errors
    /// [`LedgerError::BelowFrontier`] when that is backwards, [`LedgerError::NotOpen`] when it is
    /// beyond what was received, [`LedgerError::Unsettled`] when a record on the way has not ended.
    /// The ledger is then unchanged.
    pub fn advance_to(&mut self, next_offset: Offset) -> Result<Advanced, LedgerError> {
        if next_offset < self.frontier {
            let frontier = self.frontier;
            return Err(LedgerError::BelowFrontier {
                offset: next_offset,
                frontier,
            });
        }
        if next_offset > self.expected {
            return Err(LedgerError::NotOpen {
                offset: next_offset,
            });
        }
        let mut counts = Counts::NONE;
        let mut timestamp_ms = self.frontier_timestamp_ms;
        let mut passed = 0;
        for record in self
            .records
            .iter()
            .take_while(|record| record.offset < next_offset)
        {
            let State::Settled(outcome) = record.state else {
                return Err(LedgerError::Unsettled {
                    offset: record.offset,
                });
            };
            counts.count(outcome);
            timestamp_ms = Some(record.timestamp_ms);
            passed += 1;
        }
        counts.gaps = signed(self.frontier.distance(next_offset)) - counts.total();
        self.records.drain(..passed);
        if self.records.len() < Self::KEPT_CAPACITY / 4 {
            self.records.shrink_to(Self::KEPT_CAPACITY);
        }
        self.cursor = self.cursor.saturating_sub(passed);
        self.frontier = next_offset;
        self.frontier_timestamp_ms = timestamp_ms;
        Ok(Advanced {
            next_offset,
            counts,
        })
    }

    /// Moves the frontier as far as it can go: over settled records and gaps, up to the first
    /// record that has not ended, or behind everything received.
    pub fn advance(&mut self) -> Advanced {
        let unsettled = self
            .oldest_pending()
            .map_or(self.expected, |pending| pending.offset);
        self.advance_to(unsettled).unwrap_or(Advanced {
            next_offset: self.frontier,
            counts: Counts::NONE,
        })
    }
}

/// Takes `offset` off the front of `offsets` if it is there.
fn take(offsets: &mut Peekable<impl Iterator<Item = Offset>>, offset: Offset) -> bool {
    offsets.next_if_eq(&offset).is_some()
}

/// A distance between two offsets is below 2^63, since offsets are not negative.
fn signed(distance: u64) -> i64 {
    i64::try_from(distance).unwrap_or(i64::MAX)
}
