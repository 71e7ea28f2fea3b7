//! Partitions that are to stand still: read no further, and stopped until somebody decides.
//!
//! A partition whose log is in order writes what was taken before it stands still; one whose log may be
//! another stops at once and writes nothing. Guarantees to operators that each is shown with its reason, and
//! is said once as long as that stays the same. It stays ours, and is claimed again after a while.

use std::time::Instant;

use millrace_telemetry::ClaimResult;

use super::claiming::LOOK_AGAIN;
use super::owner::Owner;
use super::standing::Standing;
use super::stop::StopReason;
use crate::engine::Partition;
use crate::handlers::CancelReason;

impl Owner {
    pub(super) fn stop_partition(&mut self, partition: i32, reason: StopReason) {
        let due = Instant::now() + LOOK_AGAIN;
        if let Some(Standing::Stopped {
            reason: before,
            due: next,
            ..
        }) = self.owned.partitions.get_mut(&partition)
            && *before == reason
        {
            *next = due;
            return;
        }
        self.gauges.database.claim(ClaimResult::Stopped);
        tracing::error!(partition, %reason, "the partition stands still");
        let metrics = self.gauges.consumer.partition(partition);
        metrics.stopped(true);
        self.owned.partitions.insert(
            partition,
            Standing::Stopped {
                reason,
                due,
                metrics,
            },
        );
    }

    /// Reads no further: what was taken is written, then the partition stands still.
    pub(super) fn halt(&mut self, partition: i32, reason: StopReason) {
        self.unfetch(&[partition]);
        match self.owned.partitions.remove(&partition) {
            Some(Standing::Running(running)) => {
                tracing::error!(partition, %reason, "the partition is read no further");
                self.owned
                    .partitions
                    .insert(partition, Standing::Halting { running, reason });
                self.finish_halting();
            }
            Some(other) => {
                self.owned.partitions.insert(partition, other);
            }
            None => {}
        }
    }

    /// Stops at once, without writing what was taken: it may be another log's.
    pub(super) fn stop_dead(&mut self, partition: i32, reason: StopReason) {
        self.unfetch(&[partition]);
        self.budget.forget(Partition(partition));
        self.stop_partition(partition, reason);
        self.stop_strays(CancelReason::PartitionLost);
    }

    /// Partitions that were to be read no further and have everything written stand still now.
    pub(super) fn finish_halting(&mut self) {
        let done: Vec<(i32, StopReason)> = self
            .owned
            .partitions
            .iter()
            .filter_map(|(partition, standing)| match standing {
                Standing::Halting { running, reason } if running.is_idle() => {
                    Some((*partition, reason.clone()))
                }
                _ => None,
            })
            .collect();
        for (partition, reason) in done {
            self.owned.partitions.remove(&partition);
            self.budget.forget(Partition(partition));
            self.stop_partition(partition, reason);
        }
    }
}
