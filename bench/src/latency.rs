//! From submit to committed result, at a steady rate and from outside.
//!
//! One thread submits events through the producer's own `Submitter` at fixed moments and notes the
//! time of each call. Another looks for the rows of the ids it waits for, over a connection of its
//! own, again and again; the time at which an answer holds the row ends the wait. So a latency
//! includes producer, broker, worker, COMMIT and up to one look. The first seconds are not counted.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use millrace_producer::{Submitted, Submitter, Topic};
use millrace_schemas::{Day, Framing, TaskId};
use millrace_settings::Role;
use serde::Serialize;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::rows::Room;
use crate::servers::{PARTITIONS, Servers};
use crate::tables::Tables;
use crate::worker;

/// Between two looks for rows: often enough for a resolution below a millisecond, seldom enough not
/// to take a processor.
const LOOK: Duration = Duration::from_micros(500);
const DEADLINE: Duration = Duration::from_secs(60);
/// Until the JVM of the broker has compiled what it needs, which takes a core for half a minute.
const WARM_UP: Duration = Duration::from_secs(40);
const MAX_EVENT_BYTES: usize = 1_000_000;
/// A service that submits one event at a time does not wait for others to fill a batch.
const LINGER_MS: &str = "1";

/// How fast and how long.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Events per second.
    pub rate: u32,
    /// Seconds that count, after the warm-up.
    pub seconds: u32,
}

/// What was seen.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latencies {
    /// Events that count.
    pub events: usize,
    /// Half of them took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 90 in 100 took no longer, in milliseconds.
    pub p90_ms: f64,
    /// 99 in 100 took no longer, in milliseconds.
    pub p99_ms: f64,
    /// The slowest, in milliseconds.
    pub max_ms: f64,
    /// The longest that a submit came after its moment, in milliseconds.
    pub submitted_late_ms: f64,
}

struct Sent {
    id: TaskId,
    at: Instant,
}

/// Measures on a fresh topic and fresh tables, with one worker.
///
/// # Errors
/// When a part fails, or rows do not come.
pub async fn run(servers: &Servers, name: &str, pace: Pace) -> anyhow::Result<Latencies> {
    servers.kafka()?.create_topic(name, PARTITIONS, &[]).await?;
    let tables = Tables::fresh(&servers.url(), name).await?;
    let mut worker = worker::start(
        servers,
        &tables,
        name,
        worker::Handler::Record,
        worker::Until::Told,
    )?;
    let mut connection = tables.connect().await?;
    let deadline = Instant::now() + DEADLINE;
    while claimed(&mut connection).await? < i64::from(PARTITIONS) {
        worker.look()?;
        ensure!(Instant::now() < deadline, "the worker claims nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tables.settle().await?;

    let mut config = servers.topic(name)?.client_config(Role::Producer)?;
    config.set("linger.ms", LINGER_MS);
    let patience = Duration::from_secs(10);
    let topic = Topic::find(&config, name, patience, patience).await?;
    let submitter = Submitter::new(config, name, &topic, Framing::SingleObject, MAX_EVENT_BYTES)?;

    let (sent, to_see) = channel();
    let submitting = tokio::task::spawn_blocking(move || submit(submitter, pace, &sent));
    let handle = tokio::runtime::Handle::current();
    let seeing =
        tokio::task::spawn_blocking(move || handle.block_on(see(&mut connection, &to_see)));
    let late = submitting.await?.context("submitting")?;
    let seen = seeing.await?.context("looking for rows")?;
    worker.look()?;
    worker.terminate()?;
    worker.ended().await?;
    tables.discard().await?;
    servers.kafka()?.delete_topic(name).await?;
    summary(seen, late)
}

async fn claimed(connection: &mut PgConnection) -> anyhow::Result<i64> {
    let claims = sqlx::query_scalar("SELECT count(claim) FROM partition_progress");
    Ok(claims.fetch_one(connection).await?)
}

/// Submits on time; returns the longest delay after a moment that was due.
fn submit(mut submitter: Submitter, pace: Pace, sent: &Sender<Sent>) -> anyhow::Result<Duration> {
    let warm_up = u32::try_from(WARM_UP.as_secs())?;
    let total = pace.rate * (pace.seconds + warm_up);
    let step = Duration::from_secs(1) / pace.rate;
    let mut room = Room::default();
    let mut deliveries = Vec::new();
    let (mut late, mut acknowledged) = (Duration::ZERO, 0);
    let began = Instant::now();
    let mut collect = |submitter: &mut Submitter| {
        submitter.deliveries(&mut deliveries);
        for delivery in deliveries.drain(..) {
            delivery
                .outcome
                .map_err(|undelivered| undelivered.failure)?;
            acknowledged += 1;
        }
        anyhow::Ok(acknowledged)
    };
    for index in 0..total {
        let due = began + step * index;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if index >= warm_up * pace.rate {
            late = late.max(due.elapsed());
        }
        let event = room.event(u64::from(index), false);
        let at = Instant::now();
        let submitted = submitter.submit(&event, u64::from(index))?;
        ensure!(submitted == Submitted::Queued, "the client's queue is full");
        sent.send(Sent {
            id: event.task_id,
            at,
        })?;
        collect(&mut submitter)?;
    }
    while collect(&mut submitter)? < total {
        std::thread::sleep(Duration::from_millis(1));
        ensure!(
            began.elapsed() < DEADLINE + step * total,
            "events were not acknowledged"
        );
    }
    Ok(late)
}

/// Takes the time of each row; returns when each event was submitted and how long its row took.
///
/// A look names the days one by one: a range of days would be read from end to end, so that each look took longer
/// with the rows that there are, and took its time from what it measures.
async fn see(
    connection: &mut PgConnection,
    sent: &Receiver<Sent>,
) -> anyhow::Result<Vec<(Instant, Duration)>> {
    let mut waiting: HashMap<Uuid, Instant> = HashMap::new();
    let mut seen = Vec::new();
    let mut ids: Vec<Uuid> = Vec::new();
    let mut last_change = Instant::now();
    loop {
        if waiting.is_empty() {
            match sent.recv() {
                Ok(Sent { id, at }) => waiting.insert(id.as_uuid(), at),
                Err(_) => return Ok(seen),
            };
            last_change = Instant::now();
        }
        waiting.extend(sent.try_iter().map(|Sent { id, at }| (id.as_uuid(), at)));
        ids.clear();
        ids.extend(waiting.keys());
        let today = Day::from_unix_ms(TaskId::mint().born_ms()).days_since_epoch();
        let rows = sqlx::query(
            "SELECT task_id FROM task_results WHERE day IN (DATE '1970-01-01' + $1 - 1, \
             DATE '1970-01-01' + $1) AND task_id = ANY($2)",
        )
        .bind(today)
        .bind(&ids)
        .fetch_all(&mut *connection)
        .await?;
        let now = Instant::now();
        for row in &rows {
            if let Some(at) = waiting.remove(&row.try_get::<Uuid, _>("task_id")?) {
                seen.push((at, now - at));
                last_change = now;
            }
        }
        ensure!(
            last_change.elapsed() < DEADLINE,
            "{} events have no row after {DEADLINE:?}",
            waiting.len()
        );
        std::thread::sleep(LOOK);
    }
}

fn summary(seen: Vec<(Instant, Duration)>, late: Duration) -> anyhow::Result<Latencies> {
    let first = seen.iter().map(|(at, _)| *at).min();
    let from = first.context("no event was seen")? + WARM_UP;
    let mut counted: Vec<Duration> = seen
        .into_iter()
        .filter(|(at, _)| *at >= from)
        .map(|(_, took)| took)
        .collect();
    counted.sort_unstable();
    let at = |percent: usize| {
        let place = (counted.len() * percent).div_ceil(100).max(1) - 1;
        counted.get(place).map_or(f64::NAN, |took| in_ms(*took))
    };
    Ok(Latencies {
        events: counted.len(),
        p50_ms: at(50),
        p90_ms: at(90),
        p99_ms: at(99),
        max_ms: at(100),
        submitted_late_ms: in_ms(late),
    })
}

fn in_ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}
