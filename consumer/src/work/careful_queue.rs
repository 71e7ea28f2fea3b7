//! Whose turn it is among tasks that may be killing their worker: one at a time in the whole worker.
//!
//! What may run at all, and when a task is set aside, is decided for each partition by
//! [`Careful`](crate::engine::Careful); here its tasks wait until nothing else runs, or for so long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::attempts::Offer;

/// Longest that a task which may be killing its worker waits until nothing else runs.
const SILENCE: Duration = Duration::from_secs(5);

/// Tasks that run one at a time, alone in the process where possible, so that a crash speaks against them only.
#[derive(Debug, Default)]
pub struct CarefulQueue {
    /// Those that wait.
    pub queue: VecDeque<Offer>,
    /// The one whose start is being noted, or that runs.
    pub current: Option<Offer>,
    /// Since when the first one waits for the others to end.
    pub since: Option<Instant>,
    /// Whether others are let start in between.
    pub others_first: bool,
}

impl CarefulQueue {
    /// Whether nothing else may start now.
    #[must_use]
    pub fn waits_for_silence(&self) -> bool {
        self.current.is_some() || !self.queue.is_empty()
    }

    /// Whether the first may start: nothing else runs, or it has waited long enough for that.
    pub fn may_start(&mut self, now: Instant, nothing_runs: bool) -> bool {
        if self.current.is_some() || self.queue.is_empty() {
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let may_start = nothing_runs || now.saturating_duration_since(since) >= SILENCE;
        if may_start {
            self.since = None;
        }
        may_start
    }

    /// The partition of the current one is no longer ours.
    pub fn forget(&mut self, gone: impl Fn(&Offer) -> bool) {
        self.queue.retain(|offer| !gone(offer));
        if self.queue.is_empty() {
            self.since = None;
        }
        if self.current.as_ref().is_some_and(gone) {
            self.current = None;
            self.since = None;
        }
    }

    /// The current one has ended.
    pub fn ended(&mut self, partition: i32) {
        if self
            .current
            .is_some_and(|offer| offer.partition == partition)
        {
            self.current = None;
            self.since = None;
            self.others_first = true;
        }
    }
}
