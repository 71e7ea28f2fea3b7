//! What the engine is accepted by, on Apache Kafka and Postgres themselves: dead letters found and redriven,
//! outages that cost nothing but time, the group's protocols, handlers slower than the group's patience.
//!
//! Workers run inside the tests, so that these see what the handlers did; commands are the real binary's. Sizes
//! come from the environment: `MILLRACE_ACCEPTANCE_TASKS` (tasks among which one in a hundred is bad) and
//! `MILLRACE_OUTAGE_SECONDS` (how long a server is away).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set up its case has failed"
)]

mod copies;
mod dead_letters;
mod evidence;
mod group_protocols;
mod outages;
mod process;
mod sending;
mod slow_handler;
mod stage;

use std::time::{Duration, Instant};

/// The tests load both cores, measure time and memory, so one runs at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Asks again until there is an answer; the test fails when that takes longer than `seconds`.
async fn eventually<T>(what: &str, seconds: u64, mut asked: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    let mut again = tokio::time::interval(Duration::from_millis(50));
    loop {
        if let Some(answer) = asked().await {
            return answer;
        }
        assert!(
            began.elapsed() < Duration::from_secs(seconds),
            "{what}: not within {seconds} s"
        );
        again.tick().await;
    }
}

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}
