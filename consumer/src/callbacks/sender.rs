//! The sender's loop: take what is due, have it posted, keep how that ended.
//!
//! Each callback goes its own way; none waits for another's target. What ended is kept before more is taken.

use std::sync::Arc;
use std::time::Duration;

use millrace_schemas::TaskId;
use millrace_store::callbacks::{self, Attempted, Callback, Next};
use millrace_store::finished;
use millrace_store::position::Consumer;
use millrace_store::{Database, Purpose, Trouble};
use millrace_telemetry::{OutboxKind, OutboxMetrics};
use reqwest::Client;
use reqwest::redirect::Policy;
use sqlx::PgConnection;
use tokio::task::JoinSet;
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
}

/// Sends what is due until it is told to stop.
pub struct Callbacks {
    database: Database,
    consumer: Consumer,
    poster: Poster,
    metrics: OutboxMetrics,
    places: Places,
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
            poster: Poster { client, settings },
            metrics,
            places: Places::new(PLACES),
            on_their_way: JoinSet::new(),
            ended: Vec::new(),
            forgot: Instant::now(),
        })
    }

    /// Runs until `stop`. What is on its way then is sent again by another, under the same id.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut connection = None;
        let mut pause = Duration::from_secs(1);
        let mut look_at = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(ended) = self.on_their_way.join_next() => {
                    self.ended.extend(ended);
                    while let Some(ended) = self.on_their_way.try_join_next() {
                        self.ended.extend(ended);
                    }
                    // While the database is away, what ended is kept with the next look.
                    if connection.is_none() {
                        continue;
                    }
                }
                () = tokio::time::sleep_until(look_at) => {}
            }
            let looks = Instant::now() >= look_at;
            let round = stop.run_until_cancelled(self.round(&mut connection, looks));
            match round.await {
                None => return,
                Some(Ok(None)) => {}
                Some(Ok(Some(wait))) => {
                    pause = Duration::from_secs(1);
                    look_at = Instant::now() + wait;
                }
                Some(Err(trouble)) => {
                    connection = None;
                    tracing::debug!(%trouble, "callbacks wait for the database");
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    look_at = Instant::now() + pause;
                }
            }
        }
    }

    /// Keeps what ended and, if asked, looks for what is due. Says when to look again, if it looked.
    async fn round(
        &mut self,
        held: &mut Option<PgConnection>,
        looks: bool,
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
        if !looks {
            return Ok(None);
        }
        if self.forgot.elapsed() >= FORGET_EVERY {
            self.forgot = Instant::now();
            callbacks::forget(connection, KEPT, 10_000).await?;
        }
        let most = TAKEN.min(self.places.free());
        let began = Instant::now();
        let full = self.places.full();
        let taken = callbacks::take(connection, &self.consumer, most, LEASE, &full).await?;
        let wait = match taken.is_empty() {
            true if most == TAKEN && full.is_empty() => return Ok(Some(IDLE)),
            // Something may be due for which there was no place.
            true => PLACE,
            false => Duration::ZERO,
        };
        self.start(connection, taken).await?;
        Ok(Some((began.elapsed() * LOOKING).clamp(wait, IDLE)))
    }

    /// Sends callbacks on their way, and gives back those for whose hosts there is no place.
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
            let Some(place) = self.places.enter(&callback.host) else {
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
