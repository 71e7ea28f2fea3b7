//! A ledger that cannot be wrong, for the real one to be held against: it remembers every single
//! offset and finds each answer by looking at all of them.

use std::collections::BTreeMap;

use super::{Counts, LedgerError, Offset, Outcome};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Gap,
    Open { timestamp_ms: i64 },
    Settled { timestamp_ms: i64, outcome: Outcome },
}

/// Every offset between the first position and the next one due, and what became of it.
#[derive(Clone, Debug)]
pub struct Model {
    pub first: i64,
    pub frontier: i64,
    pub expected: i64,
    offsets: BTreeMap<i64, Fate>,
    pub booked: Counts,
}

/// What the frontier does when it moves to the first open record.
#[derive(Debug, PartialEq)]
pub struct Move {
    pub next_offset: Offset,
    pub counts: Counts,
    pub timestamp_ms: Option<i64>,
}

impl Model {
    pub fn new(first: i64) -> Model {
        Model {
            first,
            frontier: first,
            expected: first,
            offsets: BTreeMap::new(),
            booked: Counts::NONE,
        }
    }

    pub fn receive(&mut self, offset: i64, timestamp_ms: i64) {
        self.skip_to(offset);
        self.offsets.insert(offset, Fate::Open { timestamp_ms });
        self.expected = offset + 1;
    }

    pub fn skip_to(&mut self, end: i64) {
        for offset in self.expected..end {
            self.offsets.insert(offset, Fate::Gap);
        }
        self.expected = self.expected.max(end);
    }

    pub fn settle(&mut self, offset: i64, outcome: Outcome) -> Result<(), LedgerError> {
        let at = Offset(offset);
        if offset < self.frontier {
            return Err(LedgerError::BelowFrontier {
                offset: at,
                frontier: Offset(self.frontier),
            });
        }
        match self.offsets.get_mut(&offset) {
            Some(fate @ Fate::Open { .. }) => {
                let Fate::Open { timestamp_ms } = *fate else {
                    unreachable!()
                };
                *fate = Fate::Settled {
                    timestamp_ms,
                    outcome,
                };
                Ok(())
            }
            Some(Fate::Settled { outcome, .. }) => Err(LedgerError::AlreadySettled {
                offset: at,
                outcome: *outcome,
            }),
            Some(Fate::Gap) | None => Err(LedgerError::NotOpen { offset: at }),
        }
    }

    pub fn first_open(&self) -> Option<(i64, i64)> {
        self.offsets.iter().find_map(|(&offset, fate)| match fate {
            Fate::Open { timestamp_ms } => Some((offset, *timestamp_ms)),
            _ => None,
        })
    }

    pub fn open(&self) -> Vec<i64> {
        let is_open = |fate: &Fate| matches!(fate, Fate::Open { .. });
        self.offsets
            .iter()
            .filter(|(_, fate)| is_open(fate))
            .map(|(&offset, _)| offset)
            .collect()
    }

    pub fn possible_move(&self) -> Move {
        let next = self
            .first_open()
            .map_or(self.expected, |(offset, _)| offset);
        let mut counts = Counts::NONE;
        for (_, fate) in self.offsets.range(self.frontier..next) {
            match fate {
                Fate::Gap => counts.gaps += 1,
                Fate::Settled { outcome, .. } => counts.count(*outcome),
                Fate::Open { .. } => unreachable!("it ends at the first open record"),
            }
        }
        Move {
            next_offset: Offset(next),
            counts,
            timestamp_ms: self.timestamp_below(next),
        }
    }

    pub fn timestamp_below(&self, end: i64) -> Option<i64> {
        self.offsets
            .range(..end)
            .rev()
            .find_map(|(_, fate)| match fate {
                Fate::Settled { timestamp_ms, .. } => Some(*timestamp_ms),
                _ => None,
            })
    }

    pub fn high(&self) -> Option<Offset> {
        let settled = |fate: &Fate| matches!(fate, Fate::Settled { .. });
        self.offsets
            .iter()
            .rev()
            .find(|(_, fate)| settled(fate))
            .map(|(&offset, _)| Offset(offset))
    }

    pub fn records_from_frontier(&self) -> u64 {
        self.offsets
            .range(self.frontier..)
            .filter(|(_, fate)| **fate != Fate::Gap)
            .count() as u64
    }
}
