//! Front doors under fire: callers hand tasks over and wait for what becomes of them, while front doors and
//! workers are killed in turn.
//!
//! Checked from the outside: every task that was accepted has one result and every caller heard of it, an answer
//! that is none says so in the documented way, and no idempotency key ever named two tasks.

mod caller;
mod crew;
mod judge;

use std::fmt;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::caller::{Caller, Told};
use self::crew::Doors;
use crate::crew::{Crew, MOST_WORKERS};
use crate::error::ChaosError;
use crate::place::Place;
use crate::round::PARTITIONS;
use crate::servers::{Servers, connect};

/// How long callers may take to hear of all that was accepted once nothing is killed any more.
const SETTLE: Duration = Duration::from_secs(90);

/// The sizes of a round.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Front doors, side by side.
    pub doors: usize,
    /// Workers.
    pub workers: usize,
    /// Callers, each with one task at a time.
    pub callers: usize,
    /// How long processes are killed.
    pub storm: Duration,
    /// The time between two kills.
    pub between: Duration,
}

/// What came of a round.
#[derive(Debug)]
pub struct Verdict {
    /// Front doors killed.
    pub doors_killed: usize,
    /// Workers killed.
    pub workers_killed: usize,
    /// Tasks that were handed over.
    pub asked: usize,
    /// Answers 202.
    pub accepted: usize,
    /// Requests that had no answer, or one that said to come again.
    pub unanswered: usize,
    /// What is not as promised.
    pub violations: Vec<String>,
}

/// Of what is not as promised so much is printed.
const SHOWN: usize = 8;

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "front doors: {}; {} front doors and {} workers killed, {} tasks handed over, {} accepted, {} requests \
             without an answer or told to come again",
            if self.violations.is_empty() {
                "every promise was kept"
            } else {
                "BROKEN"
            },
            self.doors_killed,
            self.workers_killed,
            self.asked,
            self.accepted,
            self.unanswered,
        )?;
        for violation in self.violations.iter().take(SHOWN) {
            write!(f, "\n  {violation}")?;
        }
        match self.violations.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
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
    servers
        .make_roles((1..=MOST_WORKERS).map(|number| place.role(number)))
        .await?;
    let mut workers = Crew::new(place.clone(), size.workers)?;
    workers.fill(servers)?;
    let mut doors = Doors::new(place.clone(), size.doors)?;
    doors.open_all(servers).await?;

    let hang_up = CancellationToken::new();
    let mut callers = JoinSet::new();
    for number in 0..size.callers {
        let caller = Caller::new(number, doors.addresses(), hang_up.clone(), SETTLE);
        callers.spawn(caller.call());
    }
    let killed = storm(servers, &mut workers, &mut doors, size).await?;
    hang_up.cancel();
    let mut told = Told::default();
    let deadline = Instant::now() + SETTLE * 2;
    while !callers.is_empty() {
        // Whoever ends by itself meanwhile is replaced; that nobody had told it to is a complaint.
        workers.fill(servers)?;
        doors.reopen(servers).await?;
        tokio::select! {
            Some(ended) = callers.join_next() => {
                let ended = ended.map_err(std::io::Error::other);
                told.add(ended.map_err(ChaosError::io("hear from a caller"))?);
            }
            () = sleep(Duration::from_millis(100)) => {}
        }
        if Instant::now() >= deadline {
            return Err(ChaosError::TooSlow {
                what: "waiting for the callers".to_owned(),
                limit: SETTLE * 2,
            });
        }
    }
    let mut violations = judge::violations(servers, &place, &told).await?;
    violations.extend(doors.dismiss().await);
    violations.extend(workers.dismiss_all().await);
    violations.extend(workers.surprises().iter().cloned());
    Ok(Verdict {
        doors_killed: killed.0,
        workers_killed: killed.1,
        asked: told.asked,
        accepted: told.accepted.len(),
        unanswered: told.unanswered,
        violations,
    })
}

/// Kills one after another, each time the other kind; whoever was killed is replaced at once.
async fn storm(
    servers: &Servers,
    workers: &mut Crew,
    doors: &mut Doors,
    size: Size,
) -> Result<(usize, usize), ChaosError> {
    let ends = Instant::now() + size.storm;
    let (mut doors_killed, mut workers_killed) = (0, 0);
    while Instant::now() < ends {
        sleep(size.between).await;
        doors.kill(doors_killed % size.doors.max(1));
        doors_killed += 1;
        doors.open_all(servers).await?;
        sleep(size.between).await;
        workers.kill(workers_killed % size.workers.max(1));
        workers_killed += 1;
        workers.fill(servers)?;
    }
    Ok((doors_killed, workers_killed))
}

/// A connection for the judge.
async fn ask(servers: &Servers, place: &Place) -> Result<sqlx::PgConnection, ChaosError> {
    Ok(connect(servers.database_url(), &place.schema()).await?)
}
