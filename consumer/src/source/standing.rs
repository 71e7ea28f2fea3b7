//! What this worker knows of each partition that the group has given it.
//!
//! A partition is claimed, runs, stands still, or is on its way out. Only a running one is fetched; the
//! group knows nothing of these states, so a slow claim or a stopped partition never holds it up.

use std::collections::BTreeMap;
use std::time::Instant;

use millrace_telemetry::PartitionMetrics;

use super::claims::Ahead;
use super::partition::Running;
use super::stop::StopReason;
use crate::engine::Offset;

/// Where a partition of ours stands.
#[derive(Debug)]
pub enum Standing {
    /// A claim is under way, or will be tried again at `due`.
    Claiming {
        /// When to ask; `None` while a claim is under way.
        due: Option<Instant>,
        /// What the claim allows.
        ahead: Ahead,
        /// A position that Kafka must accept from us first, where our ownership is in doubt.
        confirm: Option<i64>,
        /// Claims in a row that failed: after one, the partition is claimed alone, so that it holds up none.
        failures: u32,
        /// The end of a wide gap that the claim's look at the log vouches for.
        vouched: Option<Offset>,
    },
    /// Claimed, assigned and read.
    Running(Box<Running>),
    /// Not fetched until somebody decides; looked at again at `due`.
    Stopped {
        /// Why.
        reason: StopReason,
        /// When to look again.
        due: Instant,
        /// Its series, with `stopped` at 1.
        metrics: PartitionMetrics,
    },
    /// Read no further: what is taken is written, then it stops for this reason.
    Halting {
        /// What is still to be written.
        running: Box<Running>,
        /// Why it stops then.
        reason: StopReason,
    },
}

impl Standing {
    /// The state of a partition that still has something to write.
    #[must_use]
    pub fn running_mut(&mut self) -> Option<&mut Running> {
        match self {
            Self::Running(running) | Self::Halting { running, .. } => Some(running),
            Self::Claiming { .. } | Self::Stopped { .. } => None,
        }
    }

    /// The state of a partition that still has something to write.
    #[must_use]
    pub fn running(&self) -> Option<&Running> {
        match self {
            Self::Running(running) | Self::Halting { running, .. } => Some(running),
            Self::Claiming { .. } | Self::Stopped { .. } => None,
        }
    }

    /// Whether the client fetches it.
    #[must_use]
    pub const fn is_fetched(&self) -> bool {
        matches!(self, Self::Running(_))
    }
}

/// Every partition that the group has given us.
#[derive(Debug, Default)]
pub struct Owned {
    /// By number.
    pub partitions: BTreeMap<i32, Standing>,
    /// The group has given us what we are to have, be it nothing; not while it is joined again.
    pub assigned: bool,
    /// Some broker is connected. Without one, nobody knows whether there is more to read.
    pub brokers_answer: bool,
    /// The group has come to rest: nothing is about to be given or taken.
    pub group_is_steady: bool,
}

impl Owned {
    /// The state of a partition that may start tasks.
    pub fn at_work(&mut self, partition: i32) -> Option<&mut Running> {
        self.partitions.get_mut(&partition)?.running_mut()
    }

    /// Those that still have something to write, by number.
    pub fn running(&self) -> impl Iterator<Item = (i32, &Running)> {
        self.partitions
            .iter()
            .filter_map(|(number, standing)| standing.running().map(|running| (*number, running)))
    }

    /// Those that still have something to write, by number.
    pub fn running_mut(&mut self) -> impl Iterator<Item = (i32, &mut Running)> {
        self.partitions.iter_mut().filter_map(|(number, standing)| {
            standing.running_mut().map(|running| (*number, running))
        })
    }

    /// Why partitions stand still.
    pub fn stops(&self) -> impl Iterator<Item = (i32, &StopReason)> {
        self.partitions
            .iter()
            .filter_map(|(number, standing)| match standing {
                Standing::Stopped { reason, .. } | Standing::Halting { reason, .. } => {
                    Some((*number, reason))
                }
                Standing::Claiming { .. } | Standing::Running(_) => None,
            })
    }
}
