//! The kill, at the worst moment: while the worker holds events that it has read and not yet
//! written, which somebody has to read again.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::{Instant, sleep};

use super::workers::Worker;
use super::{DemoError, books};

/// How long to wait for such a moment, and how many events make one.
const PATIENCE: Duration = Duration::from_secs(3);
const ENOUGH: i64 = 100;
/// A COMMIT that was on its way may still happen after its sender's death, and long before any heir.
const LAST_COMMIT: Duration = Duration::from_millis(300);
const EVERY: Duration = Duration::from_millis(1);

/// What the worker held when it was killed.
#[derive(Debug, Clone)]
pub struct Killed {
    /// When.
    pub at: Instant,
    /// Its process number.
    pub pid: u32,
    /// Its partitions.
    pub partitions: Vec<i32>,
    /// Events that it had certainly read and that have no outcome: to be read again.
    pub unwritten: i64,
}

/// Waits for the moment and kills.
///
/// The worker counts twenty times a second. What was written since its last count is subtracted,
/// from books that are older than that count, so the answer is a lower bound and never a guess.
///
/// # Errors
/// When the database does not answer or the process cannot be signalled.
pub async fn kill(worker: Worker, connection: &mut PgConnection) -> Result<Killed, DemoError> {
    let pid = worker.pid();
    let deadline = Instant::now() + PATIENCE;
    let partitions = books::read(connection).await?.held_by(pid);
    let mut former = None;
    let (held, settled_before) = loop {
        let settled = books::read(connection).await?.settled_in(&partitions);
        let held = worker.in_flight().await.unwrap_or_default();
        // A count that differs from the one before was made after that one had been asked for,
        // and so after the books that had been read before it.
        match former.replace((held, settled)) {
            Some((other, older)) if other != held && held >= ENOUGH => break (held, older),
            _ if Instant::now() >= deadline => break (0, settled),
            _ => sleep(EVERY).await,
        }
    };
    worker.kill().await?;
    let at = Instant::now();
    sleep(LAST_COMMIT).await;
    let settled = books::read(connection).await?.settled_in(&partitions);
    Ok(Killed {
        at,
        pid,
        partitions,
        unwritten: (held - (settled - settled_before)).max(0),
    })
}
