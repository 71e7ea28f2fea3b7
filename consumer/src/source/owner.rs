//! The owner: the one task that polls, and the only one that knows where each partition stands.
//!
//! Its select is biased: shutdown, tick, group, claims, flushes, and polling last, so that a full log can
//! never starve what keeps the group and the books right. Polling is never off for longer than a tick.
//! What it does at each of these stands in `group`, `flow`, `intake` and `watch`; how it ends, in `closing`.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use millrace_schemas::Decoders;
use millrace_store::Writer;
use millrace_telemetry::{BrokerMetrics, ConsumerMetrics, DatabaseMetrics, Health, Heartbeat};
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;

use super::claims::Claims;
use super::closing::{Ending, LeftStanding, OwnerError};
use super::context::{GroupContext, GroupEvent};
use super::errand::ClaimReport;
use super::group::Leaving;
use super::standing::Owned;
use super::watch::{Watch, Watched};
use crate::engine::{Budget, BudgetLimits, Charge, Pressure};
use crate::handlers::{CancelReason, Completions, ProgressNotes};
use crate::work::floor::{Floor, News};
use crate::work::flusher::{Landed, WriterLane};

/// How often the owner looks up from polling.
const TICK: Duration = Duration::from_millis(50);
/// How long before the end of a shutdown tasks that still run are asked to stop.
const LAST_CALL: Duration = Duration::from_secs(5);
/// Most records taken in one go before it looks around again.
const DRAIN: usize = 500;

/// How a worker is set up.
#[derive(Debug, Clone, Copy)]
pub struct OwnerSettings {
    /// Writers, each with a connection of its own.
    pub writers: usize,
    /// What may be held in memory between poll and commit.
    pub budget: Charge,
    /// End when everything is read and written for so long.
    pub exit_when_idle: Option<Duration>,
    /// How long a shutdown may take to drain.
    pub shutdown_deadline: Duration,
    /// A frontier that has not moved for so long while nothing is known to hold it up ends the worker.
    pub stuck_after: Duration,
    /// Most parked tasks of one partition; beyond it the partition is read no further until there are fewer.
    pub most_parked: i64,
}

/// What a worker needs to run tasks.
pub struct Work {
    /// Knows the schemas that records were written with.
    pub decoders: Decoders,
    /// Handlers, policies, attempts.
    pub floor: Floor,
    /// Attempts that ended.
    pub completions: Completions,
    /// What handlers say of their progress.
    pub notes: ProgressNotes,
    /// Answers to questions that were asked beside the loop.
    pub news: UnboundedReceiver<News>,
}

/// The metrics that the owner feeds.
#[derive(Clone)]
pub struct Gauges {
    /// Of the work.
    pub consumer: ConsumerMetrics,
    /// Of the database.
    pub database: DatabaseMetrics,
    /// Of the brokers.
    pub broker: BrokerMetrics,
}

/// The owner's state; see the module.
pub struct Owner {
    pub(super) settings: OwnerSettings,
    pub(super) client: Arc<StreamConsumer<GroupContext>>,
    pub(super) claims: Claims,
    pub(super) decoders: Arc<Decoders>,
    pub(super) owned: Owned,
    /// The latest claim attempt of each partition: answers to older ones are ignored.
    pub(super) attempts: BTreeMap<i32, u64>,
    pub(super) next_attempt: u64,
    pub(super) leaving: Option<Leaving>,
    /// How many changes of the log are dealt with; records that come before that are not taken.
    pub(super) log_changes: u64,
    pub(super) budget: Budget,
    pub(super) pressure: Pressure,
    pub(super) pressed_since: Instant,
    pub(super) writers: Vec<WriterLane>,
    pub(super) first_lane: usize,
    /// When a writer that rests may begin its next flush, if there is one to begin.
    pub(super) next_flush: Option<Instant>,
    pub(super) watch: Watch,
    pub(super) gauges: Gauges,
    pub(super) health: Health,
    pub(super) fatal: Option<KafkaError>,
    pub(super) writer_gone: bool,
    pub(super) stuck: Option<OwnerError>,
    pub(super) floor: Floor,
    completions: Completions,
    notes: ProgressNotes,
    news: UnboundedReceiver<News>,
    events: UnboundedReceiver<GroupEvent>,
    pub(super) answers: UnboundedSender<ClaimReport>,
    answered: UnboundedReceiver<ClaimReport>,
    landed: UnboundedReceiver<Landed>,
    pub(super) watchers: UnboundedSender<Watched>,
    watched: UnboundedReceiver<Watched>,
    pub(super) stopping: Option<Instant>,
    pub(super) idle_since: Option<Instant>,
    heartbeat: Heartbeat,
}

impl Owner {
    /// Puts the owner together; nothing is subscribed yet. `events` is the other end of the context's channel.
    #[must_use]
    pub fn new(
        settings: OwnerSettings,
        claims: Claims,
        writer: impl Fn() -> Writer,
        events: UnboundedReceiver<GroupEvent>,
        gauges: Gauges,
        health: Health,
        work: Work,
    ) -> Self {
        let (landings, landed) = mpsc::unbounded_channel();
        let (answers, answered) = mpsc::unbounded_channel();
        let (watchers, watched) = mpsc::unbounded_channel();
        let writers = (0..settings.writers.max(1))
            .map(|number| WriterLane::start(number, writer(), landings.clone()))
            .collect();
        gauges
            .consumer
            .in_flight_limit(settings.budget.events, settings.budget.bytes);
        Self {
            settings,
            client: Arc::clone(&claims.client),
            claims,
            decoders: Arc::new(work.decoders),
            owned: Owned::default(),
            attempts: BTreeMap::new(),
            next_attempt: 0,
            leaving: None,
            log_changes: 0,
            budget: Budget::new(BudgetLimits::around(settings.budget), 1),
            pressure: Pressure::Open,
            pressed_since: Instant::now(),
            writers,
            first_lane: 0,
            next_flush: None,
            watch: Watch::default(),
            gauges,
            heartbeat: health.heartbeat("owner", Duration::from_secs(30)),
            health,
            fatal: None,
            writer_gone: false,
            stuck: None,
            floor: work.floor,
            completions: work.completions,
            notes: work.notes,
            news: work.news,
            events,
            answers,
            answered,
            landed,
            watchers,
            watched,
            stopping: None,
            idle_since: None,
        }
    }

    /// Joins the group and works until it is told to stop, or until all is done when so set.
    ///
    /// # Errors
    /// Only when the client is beyond repair.
    pub async fn run(mut self, stop: CancellationToken) -> Result<Ending, OwnerError> {
        let client = Arc::clone(&self.client);
        let _left_standing = LeftStanding(Arc::downgrade(&client));
        let topic = self.claims.consumer.topic.clone();
        client
            .subscribe(&[&topic])
            .map_err(|source| OwnerError::Subscribe { topic, source })?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ended = loop {
            let polling = self.pressure == Pressure::Open && self.has_room();
            let next_retry = self.floor.next_retry();
            let next_flush = self.next_flush;
            tokio::select! {
                biased;
                () = stop.cancelled(), if self.stopping.is_none() => self.begin_stop(),
                _ = tick.tick() => {
                    self.heartbeat.beat();
                    self.tick();
                    // Also while there is much else to do: rebalances arrive by polling only.
                    self.poll_once(&client);
                }
                Some(event) = self.events.recv() => self.group_event(event),
                Some(report) = self.answered.recv() => self.claim_answered(report),
                Some(landed) = self.landed.recv() => self.landed(landed),
                Some(watched) = self.watched.recv() => self.watched(watched),
                Some(news) = self.news.recv() => self.take_news(news),
                finished = self.completions.recv() => {
                    self.finished(finished);
                    self.balance_all();
                }
                () = until(next_retry), if next_retry.is_some() => {}
                () = until(next_flush), if next_flush.is_some() => {}
                received = client.recv(), if polling => {
                    self.receive(received);
                    self.drain(&client);
                }
            }
            self.wake_retries(Instant::now());
            self.start_ready();
            self.floor.scout.send();
            self.dispatch();
            if let Some(stuck) = self.stuck.take() {
                client.context().close();
                return Err(stuck);
            }
            if self.writer_gone || self.writers.iter().any(WriterLane::is_gone) {
                client.context().close();
                return Err(OwnerError::WriterGone);
            }
            if let Some(error) = self.fatal.take() {
                client.context().close();
                return Err(OwnerError::Fatal(error));
            }
            if let Some(ended) = self.ended() {
                break ended;
            }
        };
        let stopped = self.stops();
        drop(client);
        self.leave_group(ended).await;
        Ok(Ending { ended, stopped })
    }

    fn drain(&mut self, client: &StreamConsumer<GroupContext>) {
        let room = usize::try_from(self.budget.room().events).unwrap_or(DRAIN);
        for _ in 0..DRAIN.min(room) {
            if !self.has_room() || !self.poll_once(client) || self.fatal.is_some() {
                return;
            }
        }
    }

    fn has_room(&self) -> bool {
        let room = self.budget.room();
        room.events > 0 && room.bytes > 0
    }

    /// Takes what is there now, without waiting. Returns whether there was something.
    fn poll_once(&mut self, client: &StreamConsumer<GroupContext>) -> bool {
        match now(client.recv()) {
            Some(received) => {
                self.receive(received);
                true
            }
            None => false,
        }
    }

    fn tick(&mut self) {
        let at = Instant::now();
        if self.floor.look_up() {
            self.heed_wishes();
        }
        while let Some(note) = self.notes.try_recv() {
            self.note_progress(note);
        }
        self.mind_attempts(at);
        self.offer_held();
        self.report_progress(at);
        self.watch_frontiers(at);
        self.trim_lanes(at);
        self.hold_full_partitions();
        self.ask_for_parked(at);
        self.balance_all();
        self.floor.show_metrics();
        self.press(at);
        self.ask_due_claims(at);
        self.give_up_leaving(at);
        self.finish_leaving_when_written();
        self.finish_halting();
        if let Some(deadline) = self.stopping
            && at + LAST_CALL >= deadline
        {
            self.stop_attempts(CancelReason::Shutdown, |_| true);
        }
        self.look_around(at);
        self.note_idleness(at);
    }
}

/// Waits until then, or for ever.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// A future's output if it has one at once.
fn now<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// What a poll gave.
pub(super) type Received<'a> = Result<BorrowedMessage<'a>, KafkaError>;
