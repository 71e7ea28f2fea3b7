//! Why a server of the stack is not there, and what the reader can do about it.

use std::path::PathBuf;
use std::time::Duration;

/// Everything that can go wrong while starting, driving or ending a server.
#[derive(Debug, thiserror::Error)]
pub enum DevstackError {
    /// A program that the server needs is not on this machine.
    #[error("{program} was not found: {remedy}")]
    NotInstalled {
        /// The program looked for.
        program: &'static str,
        /// What to install or set.
        remedy: &'static str,
    },
    /// A tool that prepares a server (`initdb`, `mvn`, the storage formatter) failed.
    #[error("{tool} failed ({status}):\n{output}")]
    ToolFailed {
        /// The tool.
        tool: &'static str,
        /// Its exit status.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// The server ended before it was ready, or on its own later.
    #[error("{server} ended ({status}); the end of {log}:\n{tail}", log = log.display())]
    ServerEnded {
        /// The server.
        server: &'static str,
        /// Its exit status.
        status: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {limit:?}{}", hint(.log))]
    TooSlow {
        /// What was waited for.
        what: String,
        /// The deadline.
        limit: Duration,
        /// Where to look, if there is such a place.
        log: Option<PathBuf>,
    },
    /// An operation that needs a running server found it stopped, or the other way round.
    #[error("{server} is {found}, and this needs it {needed}")]
    WrongState {
        /// The server.
        server: &'static str,
        /// What it is.
        found: &'static str,
        /// What it should be.
        needed: &'static str,
    },
    /// A file or folder could not be used.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Path {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A process could not be started or signalled.
    #[error("cannot {action}: {source}")]
    Process {
        /// What was tried.
        action: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Running as root, and there is no other account that Postgres could use.
    #[error(
        "Postgres refuses to run as root, and neither the account `postgres` nor `nobody` exists: \
         create one, or run this as another user"
    )]
    NoAccount,
    /// The broker refused a request, or could not be reached.
    #[error("Kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The broker refused an administrative request on one topic.
    #[error("Kafka: {action} {topic}: {code}")]
    Topic {
        /// What was tried.
        action: &'static str,
        /// On which topic.
        topic: String,
        /// The broker's answer.
        code: rdkafka::types::RDKafkaErrorCode,
    },
    /// The database refused a statement, or could not be reached.
    #[error("Postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// A file that devstack wrote earlier cannot be understood.
    #[error("{path} is damaged ({reason}): delete it and start again", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A stack runs in the background, with another Kafka than the one asked for.
    #[error(
        "a stack with KAFKA={runs} is running, and KAFKA={wanted} was asked for: end it first (make down)"
    )]
    OtherStack {
        /// The Kafka of the running stack.
        runs: String,
        /// The Kafka asked for.
        wanted: String,
    },
    /// A suite cannot run here although it has to.
    #[error("the suite `{suite}` cannot run, and CI is set: {reason}")]
    SuiteCannotRun {
        /// The suite.
        suite: String,
        /// Why not.
        reason: String,
    },
}

impl DevstackError {
    pub(crate) fn path(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Path {
            action,
            path,
            source,
        }
    }

    pub(crate) fn process(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Process { action, source }
    }
}

fn hint(log: &Option<PathBuf>) -> String {
    log.as_ref()
        .map_or_else(String::new, |path| format!("; see {}", path.display()))
}
