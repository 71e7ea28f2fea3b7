//! From submit to result at a steady rate: at fixed moments a task is handed over, and its result waited for.
//!
//! A caller that is late because the last one has not been answered would hide what it waits for; so each moment has a
//! connection of its own, one that is idle or a new one, and times are taken from the moment itself.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;

use super::connection::Connection;
use super::percentiles::Percentiles;

/// Until the JVM of the broker has compiled what it needs, which takes a core for half a minute.
const WARM_UP: Duration = Duration::from_secs(40);

/// A front door closes a connection that is idle for 30 s.
const LONGEST_IDLE: Duration = Duration::from_secs(20);

/// What was seen.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Paced {
    /// From the moment to the answer 202.
    pub submit: Percentiles,
    /// From the moment to the answer with the result.
    pub result: Percentiles,
}

/// Submits `rate` tasks a second for so many seconds, beside the warm-up.
///
/// # Errors
/// When a task is refused, or has no result in time.
pub async fn run(
    address: SocketAddr,
    bodies: Arc<[Bytes]>,
    rate: u32,
    seconds: u32,
) -> anyhow::Result<Paced> {
    let idle = Arc::new(Mutex::new(Vec::new()));
    let began = tokio::time::Instant::now();
    let from = Instant::now() + WARM_UP;
    let warm_up = u32::try_from(WARM_UP.as_secs())?;
    let step = Duration::from_secs(1) / rate;
    let mut callers = JoinSet::new();
    for index in 0..rate * (seconds + warm_up) {
        tokio::time::sleep_until(began + step * index).await;
        let body = bodies
            .get(index as usize % bodies.len())
            .context("no bodies")?;
        // From the moment when it was due: a caller that is late itself would hide what made it so.
        let due = (began + step * index).into_std();
        callers.spawn(one(address, body.clone(), Arc::clone(&idle), due));
    }
    let (mut submit, mut result) = (Vec::new(), Vec::new());
    let mut trace = String::new();
    while let Some(times) = callers.join_next().await {
        let (due, accepted, ended) = times??;
        {
            use std::fmt::Write as _;
            let _ = writeln!(
                trace,
                "{} {} {}",
                (due - began.into_std()).as_millis(),
                accepted.as_micros(),
                ended.as_micros()
            );
        }
        if due >= from {
            submit.push(accepted);
            result.push(ended);
        }
    }
    if let Some(path) = std::env::var_os("PACE_TRACE") {
        std::fs::write(path, trace)?;
    }
    Ok(Paced {
        submit: Percentiles::of(submit)?,
        result: Percentiles::of(result)?,
    })
}

/// When a task was due, how long from then until it was handed over, and how long until its result was there.
async fn one(
    address: SocketAddr,
    body: Bytes,
    idle: Arc<Mutex<Vec<Idle>>>,
    due: Instant,
) -> anyhow::Result<(Instant, Duration, Duration)> {
    let mut connection = match take(&idle) {
        Some(connection) => connection,
        None => Connection::open(address).await?,
    };
    let answer = connection
        .post("/v1/task/submit", "application/json", body)
        .await?;
    let accepted = due.elapsed();
    let text = String::from_utf8_lossy(&answer.body);
    ensure!(answer.status == 202, "an answer {}: {text}", answer.status);
    let said: Value = serde_json::from_slice(&answer.body)?;
    let id = said.get("task_id").and_then(Value::as_str);
    let id = id.with_context(|| format!("no task_id in {text}"))?;
    let answer = connection
        .get(&format!("/v1/task/{id}/result?wait=30s"))
        .await?;
    let ended = due.elapsed();
    let text = String::from_utf8_lossy(&answer.body);
    ensure!(answer.status == 200, "an answer {}: {text}", answer.status);
    idle.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push((connection, Instant::now()));
    Ok((due, accepted, ended))
}

/// A connection, and since when nobody uses it.
type Idle = (Connection, Instant);

fn take(idle: &Mutex<Vec<Idle>>) -> Option<Connection> {
    let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
    let (connection, since) = idle.pop()?;
    if since.elapsed() > LONGEST_IDLE {
        // So are those below it, which were put there before.
        idle.clear();
        return None;
    }
    Some(connection)
}
