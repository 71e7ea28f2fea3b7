//! Very many callers that wait, each on a connection of its own for a task of its own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::connection::Connection;
use super::percentiles::Percentiles;
use crate::program::Running;

/// Time from the hand-over until the tasks run: all have to wait by then.
const HEAD_START: Duration = Duration::from_secs(40);
/// Tasks handed over in one request.
const BULK: usize = 500;
/// `run_at` travels in whole milliseconds.
const GRAIN: Duration = Duration::from_millis(1);
/// The front door's gauge of those who wait.
const GAUGE: &str = "millrace_door_waiting ";
/// Connections that are opened at once: more would outrun the listener's queue.
const OPENING: usize = 100;

/// What was seen.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Waited {
    /// How many waited.
    pub waiters: usize,
    /// The front door's memory before, in MiB.
    pub rss_before_mib: f64,
    /// The front door's memory while all waited, in MiB.
    pub rss_mib: f64,
    /// From the first answer to the last.
    pub spread_seconds: f64,
    /// From the moment at which the tasks were due to each answer.
    pub told: Percentiles,
}

/// Lets so many wait for tasks that are due later. Before they are, the front door has to say that all wait; and all
/// have to be answered with the result, none before its task is due.
///
/// # Errors
/// When one is not.
pub async fn run(
    address: SocketAddr,
    metrics: SocketAddr,
    door: &mut Running,
    task_type: &str,
    waiters: usize,
) -> anyhow::Result<Waited> {
    let files = u64::try_from(waiters)? + 1_000;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(
        hard >= files,
        "{files} files are needed, {hard} are allowed"
    );
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(files), hard)?;

    let rss_before_mib = door.rss_mib();
    let due = Instant::now() + HEAD_START;
    let run_at = chrono::Utc::now() + HEAD_START;
    let ids = hand_over(address, task_type, run_at, waiters).await?;
    let mut waiting = JoinSet::new();
    for (number, id) in ids.into_iter().enumerate() {
        let mut connection = Connection::open(address).await?;
        waiting.spawn(async move {
            let path = format!("/v1/task/{id}/result?wait=60s");
            let answer = connection.get(&path).await?;
            let text = String::from_utf8_lossy(&answer.body);
            ensure!(answer.status == 200, "an answer {}: {text}", answer.status);
            anyhow::Ok(Instant::now())
        });
        if number % OPENING == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let settled = due - Duration::from_secs(1);
    all_wait(metrics, waiters, settled).await?;
    tokio::time::sleep_until(settled.into()).await;
    door.look()?;
    let rss_mib = door.rss_mib();
    let mut answered = Vec::with_capacity(waiters);
    while let Some(at) = waiting.join_next().await {
        answered.push(at??);
    }
    ensure!(
        answered.iter().all(|at| *at + GRAIN >= due),
        "a caller had its result before the task was due"
    );
    let first = answered.iter().min().context("nobody waited")?;
    let last = answered.iter().max().context("nobody waited")?;
    let told = answered
        .iter()
        .map(|at| at.saturating_duration_since(due))
        .collect();
    Ok(Waited {
        waiters,
        rss_before_mib,
        rss_mib,
        spread_seconds: (*last - *first).as_secs_f64(),
        told: Percentiles::of(told)?,
    })
}

/// Waits until the front door says that so many wait.
async fn all_wait(metrics: SocketAddr, waiters: usize, until: Instant) -> anyhow::Result<()> {
    let mut connection = Connection::open(metrics).await?;
    loop {
        let answer = connection.get("/metrics").await?;
        let text = String::from_utf8_lossy(&answer.body);
        let gauge = text.lines().find_map(|line| line.strip_prefix(GAUGE));
        let waiting: f64 = gauge.context("no gauge of those who wait")?.parse()?;
        if waiting >= waiters as f64 {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "{waiting} of {waiters} callers were there in time"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn hand_over(
    address: SocketAddr,
    task_type: &str,
    run_at: chrono::DateTime<chrono::Utc>,
    tasks: usize,
) -> anyhow::Result<Vec<String>> {
    let mut connection = Connection::open(address).await?;
    let task = json!({ "type": task_type, "payload": null, "run_at": run_at.to_rfc3339() });
    let mut ids = Vec::with_capacity(tasks);
    while ids.len() < tasks {
        let bulk = vec![&task; BULK.min(tasks - ids.len())];
        let body = Bytes::from(serde_json::to_vec(&bulk)?);
        let answer = connection
            .post("/v1/tasks", "application/json", body)
            .await?;
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == 202, "an answer {}: {text}", answer.status);
        let said: Value = serde_json::from_slice(&answer.body)?;
        let items = said.get("items").and_then(Value::as_array);
        for item in items.context("no items")? {
            let id = item.get("task_id").and_then(Value::as_str);
            ids.push(id.context("an item without an id")?.to_owned());
        }
    }
    Ok(ids)
}
