//! Waiting out an outage: how long, and how often somebody is told.
//!
//! Waits double up to a few seconds. The first failure and the end of the outage are logged, and in between
//! a reminder every ten seconds, whatever the number of attempts.

use std::time::Duration;

use tokio::time::Instant;

use crate::trouble::Trouble;

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// How often a long outage is logged again.
const REMIND: Duration = Duration::from_secs(10);

/// Failures in a row.
pub(crate) struct Patience {
    /// Failures that were waited out.
    pub failures: u32,
    /// Those among them that came while rows were being written.
    pub rows_failures: u32,
    since: Option<Instant>,
    reminded: Instant,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self {
            failures: 0,
            rows_failures: 0,
            since: None,
            reminded: Instant::now(),
        }
    }

    /// Waits, longer with each failure, and says so now and then.
    pub(crate) async fn wait(&mut self, trouble: &Trouble) {
        self.failures += 1;
        let now = Instant::now();
        if self.since.is_none() {
            self.since = Some(now);
            self.reminded = now;
            tracing::warn!(error = %trouble, "the database is not available: waiting, nothing is lost");
        } else if now.duration_since(self.reminded) >= REMIND {
            self.reminded = now;
            let waited = self
                .since
                .map_or(0, |since| now.duration_since(since).as_secs());
            tracing::warn!(error = %trouble, waited_s = waited, "the database is still not available");
        }
        let wait = FIRST_WAIT
            .saturating_mul(1 << self.failures.min(10))
            .min(LONGEST_WAIT);
        tokio::time::sleep(wait).await;
    }

    /// A success ends the row.
    pub(crate) fn recovered(&mut self) {
        if let Some(since) = self.since.take() {
            tracing::info!(
                waited_s = since.elapsed().as_secs_f64(),
                "the database is back: flushed"
            );
        }
        self.failures = 0;
        self.rows_failures = 0;
    }
}
