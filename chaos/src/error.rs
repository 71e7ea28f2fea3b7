//! What can stop a round from being played or judged. A broken law is no error: it is a finding.

use std::path::PathBuf;
use std::time::Duration;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    /// A server could not be started, stopped or asked.
    #[error(transparent)]
    Devstack(#[from] millrace_devstack::DevstackError),
    /// The client of Kafka refused.
    #[error("Kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The database refused.
    #[error("Postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// An event could not be encoded.
    #[error(transparent)]
    Wire(#[from] crate::wire::WireError),
    /// A file or a process could not be used.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A command of the product failed.
    #[error("`{command}` failed ({status}):\n{output}")]
    Command {
        /// The command.
        command: String,
        /// How it ended.
        status: String,
        /// What it printed.
        output: String,
    },
    /// Workers end as soon as they are started.
    #[error("{most} workers were started and do not stay; see {logs}", logs = logs.display())]
    TooManyWorkers {
        /// How many.
        most: usize,
        /// Where their logs are.
        logs: PathBuf,
    },
    /// The harness itself did not get on.
    #[error("{what}: not within {limit:?}")]
    TooSlow {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
    },
}

impl ChaosError {
    /// For `map_err`, with what was tried.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
