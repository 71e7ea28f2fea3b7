//! The pipeline: one worker, a release binary, from a backlog to durable rows.
//!
//! The clock runs from the first claim to the last row durable, both as seen from outside: a
//! connection of its own looks every few milliseconds at the positions in `partition_progress`, which
//! move in the transaction that writes the rows. So the time includes the first fetch and every
//! flush, and leaves out the start of the process and the joining of the group; the time from the
//! start of the process is reported beside it. Afterwards the rows and the books are counted.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Row as _};

use crate::cpu::{Reading, Use};
use crate::servers::Servers;
use crate::tables::Tables;
use crate::worker::{self, Handler};

/// Between two looks at the positions.
const LOOK: Duration = Duration::from_millis(10);
const DEADLINE: Duration = Duration::from_secs(600);

/// What is to be drained.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// The topic.
    pub topic: &'a str,
    /// Events in it.
    pub events: u64,
    /// How many of them repeat others.
    pub repeats: u64,
    /// Who works on them.
    pub handler: Handler,
}

/// What a worker with handlers of its own says of them.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Inside {
    /// How often a handler was called.
    pub attempts: u64,
    /// How long the calls took, added up.
    pub seconds: f64,
}

/// How a run went.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Drained {
    /// From the first claim to the last row durable.
    pub seconds: f64,
    /// From the start of the process to the last row durable.
    pub wall_seconds: f64,
    /// Most memory that the worker held, in MiB.
    pub peak_rss_mib: f64,
    /// Flushes that it took.
    pub flushes: i64,
    /// Processor seconds between the first claim and the last row.
    pub cpu_seconds: Use,
}

/// Drains the load with one worker into fresh tables.
///
/// # Errors
/// When the worker fails, or the counts are not exact.
pub async fn run(servers: &Servers, name: &str, load: Load<'_>) -> anyhow::Result<Drained> {
    Ok(drain(servers, name, load).await?.0)
}

/// The same, with what the worker says of its handlers at its end.
///
/// # Errors
/// As [`run`], and when it says nothing.
pub async fn run_and_hear(
    servers: &Servers,
    name: &str,
    load: Load<'_>,
) -> anyhow::Result<(Drained, Inside)> {
    let (drained, output) = drain(servers, name, load).await?;
    let inside = serde_json::from_str(&output).context("what the worker says of its handlers")?;
    Ok((drained, inside))
}

async fn drain(servers: &Servers, name: &str, load: Load<'_>) -> anyhow::Result<(Drained, String)> {
    let tables = Tables::fresh(&servers.url(), name).await?;
    let mut onlooker = tables.connect().await?;
    tables.settle().await?;

    let mut worker = worker::start(
        servers,
        &tables,
        load.topic,
        load.handler,
        worker::Until::Idle,
    )?;
    let deadline = Instant::now() + DEADLINE;
    let mut claimed = None;
    let durable = loop {
        worker.look()?;
        let (claims, settled) = positions(&mut onlooker).await?;
        if claimed.is_none() && claims > 0 {
            claimed = Some((Instant::now(), Reading::take(servers, worker.pid())));
        }
        if settled >= load.events {
            break Instant::now();
        }
        ensure!(
            Instant::now() < deadline,
            "{settled} of {} events were settled within {DEADLINE:?}",
            load.events
        );
        tokio::time::sleep(LOOK).await;
    };
    let (began, reading) = claimed.context("rows without a claim")?;
    let after = Reading::take(servers, worker.pid());
    let cpu_seconds = after.since(&reading, &writers(&mut onlooker).await?);
    let started = worker.began;
    let peak_rss_mib = worker.ended().await?;
    let flushes = check(&mut onlooker, load).await?;
    drop(onlooker);
    tables.discard().await?;
    let drained = Drained {
        seconds: (durable - began).as_secs_f64(),
        wall_seconds: (durable - started).as_secs_f64(),
        peak_rss_mib,
        flushes,
        cpu_seconds,
    };
    Ok((drained, worker.output()?))
}

/// Partitions claimed, and events that the positions have passed.
async fn positions(connection: &mut PgConnection) -> anyhow::Result<(i64, u64)> {
    let row = sqlx::query(
        "SELECT count(claim) AS claims, coalesce(sum(next_offset - first_offset), 0)::bigint AS settled \
         FROM partition_progress",
    )
    .fetch_one(connection)
    .await?;
    let settled: i64 = row.try_get("settled")?;
    Ok((row.try_get("claims")?, settled.unsigned_abs()))
}

async fn writers(connection: &mut PgConnection) -> anyhow::Result<HashSet<u32>> {
    let pids: Vec<i32> = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'millrace-writer'",
    )
    .fetch_all(connection)
    .await?;
    Ok(pids.into_iter().map(i32::unsigned_abs).collect())
}

/// Every event is one row or one duplicate, and the books say the same. Returns the flushes.
async fn check(connection: &mut PgConnection, load: Load<'_>) -> anyhow::Result<i64> {
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM task_results")
        .fetch_one(&mut *connection)
        .await?;
    let books = sqlx::query(
        "SELECT sum(results)::bigint AS results, sum(duplicates)::bigint AS duplicates, \
         sum(dead_letters + parked + gaps + lost)::bigint AS others, sum(seq)::bigint AS flushes \
         FROM partition_progress",
    )
    .fetch_one(connection)
    .await?;
    let (results, duplicates): (i64, i64) =
        (books.try_get("results")?, books.try_get("duplicates")?);
    let others: i64 = books.try_get("others")?;
    let expected = (load.events - load.repeats, load.repeats);
    ensure!(
        rows.unsigned_abs() == expected.0
            && (results.unsigned_abs(), duplicates.unsigned_abs()) == expected
            && others == 0,
        "expected {expected:?} results and duplicates; there are {rows} rows, {results} results, \
         {duplicates} duplicates, {others} others"
    );
    Ok(books.try_get("flushes")?)
}
