//! The front door: how many submits it takes, how soon a result is there, and what callers that wait cost.
//!
//! Load, front door, broker, worker and Postgres share the machine. Beside the front door stands a route of the same
//! web framework that only reads the body, under the same load: what HTTP itself costs here.

mod connection;
mod load;
mod pace;
mod percentiles;
mod streams;
pub mod table;
mod waiters;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use millrace_producer::v1::SubmitRequest;
use serde::Serialize;

use crate::backlog::{Backlog, Keys};
use crate::produce;
use crate::program::{Program, Running};
use crate::rows::{Room, TASK_TYPE};
use crate::servers::{PARTITIONS, Servers};
use crate::tables::Tables;
use crate::worker::{self, Handler, Until};

pub use load::Loaded;
pub use pace::Paced;
pub use waiters::Waited;

/// Bodies that differ, sent in turns.
const BODIES: u64 = 64;
/// Callers that wait at once.
const WAITERS: usize = 10_000;
const PACE: u32 = 1_000;
const DEADLINE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// How much is asked of it.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Connections that submit at once.
    pub connections: usize,
    /// Seconds of each measurement.
    pub seconds: u32,
    /// Events of the bare produce loop.
    pub events: u64,
}

/// What was seen of callers that submit.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct DoorLoads {
    /// Events a second of the bare produce loop.
    pub produce_events_per_s: f64,
    /// The route that only reads the body.
    pub route: Loaded,
    /// One task a request.
    pub single: Loaded,
    /// Ten tasks a request.
    pub bulk10: Loaded,
    /// A hundred tasks a request.
    pub bulk100: Loaded,
    /// Tasks a second by gRPC streams.
    pub streams_tasks_per_s: f64,
    /// Most memory of the front door under these loads, in MiB.
    pub peak_rss_mib: f64,
}

/// What was seen of callers that wait.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct DoorResults {
    /// At a steady rate, with a worker whose handler does nothing.
    pub paced: Paced,
    /// Callers that wait.
    pub waited: Waited,
}

/// Measures submits, on fresh topics and fresh tables.
///
/// # Errors
/// When a part fails, or refuses what it should take.
pub async fn loads(
    servers: &Servers,
    plan: Plan,
    tell: impl Fn(&str),
) -> anyhow::Result<DoorLoads> {
    tell("front door: a bare produce loop");
    let name = "bench_door_produce";
    servers.kafka()?.create_topic(name, PARTITIONS, &[]).await?;
    let backlog = Arc::new(Backlog::encoded(plan.events, Keys::Ordering));
    let took = produce::run_apart(servers.topic(name)?, backlog).await?;
    servers.kafka()?.delete_topic(name).await?;

    tell("front door: a bare route");
    let mut bare = Program::of_this_build("bench-route")?.start()?;
    let address = address_of(&mut bare, "listening at http://").await?;
    let route = load::run(plan.load(address, "/v1/task/submit", 1)).await?;
    bare.terminate()?;
    bare.ended().await?;

    let scene = Scene::new(servers, "bench_door").await?;
    let mut door = scene.open(servers)?;
    let address = address_of(&mut door, "front door at http://").await?;
    tell("front door: one task a request");
    let single = load::run(plan.load(address, "/v1/task/submit", 1)).await?;
    door.look()?;
    tell("front door: ten tasks a request");
    let bulk10 = load::run(plan.load(address, "/v1/tasks", 10)).await?;
    door.look()?;
    tell("front door: a hundred tasks a request");
    let bulk100 = load::run(plan.load(address, "/v1/tasks", 100)).await?;
    door.look()?;
    tell("front door: gRPC streams");
    let streams_tasks_per_s =
        streams::run(address, requests(), plan.connections, plan.seconds).await?;
    door.terminate()?;
    let peak_rss_mib = door.ended().await?;
    scene.close(servers).await?;
    Ok(DoorLoads {
        produce_events_per_s: (plan.events as f64 / took.as_secs_f64()).round(),
        route,
        single,
        bulk10,
        bulk100,
        streams_tasks_per_s,
        peak_rss_mib,
    })
}

/// Measures how soon callers have a result, on a fresh topic and fresh tables, with one worker.
///
/// # Errors
/// When a part fails, or refuses what it should take.
pub async fn results(
    servers: &Servers,
    plan: Plan,
    tell: impl Fn(&str),
) -> anyhow::Result<DoorResults> {
    let scene = Scene::new(servers, "bench_door_results").await?;
    let mut worker = worker::start(
        servers,
        &scene.tables,
        scene.name,
        Handler::Empty(TASK_TYPE),
        Until::Told,
    )?;
    let mut door = scene.open(servers)?;
    let address = address_of(&mut door, "front door at http://").await?;
    scene.claimed(&mut worker).await?;
    tell("front door: from submit to result");
    let paced = pace::run(address, bodies(1), PACE, plan.seconds).await?;
    tell("front door: callers that wait");
    let metrics = address_of(&mut door, "metrics at http://").await?;
    let waited = waiters::run(address, metrics, &mut door, TASK_TYPE, WAITERS).await;
    let waited = waited.with_context(|| {
        let said = door.said().unwrap_or_default();
        format!("callers that wait; the front door said:\n{said}")
    })?;
    for process in [&mut door, &mut worker] {
        process.look()?;
        process.terminate()?;
        process.ended().await?;
    }
    scene.close(servers).await?;
    Ok(DoorResults { paced, waited })
}

impl Plan {
    fn load(self, address: SocketAddr, path: &'static str, tasks: usize) -> load::Load {
        load::Load {
            address,
            path,
            bodies: bodies(tasks),
            tasks,
            connections: self.connections,
            seconds: self.seconds,
        }
    }
}

/// A topic and tables of the same name.
struct Scene {
    name: &'static str,
    tables: Tables,
}

impl Scene {
    async fn new(servers: &Servers, name: &'static str) -> anyhow::Result<Self> {
        servers.kafka()?.create_topic(name, PARTITIONS, &[]).await?;
        let tables = Tables::fresh(&servers.url(), name).await?;
        tables.settle().await?;
        Ok(Self { name, tables })
    }

    fn open(&self, servers: &Servers) -> anyhow::Result<Running> {
        let mut door = Program::of_this_build("producer")?;
        door.args(["serve", "--listen", "127.0.0.1:0"]);
        door.args(["--metrics-listen", "127.0.0.1:0", "--allow-unreplicated"]);
        door.args(["--kafka", &servers.kafka()?.bootstrap()]);
        door.args(["--topic", self.name, "--group", self.tables.name()]);
        door.args(["--database-url", &servers.url()]);
        door.args(["--schema", self.tables.name()]);
        door.start()
    }

    /// Waits until the worker has all partitions.
    async fn claimed(&self, worker: &mut Running) -> anyhow::Result<()> {
        let mut connection = self.tables.connect().await?;
        let deadline = Instant::now() + DEADLINE;
        loop {
            let claims: i64 = sqlx::query_scalar("SELECT count(claim) FROM partition_progress")
                .fetch_one(&mut connection)
                .await?;
            if claims >= i64::from(PARTITIONS) {
                return Ok(());
            }
            worker.look()?;
            ensure!(Instant::now() < deadline, "the worker claims nothing");
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn close(self, servers: &Servers) -> anyhow::Result<()> {
        self.tables.discard().await?;
        Ok(servers.kafka()?.delete_topic(self.name).await?)
    }
}

/// Where a server listens, by the line that it writes once it does.
async fn address_of(server: &mut Running, line: &str) -> anyhow::Result<SocketAddr> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let said = server.said()?;
        if let Some(address) = said.lines().find_map(|said| said.strip_prefix(line)) {
            let address = address.trim().trim_end_matches("/metrics");
            return address.parse().context("an address");
        }
        server.look()?;
        ensure!(Instant::now() < deadline, "a server does not listen");
        tokio::time::sleep(LOOK).await;
    }
}

/// Bodies of so many tasks each: an object for one, an array for more.
fn bodies(tasks: usize) -> Arc<[Bytes]> {
    let mut room = Room::default();
    let mut index = 0;
    (0..BODIES)
        .map(|_| {
            let mut body = String::new();
            for number in 0..tasks {
                body.push_str(match number {
                    0 if tasks > 1 => "[",
                    0 => "",
                    _ => ",",
                });
                let event = room.event(index, false);
                index += 1;
                // Writing into a String cannot fail.
                let _ = write!(
                    body,
                    r#"{{"type":"{TASK_TYPE}","key":"{}","payload":{}}}"#,
                    event.key.unwrap_or_default(),
                    String::from_utf8_lossy(event.payload)
                );
            }
            if tasks > 1 {
                body.push(']');
            }
            Bytes::from(body)
        })
        .collect()
}

/// The same tasks for gRPC.
fn requests() -> Arc<[SubmitRequest]> {
    let mut room = Room::default();
    (0..BODIES)
        .map(|index| {
            let event = room.event(index, false);
            let payload = Bytes::copy_from_slice(event.payload);
            streams::request(TASK_TYPE, event.key.unwrap_or_default(), payload)
        })
        .collect()
}
