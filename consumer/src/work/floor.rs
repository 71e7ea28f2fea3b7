//! The floor: everything of the worker that is about running tasks, beside the partitions themselves.
//!
//! Handlers and their policies, attempts in flight, retries that wait, look-ups, what people asked for, and the
//! clock of parked tasks. The owner holds it by value and is the only one who touches it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_schemas::{Day, TaskId};
use millrace_store::days::Retention;
use millrace_telemetry::{AttemptBatch, HandlerMetrics, LatencyBatch};
use sqlx::PgPool;
use tokio::sync::{mpsc, watch};

use super::attempts::{Attempts, Offer};
use super::controls::{ControlPanel, Controls};
use super::reports::Reports;
use super::scout::Answers;
use super::scout::Scout;
use super::waking::{Noted, WakeClock, Woken};
use crate::engine::Spot;
use crate::handlers::{PolicySet, Registry, TypeIndex};

/// Longest that a task which may be killing its worker waits until nothing else runs.
const SILENCE: Duration = Duration::from_secs(5);

/// A retry that waits in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    at: Instant,
    partition: i32,
    token: i64,
    lane: crate::engine::LaneKey,
    spot: Spot,
}

/// See the module.
pub struct Floor {
    /// Who works on which type.
    pub registry: Arc<Registry>,
    /// How types are tried, as of now.
    pub policies: Arc<PolicySet>,
    policies_heard: watch::Receiver<Arc<PolicySet>>,
    /// What runs and who is next.
    pub attempts: Attempts,
    /// Look-ups.
    pub scout: Scout,
    /// Where people's wishes come from.
    pub panel: ControlPanel,
    /// What people asked for, as of now.
    pub controls: Arc<Controls>,
    /// Progress on its way into its table.
    pub reports: Reports,
    /// When parked tasks are asked for.
    pub waking: WakeClock,
    /// Where answers to questions beside the loop go.
    pub news: mpsc::UnboundedSender<News>,
    /// Connections for such questions.
    pub pool: PgPool,
    /// Tasks that may be killing their worker, and the one that runs alone.
    pub careful: CarefulQueue,
    /// Lanes whose first task may not start yet; offered again at the next tick.
    pub held: Vec<(TypeIndex, Offer)>,
    /// Tasks with a cancel request that have an ending on its way into the database.
    pub cancelled: Vec<TaskId>,
    /// The system's clock at the last look, microseconds since the Unix epoch.
    pub wall_micros: i64,
    /// Days whose results are kept, by this machine's clock.
    pub kept_days: RangeInclusive<Day>,
    retention: Retention,
    /// The monotonic clock at the last look.
    pub now: Instant,
    waiting: BinaryHeap<Reverse<Waiting>>,
    random: u64,
    last_tenant: Arc<str>,
    metrics: HandlerMetrics,
    ended: AttemptBatch,
    waits: LatencyBatch,
}

/// An answer to a question that was asked beside the owner's loop.
pub enum News {
    /// What the tables know of tasks.
    Known(Answers),
    /// Parked tasks.
    Woken(Woken),
    /// That a task is about to run alone was written down.
    Noted(Noted),
    /// Whether such a note was taken away again.
    Cleared {
        /// The partition.
        partition: i32,
        /// The seq at its claim.
        token: i64,
        /// Whether it was.
        done: bool,
    },
}

/// What a [`Floor`] is made of.
pub struct FloorParts {
    /// Who works on which type.
    pub registry: Arc<Registry>,
    /// Policies, now and later.
    pub policies: watch::Receiver<Arc<PolicySet>>,
    /// Runs attempts.
    pub attempts: Attempts,
    /// Looks tasks up.
    pub scout: Scout,
    /// What people ask for.
    pub panel: ControlPanel,
    /// Where answers to questions beside the loop go.
    pub news: mpsc::UnboundedSender<News>,
    /// Connections for such questions.
    pub pool: PgPool,
    /// Metrics by type.
    pub metrics: HandlerMetrics,
    /// How long results are kept: what is older is not run.
    pub retention: Retention,
}

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

impl Floor {
    /// Puts it together.
    #[must_use]
    pub fn new(parts: FloorParts) -> Self {
        let policies = parts.policies.borrow().clone();
        let controls = parts.panel.now.borrow().clone();
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        Self {
            registry: parts.registry,
            policies,
            policies_heard: parts.policies,
            attempts: parts.attempts,
            scout: parts.scout,
            panel: parts.panel,
            controls,
            reports: Reports::default(),
            waking: WakeClock::default(),
            news: parts.news,
            pool: parts.pool,
            careful: CarefulQueue::default(),
            held: Vec::new(),
            cancelled: Vec::new(),
            wall_micros: wall_micros(),
            kept_days: kept_days(parts.retention, wall_micros()),
            retention: parts.retention,
            now: Instant::now(),
            waiting: BinaryHeap::new(),
            random: high ^ low,
            last_tenant: Arc::from(""),
            ended: parts.metrics.batch(),
            metrics: parts.metrics,
            waits: LatencyBatch::default(),
        }
    }

    /// Reads the clock, and takes over new policies and wishes. Returns whether wishes have changed.
    pub fn look_up(&mut self) -> bool {
        self.wall_micros = wall_micros();
        self.now = Instant::now();
        self.kept_days = kept_days(self.retention, self.wall_micros);
        if self.policies_heard.has_changed().unwrap_or(false) {
            self.policies = self.policies_heard.borrow_and_update().clone();
        }
        let news = self.panel.now.has_changed().unwrap_or(false);
        if news {
            self.controls = self.panel.now.borrow_and_update().clone();
        }
        while self.panel.parked.try_recv().is_ok() {
            self.waking.soon();
        }
        news
    }

    /// Whether a record may go straight to the stock handler: nothing is asked for that could concern it.
    #[must_use]
    pub fn nothing_asked(&self) -> bool {
        self.controls.cancels.is_empty() && !self.controls.pause_something()
    }

    /// A tenant's name, shared: consecutive tasks are often of one tenant.
    pub fn tenant(&mut self, name: &str) -> Arc<str> {
        if *self.last_tenant != *name {
            self.last_tenant = Arc::from(name);
        }
        Arc::clone(&self.last_tenant)
    }

    /// Lets a lane's first task wait until then.
    pub fn wait_until(&mut self, at: Instant, offer: Offer, spot: Spot) {
        self.waiting.push(Reverse(Waiting {
            at,
            partition: offer.partition,
            token: offer.token,
            lane: offer.lane,
            spot,
        }));
    }

    /// The next wait that is over.
    pub fn due_retry(&mut self, now: Instant) -> Option<(Offer, Spot)> {
        let Reverse(first) = self.waiting.peek()?;
        if first.at > now {
            return None;
        }
        let Reverse(due) = self.waiting.pop()?;
        let offer = Offer {
            partition: due.partition,
            token: due.token,
            lane: due.lane,
        };
        Some((offer, due.spot))
    }

    /// When the next wait is over.
    #[must_use]
    pub fn next_retry(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(first)| first.at)
    }

    /// How many retries wait in memory.
    #[must_use]
    pub fn waiting_retries(&self) -> usize {
        self.waiting.len()
    }

    /// An even draw from 0 to 1, by SplitMix64.
    pub fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // 53 bits fill a double's fraction.
        f64::from(u32::try_from(mixed >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }

    /// Counts an attempt that ended.
    pub fn note_attempt(
        &mut self,
        task_type: TypeIndex,
        outcome: millrace_telemetry::AttemptOutcome,
        took: Duration,
    ) {
        self.ended.record(usize::from(task_type.0), outcome, took);
    }

    /// Counts how long a task has waited for its first attempt.
    pub fn note_first_start(&mut self, submitted_at: i64) {
        self.waits
            .record_micros(self.wall_micros.saturating_sub(submitted_at).max(0));
    }

    /// Hands what was counted to the metrics. Once a tick.
    pub fn show_metrics(&mut self) {
        self.metrics.attempts(&mut self.ended);
        self.metrics.waits(&mut self.waits);
        let most = self.attempts.limit();
        for (task_type, running) in self.attempts.running().iter().enumerate() {
            let metrics = self.metrics.of(task_type);
            metrics.running(*running);
            let index = TypeIndex(u16::try_from(task_type).unwrap_or(u16::MAX));
            let own = self.policies.get(index).max_in_flight;
            metrics.running_limit(own.map_or(most, |own| own.min(most)));
        }
        // Types that nobody registered have no handler and no limit of their own.
        self.metrics.of(usize::MAX).running_limit(most);
    }
}

fn kept_days(retention: Retention, wall_micros: i64) -> RangeInclusive<Day> {
    let now_ms = u64::try_from(wall_micros / 1_000).unwrap_or(0);
    retention.window(Day::from_unix_ms(now_ms))
}

fn wall_micros() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros();
    i64::try_from(now).unwrap_or(i64::MAX)
}
