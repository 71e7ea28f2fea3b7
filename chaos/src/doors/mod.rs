//! Front doors under fire: callers hand tasks over and wait for what becomes of them, in every way that the API has,
//! while front doors and workers are killed in turn.
//!
//! Checked from the outside: every task that was accepted has one result and every caller heard of it, an answer
//! that is none says so in the documented way, no connection breaks but by a kill, no idempotency key ever names two
//! tasks, and no front door and no worker ends by itself.

mod bulk;
mod caller;
mod client;
mod crew;
mod grpc;
mod hand_over;
mod http;
mod judge;
mod lives;
mod refusal;
mod task;
mod told;
mod verdict;
mod waiting;
mod watching;

use std::path::Path;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::caller::Caller;
use self::client::Client;
use self::crew::Doors;
use self::told::Told;
use crate::crew::Crew;
use crate::error::ChaosError;
use crate::place::Place;
use crate::round::PARTITIONS;
use crate::servers::Servers;

pub use told::{Count, Kind};
pub use verdict::Verdict;

/// What is made from `schemas/proto/millrace/v1/tasks.proto`: a client of the gRPC service.
#[expect(
    clippy::all,
    reason = "the description is documented; the code is made from it"
)]
mod v1 {
    tonic::include_proto!("millrace.v1");
}

/// How long callers may take to hear of all that was accepted once nothing is killed any more.
const SETTLE: Duration = Duration::from_secs(90);
/// How often it is looked whether all are there.
const LOOK: Duration = Duration::from_millis(50);
/// Workers that may be started beside those of the storm.
const SPARE_WORKERS: usize = 20;

/// The sizes of a round.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Front doors, side by side.
    pub doors: usize,
    /// Workers.
    pub workers: usize,
    /// Callers, each with one request or some tasks at a time.
    pub callers: usize,
    /// How long processes are killed.
    pub storm: Duration,
    /// The time between two kills.
    pub between: Duration,
}

impl Size {
    /// Workers of the whole round, one after another.
    fn most_workers(self) -> usize {
        let pairs = self.storm.as_millis() / (self.between * 2).as_millis().max(1);
        self.workers + usize::try_from(pairs).unwrap_or_default() + SPARE_WORKERS
    }
}

/// Plays a round and judges it.
///
/// # Errors
/// When the harness cannot do its part; what the product does is no error.
pub async fn play(servers: &Servers, place: Place, size: Size) -> Result<Verdict, ChaosError> {
    std::fs::create_dir_all(&place.dir).map_err(ChaosError::io("make the round's folder"))?;
    servers.make_topic(&place.name, PARTITIONS).await?;
    servers.make_topic(&place.dead_letter_topic(), 1).await?;
    place.run(servers, "consumer", &["migrate"]).await?;
    let most = size.most_workers();
    servers
        .make_roles((1..=most).map(|number| place.role(number)))
        .await?;
    let mut workers = Crew::new(place.clone(), size.workers, most)?;
    workers.fill(servers)?;
    let mut doors = Doors::new(place.clone(), size.doors)?;
    doors.open_all(servers).await?;

    let hang_up = CancellationToken::new();
    let mut callers = JoinSet::new();
    for number in 0..size.callers {
        let client = Client::new(doors.lives(), number, hang_up.clone(), SETTLE);
        callers.spawn(Caller::new(number, client).call());
    }
    let workers_killed = storm(servers, &mut workers, &mut doors, size).await?;
    hang_up.cancel();
    let mut told = Told::default();
    let deadline = Instant::now() + SETTLE * 2;
    while !callers.is_empty() {
        look(servers, &mut workers, &mut doors).await?;
        tokio::select! {
            Some(ended) = callers.join_next() => {
                let ended = ended.map_err(std::io::Error::other);
                told.add(ended.map_err(ChaosError::io("hear from a caller"))?);
            }
            () = sleep(LOOK) => {}
        }
        if Instant::now() >= deadline {
            return Err(ChaosError::TooSlow {
                what: "waiting for the callers".to_owned(),
                limit: SETTLE * 2,
            });
        }
    }
    let evidence = judge::judge(servers, &place, &told, SETTLE).await?;
    look(servers, &mut workers, &mut doors).await?;
    let mut by_themselves = doors.dismiss().await;
    by_themselves.extend(workers.dismiss_all().await);
    by_themselves.extend(workers.surprises().iter().cloned());
    for log in doors.logs().iter().chain(&workers.logs()) {
        by_themselves.extend(panics(log)?);
    }
    let killed = (doors.killed().to_vec(), workers_killed);
    let mut verdict = Verdict::new(killed, told, evidence);
    // Who ended by itself comes first: much of the rest may follow from it.
    verdict.violations.splice(0..0, by_themselves);
    let too_little = verdict.too_little(size.storm);
    verdict.violations.extend(too_little);
    // On the screen are only the first of them.
    if !verdict.violations.is_empty() {
        let all = verdict.violations.join("\n");
        std::fs::write(place.dir.join("violations"), all)
            .map_err(ChaosError::io("keep what is not as promised"))?;
    }
    Ok(verdict)
}

/// Kills one after another, each time the other kind; whoever was killed is replaced at once. How often each worker
/// was killed.
async fn storm(
    servers: &Servers,
    workers: &mut Crew,
    doors: &mut Doors,
    size: Size,
) -> Result<Vec<usize>, ChaosError> {
    let ends = Instant::now() + size.storm;
    let mut workers_killed = vec![0; size.workers];
    for turn in 0.. {
        if Instant::now() >= ends {
            break;
        }
        look_for(size.between, servers, workers, doors).await?;
        doors.kill(turn % size.doors.max(1));
        doors.open_all(servers).await?;
        look_for(size.between, servers, workers, doors).await?;
        let slot = turn % size.workers.max(1);
        if workers.kill(slot)
            && let Some(count) = workers_killed.get_mut(slot)
        {
            *count += 1;
        }
        workers.fill(servers)?;
    }
    Ok(workers_killed)
}

/// Looks after all for so long.
async fn look_for(
    length: Duration,
    servers: &Servers,
    workers: &mut Crew,
    doors: &mut Doors,
) -> Result<(), ChaosError> {
    let ends = Instant::now() + length;
    while Instant::now() < ends {
        look(servers, workers, doors).await?;
        sleep(LOOK).await;
    }
    Ok(())
}

/// Notes whoever ended by itself, and replaces it.
async fn look(servers: &Servers, workers: &mut Crew, doors: &mut Doors) -> Result<(), ChaosError> {
    workers.fill(servers)?;
    doors.open_all(servers).await
}

/// What a log says of a thread that panicked, which a process may survive.
fn panics(log: &Path) -> Result<Option<String>, ChaosError> {
    let text = std::fs::read(log).map_err(ChaosError::io("read a log"))?;
    let text = String::from_utf8_lossy(&text);
    let found = text.lines().find(|line| line.contains("panicked at"));
    Ok(found.map(|line| format!("{}: {line}", log.display())))
}
