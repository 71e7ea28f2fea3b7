//! What one assignment of one partition has received, what of it is settled, and the frontier.
//!
//! The frontier is the position in the books: every offset below it has been counted exactly once,
//! so `frontier − first position` equals the counts handed out, always. It passes settled records
//! and gaps, stops at the first record that is neither, and moves only by [`Ledger::advance_to`],
//! to what a flush has made durable. Records are opened in log order and settled in any order.
//! A ledger costs 24 bytes a record that is held and nothing for a gap, however wide; opening,
//! settling and passing a record are O(1) when settled in order, O(log n) when not.
//! An error means that the ledger and the log disagree: drop it, claim again, seek; never skip.

mod frontier;

use std::collections::VecDeque;

use super::counts::Outcome;
use super::misuse::LedgerError;
use super::offsets::Offset;

pub use self::frontier::{Advanced, Plan};

/// What opening a record showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Offsets skipped just before the record. A few are control records or compaction; many are
    /// for the caller to check against the log before it goes on.
    pub gap: u64,
}

/// A record that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Where it is.
    pub offset: Offset,
    /// The log's timestamp of it, in milliseconds since the epoch.
    pub timestamp_ms: i64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Open,
    Settled(Outcome),
}

#[derive(Clone, Copy, Debug)]
struct Record {
    offset: Offset,
    timestamp_ms: i64,
    state: State,
}

/// The ledger of one assignment of one partition.
#[derive(Debug)]
pub struct Ledger {
    frontier: Offset,
    expected: Offset,
    /// Received records at or above the frontier, ascending. What lies between two is a gap.
    records: VecDeque<Record>,
    pending: usize,
    high: Option<Offset>,
    frontier_timestamp_ms: Option<i64>,
    span_cap: u64,
    /// Index behind the record settled last: where the next one in order is found at once.
    cursor: usize,
}

impl Ledger {
    /// Room for records that is kept when a burst has passed.
    const KEPT_CAPACITY: usize = 32_768;

    /// A ledger that starts at `position`, the next offset to receive, and is full when it holds
    /// `span_cap` records.
    #[must_use]
    pub fn new(position: Offset, span_cap: u64) -> Ledger {
        Ledger {
            frontier: position,
            expected: position,
            records: VecDeque::new(),
            pending: 0,
            high: None,
            frontier_timestamp_ms: None,
            span_cap,
            cursor: 0,
        }
    }

    /// Takes in a received record. `timestamp_ms` is the log's own, in milliseconds since the epoch.
    ///
    /// # Errors
    /// [`LedgerError::Rewound`] when `offset` is not above everything received so far.
    pub fn open(&mut self, offset: Offset, timestamp_ms: i64) -> Result<Opened, LedgerError> {
        if offset < self.expected {
            return Err(LedgerError::Rewound {
                expected: self.expected,
                found: offset,
            });
        }
        let gap = self.expected.distance(offset);
        self.records.push_back(Record {
            offset,
            timestamp_ms,
            state: State::Open,
        });
        self.pending += 1;
        self.expected = offset.next();
        Ok(Opened { gap })
    }

    /// Takes in that the fetcher stands at `end` and has nothing below it: what was not received
    /// by now is a gap. Returns how many offsets that adds; none when `end` is not ahead.
    pub fn gap_to(&mut self, end: Offset) -> u64 {
        let gap = self.expected.distance(end);
        self.expected = self.expected.max(end);
        gap
    }

    /// Notes that the record at `offset` ended as `outcome`, and that this is durable.
    ///
    /// # Errors
    /// [`LedgerError::BelowFrontier`], [`LedgerError::NotOpen`] or [`LedgerError::AlreadySettled`];
    /// the ledger is then unchanged.
    pub fn settle(&mut self, offset: Offset, outcome: Outcome) -> Result<(), LedgerError> {
        let index = self.find_open(offset, self.cursor)?;
        if let Some(record) = self.records.get_mut(index) {
            record.state = State::Settled(outcome);
        }
        self.cursor = index + 1;
        self.pending -= 1;
        self.high = self.high.max(Some(offset));
        Ok(())
    }

    /// Changes how a settled record ended that the frontier has not passed: a parked task went on. False when
    /// there is none here; the books then have it already.
    pub fn change(&mut self, offset: Offset, outcome: Outcome) -> bool {
        let at = self
            .records
            .binary_search_by_key(&offset, |record| record.offset);
        match at.ok().and_then(|at| self.records.get_mut(at)) {
            Some(record) if matches!(record.state, State::Settled(_)) => {
                record.state = State::Settled(outcome);
                true
            }
            _ => false,
        }
    }

    /// Whether a record is open here and not settled.
    #[must_use]
    pub fn is_open(&self, offset: Offset) -> bool {
        let at = self
            .records
            .binary_search_by_key(&offset, |record| record.offset);
        at.ok()
            .and_then(|at| self.records.get(at))
            .is_some_and(|record| matches!(record.state, State::Open))
    }

    /// Settles many records, fastest in ascending order.
    ///
    /// # Errors
    /// Those of [`Ledger::settle`]; what came before the offset at fault is then settled.
    pub fn settle_all(
        &mut self,
        ended: impl IntoIterator<Item = (Offset, Outcome)>,
    ) -> Result<(), LedgerError> {
        ended
            .into_iter()
            .try_for_each(|(offset, outcome)| self.settle(offset, outcome))
    }

    /// The first offset that is not in the books: where the frontier was moved to last.
    #[must_use]
    pub fn frontier(&self) -> Offset {
        self.frontier
    }

    /// The lowest offset that can be received next.
    #[must_use]
    pub fn expected(&self) -> Offset {
        self.expected
    }

    /// How many records are open and not settled.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// The first record that has not ended: the one to park when the ledger is full. Found at once
    /// when the frontier is up to date, else behind the settled records it has still to pass.
    #[must_use]
    pub fn oldest_pending(&self) -> Option<Pending> {
        if self.pending == 0 {
            return None;
        }
        self.records
            .iter()
            .find(|record| matches!(record.state, State::Open))
            .map(|record| Pending {
                offset: record.offset,
                timestamp_ms: record.timestamp_ms,
            })
    }

    /// The log's timestamp of [`Ledger::oldest_pending`], in milliseconds since the epoch.
    #[must_use]
    pub fn oldest_pending_timestamp_ms(&self) -> Option<i64> {
        self.oldest_pending().map(|pending| pending.timestamp_ms)
    }

    /// The log's timestamp of the last record that the frontier passed, in milliseconds since the
    /// epoch; `None` until it has passed one.
    #[must_use]
    pub fn frontier_timestamp_ms(&self) -> Option<i64> {
        self.frontier_timestamp_ms
    }

    /// The highest offset that was settled, passed by the frontier or not.
    #[must_use]
    pub fn high(&self) -> Option<Offset> {
        self.high
    }

    /// How many records a restart at the frontier would read again: those held here. Gaps are not
    /// among them.
    #[must_use]
    pub fn span(&self) -> u64 {
        self.records.len() as u64
    }

    /// Whether the span has come up to its cap: take no more until the frontier moves.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.span() >= self.span_cap
    }

    /// The index of the open record at `offset`, looked for first at `hint` and then where it would
    /// be if the log had no gaps.
    fn find_open(&self, offset: Offset, hint: usize) -> Result<usize, LedgerError> {
        if offset < self.frontier {
            return Err(LedgerError::BelowFrontier {
                offset,
                frontier: self.frontier,
            });
        }
        let holds = |index: usize| self.records.get(index).is_some_and(|r| r.offset == offset);
        let dense = || {
            let front = self.records.front()?.offset;
            usize::try_from(front.distance(offset))
                .ok()
                .filter(|&index| holds(index))
        };
        let found = (holds(hint).then_some(hint)).or_else(dense).or_else(|| {
            self.records
                .binary_search_by_key(&offset, |record| record.offset)
                .ok()
        });
        let index = found.ok_or(LedgerError::NotOpen { offset })?;
        match self.records.get(index).map(|record| record.state) {
            Some(State::Open) => Ok(index),
            Some(State::Settled(outcome)) => Err(LedgerError::AlreadySettled { offset, outcome }),
            None => Err(LedgerError::NotOpen { offset }),
        }
    }
}
