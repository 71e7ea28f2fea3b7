//! The floor: everything of the worker that is about running tasks, beside the partitions themselves.
//!
//! Handlers and their policies, attempts in flight, retries that wait, look-ups, what people asked for, and the
//! clock of parked tasks. The owner holds it by value and is the only one who touches it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_schemas::{Day, Decoders, TaskId};
use millrace_store::Ending;
use millrace_store::days::Retention;
use millrace_telemetry::{AttemptBatch, HandlerMetrics, LatencyBatch};
use sqlx::PgPool;
use tokio::sync::{mpsc, watch};

use super::attempts::{Attempt, Attempts, Offer};
use super::careful_queue::CarefulQueue;
use super::controls::{ControlPanel, Controls};
use super::job::Job;
use super::reports::Reports;
use super::scout::Answers;
use super::scout::Scout;
use super::waking::{Noted, WakeClock, Woken};
use crate::engine::{Laned as _, Mode, Spot};
use crate::handlers::{PolicySet, Registry, Signal, Start, TypeIndex};

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

/// Why a task is not to be run now.
#[derive(Debug)]
pub enum Objection {
    /// It ends without being run.
    End(Ending),
    /// Its type or tenant is paused.
    Paused,
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

    /// What speaks against running a task now, apart from what it may do to its worker.
    #[must_use]
    pub fn objection(&self, decoders: &Decoders, job: &Job) -> Option<Objection> {
        let controls = &self.controls;
        if controls.is_cancelled(&job.task) {
            return Some(Objection::End(Ending::Cancelled));
        }
        if job
            .task
            .deadline_micros
            .is_some_and(|deadline| deadline <= self.wall_micros)
        {
            return Some(Objection::End(Ending::Expired));
        }
        if controls.pause_something()
            && let Ok(decoded) = decoders.decode(&job.task.value)
            && controls.pauses(decoded.event().task_type, decoded.event().tenant)
        {
            return Some(Objection::Paused);
        }
        None
    }

    /// The order for an attempt at a lane's first task, which is noted as in flight.
    pub fn order(&mut self, offer: Offer, job: &Job, now: Instant, careful: bool) -> Start {
        let task = Arc::clone(&job.task);
        let policy = self.policies.get(task.task_type);
        let may_be_parked = job.parked.is_none() && policy.mode != Mode::Partition;
        let begun = Attempt {
            offer,
            spot: job.spot(),
            task_type: task.task_type,
            signal: Signal::new(),
            started: now,
            timeout: policy.timeout,
            deadline_micros: task.deadline_micros,
            long_after: may_be_parked.then_some(policy.run_long_after),
            asked: None,
            is_void: false,
            careful,
            reported: false,
            progress: None,
            progress_is_new: false,
        };
        let attempt = job.attempts + 1;
        if attempt == 1 {
            // How long it has waited for its first attempt.
            let waited = self.wall_micros.saturating_sub(job.submitted_at);
            self.waits.record_micros(waited.max(0));
        }
        self.attempts.begin(task, attempt, begun)
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
