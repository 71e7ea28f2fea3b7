//! The sender's loop: take what is due, have it posted, keep how that ended.
//!
//! Each callback goes its own way; none waits for another's target. What ended is kept before more is taken. A
//! sender that is told to stop takes no more, waits a little for those on their way, and keeps how each ended: so a
//! target that answers by then hears of nothing twice.

use std::sync::Arc;
use std::time::Duration;

use millrace_schemas::TaskId;
use millrace_store::callbacks::{self, Attempted, Callback, Looked, Next};
use millrace_store::finished;
use millrace_store::position::Consumer;
use millrace_store::{Database, Purpose, Trouble};
use millrace_telemetry::{OutboxKind, OutboxMetrics};
use reqwest::Client;
use reqwest::redirect::Policy;
use sqlx::PgConnection;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempt::{ATTEMPT, Poster};
use super::guard::PublicOnly;
use super::places::Places;

/// Callbacks on their way at once.
const PLACES: usize = 256;
/// Callbacks taken at once.
const TAKEN: usize = 64;
/// How often the table is looked at while nothing is due.
const IDLE: Duration = Duration::from_millis(500);
/// How long to wait for a place.
const PLACE: Duration = Duration::from_millis(50);
/// While more is due, looking takes up one part in so many of the time.
const LOOKING: u32 = 8;
/// How long taken callbacks are ours: longer than an attempt, and its keeping, take.
const LEASE: Duration = Duration::from_secs(45);
/// The longest pause after failures of the database in a row.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long callbacks on their way may take once the sender is told to stop, and then the keeping of how they ended.
const DRAIN: Duration = Duration::from_secs(5);
const KEEPING: Duration = Duration::from_secs(1);
/// The pause after a failure of the database during that time.
const SHORT_PAUSE: Duration = Duration::from_millis(100);
/// How long ended callbacks are kept, and how often old ones are forgotten.
const KEPT: Duration = Duration::from_secs(30 * 86_400);
const FORGET_EVERY: Duration = Duration::from_secs(600);

/// How callbacks are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CallbackSettings {
    /// Whether they may go to private addresses.
    pub allow_private: bool,
    /// What the waits between attempts are multiplied by.
    pub schedule_scale: f64,
    /// How long the end of the worker may take: those on their way then are waited for no longer, and for 5 s at most.
    pub shutdown_deadline: Duration,
}

/// Sends what is due until it is told to stop.
pub struct Callbacks {
    database: Database,
    consumer: Consumer,
    poster: Poster,
    metrics: OutboxMetrics,
    places: Places,
    looked: Looked,
    on_their_way: JoinSet<Attempted>,
    /// What ended and is not kept yet.
    ended: Vec<Attempted>,
    forgot: Instant,
}

impl Callbacks {
    /// Makes the client; nothing is contacted yet.
    ///
    /// # Errors
    /// The client's refusal, such as of the system's certificates.
    pub fn new(
        database: Database,
        consumer: Consumer,
        settings: CallbackSettings,
        metrics: OutboxMetrics,
    ) -> Result<Self, reqwest::Error> {
        // Whoever chose another one for this process keeps it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .user_agent(concat!("millrace/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .referer(false)
            .timeout(ATTEMPT)
            .pool_max_idle_per_host(4);
        if !settings.allow_private {
            client = client.dns_resolver(Arc::new(PublicOnly)).no_proxy();
        }
        let client = client.build()?;
        Ok(Self {
            database,
            consumer,
            poster: Poster {
                client,
                settings,
                cut: CancellationToken::new(),
            },
            metrics,
            places: Places::new(PLACES),
            looked: Looked::default(),
            on_their_way: JoinSet::new(),
            ended: Vec::new(),
            forgot: Instant::now(),
        })
    }

    /// Runs until `stop`, and then until what is on its way has ended and is kept: for 6 s, or the shutdown's deadline,
    /// at most. What the target has not answered by then counts as an attempt that failed.
    pub async fn run(mut self, stop: CancellationToken) {
        let told = async {
            stop.cancelled().await;
            Instant::now()
        };
        let (told_at, connection) = tokio::join!(told, self.send(&stop));
        self.drain(connection, told_at).await;
    }

    /// Sends what is due until `stop`; returns the connection, where there is one.
    async fn send(&mut self, stop: &CancellationToken) -> Option<PgConnection> {
        let mut connection = None;
        let mut pause = Duration::from_secs(1);
        let mut look_at = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return connection,
                Some(ended) = self.on_their_way.join_next() => {
                    self.take_in(ended);
                    // While the database is away, what ended is kept with the next look.
                    if connection.is_none() {
                        continue;
                    }
                }
                () = tokio::time::sleep_until(look_at) => {}
            }
            let looks = Instant::now() >= look_at;
            // What a round was about to keep or to give back need not be found out again, if it ends soon.
            let round = tokio::select! {
                round = self.round(&mut connection, looks.then_some(stop)) => round,
                () = async { stop.cancelled().await; tokio::time::sleep(KEEPING).await } => return None,
            };
            match round {
                Ok(None) => {}
                Ok(Some(wait)) => {
                    pause = Duration::from_secs(1);
                    look_at = Instant::now() + wait;
                }
                Err(trouble) => {
                    connection = None;
                    tracing::debug!(%trouble, "callbacks wait for the database");
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    look_at = Instant::now() + pause;
                }
            }
        }
    }

    /// Waits for what is on its way, cuts off the rest, and keeps how each ended.
    async fn drain(mut self, mut connection: Option<PgConnection>, told_at: Instant) {
        let most = (DRAIN + KEEPING).min(self.poster.settings.shutdown_deadline);
        let until = told_at + most;
        let cut_at = until - KEEPING.min(most / 2);
        let cut = self.poster.cut.clone();
        loop {
            tokio::select! {
                ended = self.on_their_way.join_next() => match ended {
                    Some(ended) => self.take_in(ended),
                    None if self.ended.is_empty() => return,
                    None => {}
                },
                () = tokio::time::sleep_until(cut_at), if !cut.is_cancelled() => cut.cancel(),
            }
            match tokio::time::timeout_at(until, self.round(&mut connection, None)).await {
                Ok(Ok(_)) => {}
                Ok(Err(trouble)) => {
                    connection = None;
                    tracing::debug!(%trouble, "callbacks wait for the database");
                    tokio::time::sleep(SHORT_PAUSE).await;
                }
                Err(_) => {
                    let count = self.ended.len() + self.on_their_way.len();
                    tracing::warn!(
                        count,
                        "how callbacks ended could not be kept: they are sent again"
                    );
                    return;
                }
            }
        }
    }

    /// Takes in one that ended, and those that ended meanwhile.
    fn take_in(&mut self, ended: Result<Attempted, JoinError>) {
        self.ended.extend(ended);
        while let Some(ended) = self.on_their_way.try_join_next() {
            self.ended.extend(ended);
        }
    }

    /// Keeps what ended and, unless it is told to look for nothing, or to stop, looks for what is due. Says when to
    /// look again, if it looked.
    async fn round(
        &mut self,
        held: &mut Option<PgConnection>,
        looks: Option<&CancellationToken>,
    ) -> Result<Option<Duration>, Trouble> {
        let connection = match held {
            Some(connection) => connection,
            None => held.insert(self.database.connect(Purpose::Operations).await?),
        };
        if !self.ended.is_empty() {
            callbacks::attempted(connection, &self.ended).await?;
            self.count();
            self.ended.clear();
        }
        let Some(stop) = looks.filter(|stop| !stop.is_cancelled()) else {
            return Ok(None);
        };
        if self.forgot.elapsed() >= FORGET_EVERY {
            self.forgot = Instant::now();
            callbacks::forget(connection, KEPT, 10_000).await?;
        }
        let most = TAKEN.min(self.places.free());
        let began = Instant::now();
        let full = self.places.full();
        let looked = &mut self.looked;
        let taken = callbacks::take(connection, &self.consumer, most, LEASE, &full, looked).await?;
        let wait = match taken.is_empty() {
            // There are other hosts to look at.
            true if !self.looked.at_all() => Duration::ZERO,
            true if most == TAKEN && !self.looked.has_met() => return Ok(Some(IDLE)),
            // Something may be due for which there was no place.
            true => PLACE,
            false => Duration::ZERO,
        };
        if stop.is_cancelled() {
            callbacks::give_back(connection, &taken).await?;
            return Ok(None);
        }
        self.start(connection, taken).await?;
        Ok(Some((began.elapsed() * LOOKING).clamp(wait, IDLE)))
    }

    /// Sends callbacks on their way, and gives back those for which there is no place.
    async fn start(
        &mut self,
        connection: &mut PgConnection,
        taken: Vec<Callback>,
    ) -> Result<(), Trouble> {
        if taken.is_empty() {
            return Ok(());
        }
        let ids: Vec<TaskId> = taken.iter().map(|callback| callback.task_id).collect();
        let ends = finished::finished(connection, &ids).await?;
        let mut too_many = Vec::new();
        for callback in taken {
            let Some(place) = self.places.enter(&callback.tenant, &callback.host) else {
                too_many.push(callback);
                continue;
            };
            let end = ends.get(&callback.task_id).cloned();
            let poster = self.poster.clone();
            self.on_their_way.spawn(async move {
                let _place = place;
                poster.attempt(callback, end).await
            });
        }
        callbacks::give_back(connection, &too_many).await
    }

    fn count(&self) {
        let delivered = self.ended.iter().filter(|one| one.next == Next::Delivered);
        let delivered = delivered.count();
        let failed = self.ended.len() - delivered;
        self.metrics.sent(OutboxKind::Callback, delivered as u64);
        self.metrics.failed(OutboxKind::Callback, failed as u64);
    }
}
