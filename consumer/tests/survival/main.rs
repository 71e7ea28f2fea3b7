//! The laws under fire: the real binaries on Apache Kafka and Postgres, killed, frozen, cut off and restarted.
//!
//! Every test ends with the same proof: topic and tables are read by the test itself and compared
//! coordinate by coordinate, then the product's own audit must agree. Sizes come from the environment:
//! `MILLRACE_SURVIVAL_LINES` (lines a test), `MILLRACE_SURVIVAL_ROUNDS` (rounds of killing workers),
//! `MILLRACE_SURVIVAL_SEED`, and `MILLRACE_SURVIVAL_BINARIES` (a folder with another build of the two binaries).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set up its case has failed"
)]

mod backlog;
mod broker_restarts;
mod chance;
mod database_restarts;
mod files;
mod freezes;
mod frozen_flush;
mod input;
mod kills;
mod late_claims;
mod law_two;
mod lost_answers;
mod process;
mod proof;
mod proxy;
mod stage;
mod trail;

use std::future::Future;
use std::time::{Duration, Instant};

/// The tests load both cores and measure time, so one runs at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Fails instead of hanging.
async fn within<T>(seconds: u64, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(seconds), work).await {
        Ok(value) => value,
        Err(_) => panic!("not done within {seconds} s"),
    }
}

/// Asks again until the answer is yes; the test fails when that takes longer than `seconds`.
async fn until(what: &str, seconds: u64, mut asked: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    let mut again = tokio::time::interval(Duration::from_millis(50));
    while !asked().await {
        assert!(
            began.elapsed() < Duration::from_secs(seconds),
            "{what}: not within {seconds} s"
        );
        again.tick().await;
    }
    began.elapsed()
}

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}
