//! The servers of the stack, for real: what survives a kill, and what ends with whom.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step fails the test"
)]

mod apache_cluster;
mod apache_kafka;
mod embedded_broker;
mod guarded_broker;
mod log_reader;
mod postgres;
mod watchdog;

use std::future::Future;
use std::time::Duration;

/// Fails instead of hanging.
async fn within<T>(seconds: u64, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(seconds), work).await {
        Ok(value) => value,
        Err(_) => panic!("not done within {seconds} s"),
    }
}
