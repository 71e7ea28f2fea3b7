//! Why the demo could not go on, and where to look.

use std::path::PathBuf;
use std::time::Duration;

use crate::DevstackError;

/// Everything that ends the demo early.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A server of the stack.
    #[error(transparent)]
    Stack(#[from] DevstackError),
    /// The database refused a question, or is away.
    #[error("Postgres: {0}")]
    Database(#[from] sqlx::Error),
    /// The broker refused a question, or is away.
    #[error("Kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// A binary is missing.
    #[error("{path} is not built: cargo build --workspace --bins", path = path.display())]
    NotBuilt {
        /// Where it should be.
        path: PathBuf,
    },
    /// What should stay cannot be started beside what already runs.
    #[error(
        "a stack is running in the background already: end it with `make down`, or run the demo \
         without STAY=1, with a stack of its own"
    )]
    AlreadyRunning,
    /// The file to be sent cannot be used.
    #[error("{path}: {source}", path = path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A worker or the producer ended that should not have.
    #[error("{who} ended ({status}); the end of {log}:\n{tail}", log = log.display())]
    Ended {
        /// Which one.
        who: &'static str,
        /// Its exit status.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// Nothing moved any more.
    #[error("nothing has moved for {limit:?} while waiting for {what}; see {logs}", logs = logs.display())]
    Stalled {
        /// What was waited for.
        what: &'static str,
        /// For how long nothing moved.
        limit: Duration,
        /// The folder of the logs.
        logs: PathBuf,
    },
    /// Ctrl-C or SIGTERM.
    #[error("interrupted; everything that was started has ended")]
    Interrupted,
}
