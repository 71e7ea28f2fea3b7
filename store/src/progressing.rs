//! A share on its way: what of it has landed, what the database refused, and how it is cut.
//!
//! A flush normally goes as one transaction. When a row is at fault, or one partition holds up the others,
//! it goes on one partition at a time, in parts that halve with every failure and grow with every success.

use std::collections::HashMap;

use crate::books::Counts;
use crate::fence::FenceLoss;
use crate::flush::{Landed, Part, PartEnd, Refusal};
use crate::position::Fence;
use crate::rows::{DeadLetter, Ending, Reason, Share};
use crate::trouble::Trouble;
use crate::writer::{End, ShareEnd};

/// A share that has not ended yet, or has.
pub(crate) struct Progressing<'a> {
    share: &'a Share,
    fence: Fence,
    landed: Landed,
    /// Outcomes that landed and that the position has not passed yet.
    earlier: Counts,
    refused: HashMap<(Option<i32>, i64), Refusal>,
    end: Option<FenceLoss>,
    complete: bool,
}

impl<'a> Progressing<'a> {
    pub(crate) fn new(share: &'a Share) -> Self {
        Self {
            share,
            fence: share.fence,
            landed: Landed::default(),
            earlier: Counts::default(),
            refused: HashMap::new(),
            end: None,
            complete: false,
        }
    }

    const fn is_open(&self) -> bool {
        self.end.is_none() && !self.complete
    }

    /// The next part, of at most `size` records; the last one takes the position along.
    pub(crate) fn part(&self, size: usize) -> Part<'_> {
        let done = self.landed.outcomes.len();
        let rest = self.share.records.get(done..).unwrap_or_default();
        let records = rest.get(..size.min(rest.len())).unwrap_or_default();
        Part {
            partition: self.share.partition,
            fence: self.fence,
            records,
            refused: &self.refused,
            advance: (records.len() == rest.len()).then_some(self.share.advance),
            next_offset: self.share.advance.next_offset,
            earlier: self.earlier,
        }
    }

    pub(crate) fn take_in(&mut self, end: PartEnd) {
        match end {
            PartEnd::Lost(loss) => self.end = Some(loss),
            PartEnd::Landed(landed) => {
                self.earlier += landed.passed;
                self.landed.outcomes.extend(landed.outcomes);
                self.landed.submitted.extend(landed.submitted);
                self.landed.reasons.extend(landed.reasons);
                self.fence.seq += 1;
                self.complete = self.landed.outcomes.len() == self.share.records.len();
            }
        }
    }

    /// Makes a dead letter of a record that the database refuses; when the letter is refused, too, it goes
    /// without its failed result. False when that was tried before: then only waiting is left.
    pub(crate) fn refuse(&mut self, name: (Option<i32>, i64), trouble: &Trouble) -> bool {
        tracing::warn!(partition = self.share.partition, offset = name.1, error = %trouble, "the database refuses this record: dead letter");
        if let Some(refusal) = self.refused.get_mut(&name) {
            return std::mem::take(&mut refusal.with_failed_result);
        }
        let record = self
            .share
            .records
            .iter()
            .find(|record| record.name() == name);
        let refusal = match record.map(|record| &record.ending) {
            Some(Ending::Dead(letter)) => Refusal {
                letter: DeadLetter::clone(letter),
                with_failed_result: false,
            },
            _ => Refusal {
                letter: DeadLetter::about_event(Reason::RowRefused, trouble.to_string()),
                with_failed_result: true,
            },
        };
        self.refused.insert(name, refusal);
        true
    }

    pub(crate) fn into_end(self) -> ShareEnd {
        let end = match self.end {
            Some(loss) => End::Lost(loss),
            None => End::Landed {
                fence: self.fence,
                outcomes: self.landed.outcomes,
                submitted: self.landed.submitted,
                reasons: self.landed.reasons,
            },
        };
        ShareEnd {
            partition: self.share.partition,
            claim: self.share.fence.claim,
            end,
        }
    }
}

/// How a flush is cut into transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// All partitions in one.
    Together,
    /// One partition at a time, at most so many records.
    Alone(usize),
}

impl Cut {
    pub(crate) const fn size(self) -> usize {
        match self {
            Self::Together => usize::MAX,
            Self::Alone(size) => size,
        }
    }

    /// After a success the parts grow again.
    pub(crate) const fn grown(self) -> Self {
        match self {
            Self::Together => Self::Together,
            Self::Alone(size) => Self::Alone(size.saturating_mul(2)),
        }
    }

    /// The next smaller cut after these parts failed by a row; `None` when there is none.
    pub(crate) fn smaller(parts: &[Part<'_>]) -> Option<Self> {
        match parts {
            [] => None,
            [part] if part.records.len() > 1 => Some(Self::Alone(part.records.len() / 2)),
            [_] => None,
            _ => Some(Self::Alone(usize::MAX)),
        }
    }
}

/// Indices of the shares in the next attempt; `None` when all have ended. `turn` moves on with each failure,
/// so that a partition that fails alone holds up none of the others.
pub(crate) fn choose(shares: &[Progressing<'_>], cut: Cut, turn: usize) -> Option<Vec<usize>> {
    let open: Vec<usize> = shares
        .iter()
        .enumerate()
        .filter(|(_, share)| share.is_open())
        .map(|(index, _)| index)
        .collect();
    match cut {
        Cut::Together => (!open.is_empty()).then_some(open),
        Cut::Alone(_) => {
            let place = turn.checked_rem(open.len())?;
            open.get(place).map(|index| vec![*index])
        }
    }
}

/// The name of the only record in the attempt, if there is only one.
pub(crate) fn single_record(parts: &[Part<'_>]) -> Option<(Option<i32>, i64)> {
    match parts {
        [part] => match part.records {
            [record] => Some(record.name()),
            _ => None,
        },
        _ => None,
    }
}
