//! What can go wrong for a caller.

use std::time::Duration;

use tonic::Status;

/// Why a call failed, or a task has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The address cannot be used.
    #[error(
        "{0} is no address of a front door: expected http://host:port or https://host:port, and a certificate \
             authority as PEM if there is one"
    )]
    Address(String),
    /// The API key has characters that no key has.
    #[error("the API key is none: expected the text that `producer keys create` printed")]
    Key,
    /// The input cannot be written as JSON.
    #[error("the input cannot be written as JSON: {0}")]
    Input(String),
    /// The front door refused the call, or cannot be reached. `problem` is the stable name of what was wrong.
    #[error("{message} ({problem})")]
    Refused {
        /// Such as `bad-request`, `rate-limited`, `unavailable`; `unreachable` when there was no answer.
        problem: String,
        /// What exactly was wrong.
        message: String,
        /// After which time asking again may help.
        retry_after: Option<Duration>,
    },
    /// The task ended without a result.
    #[error("the task ended as {problem}: {message}")]
    Failed {
        /// `task-failed`, `task-cancelled` or `task-expired`.
        problem: String,
        /// What its handler said last.
        message: String,
    },
    /// The time that [`super::Handle::timeout`] set is over; the task goes on.
    #[error("no result within {0:?}")]
    TimedOut(Duration),
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        let text = |name: &str| {
            let value = status.metadata().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        ClientError::Refused {
            problem: text("millrace-problem").unwrap_or_else(|| "unreachable".to_owned()),
            retry_after: text("retry-after")
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
            message: status.message().to_owned(),
        }
    }
}
