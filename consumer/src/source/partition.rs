//! One partition while it runs: its ledger, the batch that fills, and the flush that is in the air.
//!
//! Lives from a granted claim to the next loss of it, and is dropped whole: nothing of it outlives its
//! claim. At most one flush of a partition is in the air, so `seq` is always known.

use std::collections::VecDeque;

use millrace_store::position::{Fence, Progress};
use millrace_store::{Advance, Ending, Outcome, Settling, Share};
use millrace_telemetry::PartitionMetrics;
use uuid::Uuid;

use crate::engine::{Charge, LeaderEpoch, Ledger, LedgerError, Offset};

/// Most records of one partition that may lie beyond its frontier.
const SPAN_CAP: u64 = 1_000_000;

/// A partition that is ours and is read.
#[derive(Debug)]
pub struct Running {
    /// The claim and the seq that the next flush expects.
    pub fence: Fence,
    /// What was received and what is settled.
    pub ledger: Ledger,
    /// Settled by the handler, waiting for a flush.
    batch: VecDeque<Settling>,
    in_air: Option<InAir>,
    /// Rows at or below this may be there already.
    high_offset: i64,
    /// The log's end was met, and no record came since.
    pub at_end: bool,
    /// Paused because it holds more than its share of the budget.
    pub held_back: bool,
    /// A record was dropped without being opened: the client's position is ahead of the ledger for good.
    pub skipped_some: bool,
    /// Wide gaps up to this offset have been vouched for by the brokers.
    pub vouched_gap: Option<Offset>,
    epoch: Option<LeaderEpoch>,
    /// Its series.
    pub metrics: PartitionMetrics,
}

/// A flush that was sent and not answered.
#[derive(Debug)]
struct InAir {
    offsets: Vec<Offset>,
    next_offset: Offset,
    charge: Charge,
    gaps: i64,
}

/// What a landed flush means for the rest of the worker.
#[derive(Debug, Clone, Copy)]
pub struct Settled {
    /// The position that is durable now.
    pub next_offset: Offset,
    /// What may be refunded.
    pub charge: Charge,
    /// Offsets without a record that it passed.
    pub gaps: i64,
}

impl Running {
    /// Starts at the claimed position.
    #[must_use]
    pub fn new(progress: &Progress, claim: Uuid, metrics: PartitionMetrics) -> Self {
        metrics.position(progress.next_offset);
        Self {
            fence: Fence {
                claim,
                seq: progress.seq,
            },
            ledger: Ledger::new(Offset(progress.next_offset), SPAN_CAP),
            batch: VecDeque::new(),
            in_air: None,
            high_offset: progress.high_offset,
            at_end: false,
            held_back: false,
            skipped_some: false,
            vouched_gap: None,
            epoch: progress.leader_epoch.and_then(LeaderEpoch::known),
            metrics,
        }
    }

    /// Takes in a record and how it ended. Returns the bytes that are held for it.
    ///
    /// # Errors
    /// When the offset does not follow: the log and the ledger disagree.
    pub fn take(
        &mut self,
        offset: Offset,
        timestamp_ms: i64,
        epoch: Option<LeaderEpoch>,
        value: Box<[u8]>,
        ending: Ending,
    ) -> Result<u64, LedgerError> {
        self.ledger.open(offset, timestamp_ms)?;
        let record = Settling {
            offset: offset.0,
            timestamp_ms,
            value,
            ending,
        };
        let bytes = record.held_bytes();
        self.batch.push_back(record);
        self.at_end = false;
        if epoch.is_some() {
            self.epoch = epoch;
        }
        Ok(bytes)
    }

    /// Whether a flush is in the air.
    #[must_use]
    pub const fn is_flying(&self) -> bool {
        self.in_air.is_some()
    }

    /// Whether there is something to write: records, or a position that moved over gaps alone.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.in_air.is_none()
            && (!self.batch.is_empty() || self.ledger.expected() > self.ledger.frontier())
    }

    /// Whether all that was received is durable.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.in_air.is_none()
            && self.batch.is_empty()
            && self.ledger.expected() == self.ledger.frontier()
    }

    /// Cuts the next share off the batch, at most so many records and bytes, and notes it as in the air.
    ///
    /// # Errors
    /// When the ledger does not know what the batch holds.
    pub fn cut(&mut self, partition: i32, most: Charge) -> Result<Share, LedgerError> {
        let mut charge = Charge::NONE;
        let mut count = 0;
        for record in &self.batch {
            let one = Charge::event(record.held_bytes());
            if count > 0 && (charge + one).exceeds(most) {
                break;
            }
            charge += one;
            count += 1;
        }
        let offsets: Vec<Offset> = self
            .batch
            .iter()
            .take(count)
            .map(|record| Offset(record.offset))
            .collect();
        let plan = self.ledger.plan(&offsets)?;
        let records: Vec<Settling> = self.batch.drain(..count).collect();
        let first = records.first().map_or(i64::MAX, |record| record.offset);
        self.in_air = Some(InAir {
            offsets,
            next_offset: plan.next_offset,
            charge,
            gaps: plan.counted.gaps,
        });
        Ok(Share {
            partition,
            fence: self.fence,
            records,
            advance: Advance {
                next_offset: plan.next_offset.0,
                counted: plan.counted,
                leader_epoch: self.epoch.map(|epoch| epoch.0),
                frontier_ms: plan.timestamp_ms.filter(|time| *time >= 0),
            },
            may_repeat: first < self.high_offset,
        })
    }

    /// Takes in that the flush in the air is durable.
    ///
    /// # Errors
    /// When the answer does not fit what was sent.
    pub fn land(&mut self, fence: Fence, outcomes: &[Outcome]) -> Result<Settled, LedgerError> {
        self.fence = fence;
        let Some(flown) = self.in_air.take() else {
            return Ok(Settled {
                next_offset: self.ledger.frontier(),
                charge: Charge::NONE,
                gaps: 0,
            });
        };
        self.ledger
            .settle_all(flown.offsets.iter().copied().zip(outcomes.iter().copied()))?;
        self.ledger.advance_to(flown.next_offset)?;
        self.high_offset = self.high_offset.max(flown.next_offset.0);
        self.metrics.position(flown.next_offset.0);
        Ok(Settled {
            next_offset: flown.next_offset,
            charge: flown.charge,
            gaps: flown.gaps,
        })
    }

    /// Forgets what was taken and not sent: on the way out, another reads it again.
    pub fn drop_batch(&mut self) {
        self.batch.clear();
    }

    /// The leader epoch of the last record taken.
    #[must_use]
    pub const fn epoch(&self) -> Option<LeaderEpoch> {
        self.epoch
    }
}
