//! As many submits as can be: each connection sends its next request when the last one is answered.
//!
//! The first seconds are not counted. Tasks count that were accepted within the counted time; times are of all requests
//! that began within it, so that a slow one at its end is not left out. Requests that are put off are counted apart.
//! A connection that waits for its answer asks for nothing meanwhile: these are times under full load. What callers see
//! who come at a given rate is measured by `pace`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use serde::Serialize;
use tokio::task::JoinSet;

use super::connection::Connection;
use super::percentiles::Percentiles;

const WARM_UP: Duration = Duration::from_secs(3);

/// What is sent, and how.
#[derive(Clone)]
pub struct Load {
    /// Where to.
    pub address: SocketAddr,
    /// The path of each request.
    pub path: &'static str,
    /// The bodies, one after another, again and again; JSON.
    pub bodies: Arc<[Bytes]>,
    /// Tasks in each body.
    pub tasks: usize,
    /// Connections at once.
    pub connections: usize,
    /// Seconds that count.
    pub seconds: u32,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Loaded {
    /// Tasks accepted in a second.
    pub tasks_per_s: f64,
    /// From the request to its answer, of those that were accepted.
    pub took: Percentiles,
    /// Requests that were told to come later (503).
    pub put_off: usize,
}

/// What one connection saw.
#[derive(Default)]
struct Seen {
    /// Requests whose tasks were accepted within the counted time.
    accepted: usize,
    took: Vec<Duration>,
    put_off: usize,
}

/// Sends until the time is over.
///
/// # Errors
/// When an answer is neither "accepted" nor "later".
pub async fn run(load: Load) -> anyhow::Result<Loaded> {
    let from = Instant::now() + WARM_UP;
    let until = from + Duration::from_secs(u64::from(load.seconds));
    let mut callers = JoinSet::new();
    for number in 0..load.connections {
        callers.spawn(call(load.clone(), number, from, until));
    }
    let mut took = Vec::new();
    let (mut accepted, mut put_off) = (0, 0);
    while let Some(seen) = callers.join_next().await {
        let seen = seen??;
        accepted += seen.accepted;
        took.extend(seen.took);
        put_off += seen.put_off;
    }
    Ok(Loaded {
        tasks_per_s: (accepted * load.tasks) as f64 / f64::from(load.seconds),
        took: Percentiles::of(took)?,
        put_off,
    })
}

async fn call(load: Load, number: usize, from: Instant, until: Instant) -> anyhow::Result<Seen> {
    let mut connection = Connection::open(load.address).await?;
    let mut seen = Seen::default();
    let mut turn = number;
    while Instant::now() < until {
        let Some(body) = load.bodies.get(turn % load.bodies.len()) else {
            break;
        };
        turn += 1;
        let began = Instant::now();
        let answer = connection
            .post(load.path, "application/json", body.clone())
            .await?;
        let ended = Instant::now();
        match answer.status.as_u16() {
            202 => {
                seen.accepted += usize::from(ended >= from && ended < until);
                if began >= from {
                    seen.took.push(ended - began);
                }
            }
            503 => {
                seen.put_off += usize::from(began >= from);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => ensure!(
                false,
                "an answer {other}: {}",
                String::from_utf8_lossy(&answer.body)
            ),
        }
    }
    Ok(seen)
}
