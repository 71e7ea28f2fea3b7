//! What can go wrong for a caller.

use std::error::Error as _;
use std::time::Duration;

use millrace_schemas::TaskIdError;
use tonic::{Code, ConnectError, Status};

use crate::v1::Problem;

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
    /// No task has such an id.
    #[error("no task has this id: {0}")]
    TaskId(#[from] TaskIdError),
    /// The front door refused the call, or cannot be reached; a task was not accepted. `problem` is the stable name
    /// of what was wrong.
    #[error("{message} ({problem})")]
    Refused {
        /// Such as `bad-request`, `rate-limited`, `unavailable`; `unreachable` when there was no answer.
        problem: String,
        /// What exactly was wrong.
        message: String,
        /// After which time asking again may help.
        retry_after: Option<Duration>,
    },
    /// The task may have been accepted, or not: the answer was lost on its way, or the front door itself does not
    /// know. Handing it over again with the same idempotency key gives the same task; without such a key there may
    /// be two.
    #[error("it is not known whether the front door took it: {message}")]
    OutcomeUnknown {
        /// What happened instead of an answer.
        message: String,
        /// After which time handing it over again may help.
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

impl ClientError {
    /// Why a task was not accepted, or that this is not known.
    pub(super) fn of_submit(status: Status) -> Self {
        if text(&status, PROBLEM).is_some() || was_not_taken(&status) {
            return status.into();
        }
        ClientError::OutcomeUnknown {
            retry_after: retry_after(&status),
            message: status.message().to_owned(),
        }
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        let (problem, retry_after) = (name(&status), retry_after(&status));
        let message = status.message().to_owned();
        if problem == "outcome-unknown" {
            return ClientError::OutcomeUnknown {
                message,
                retry_after,
            };
        }
        ClientError::Refused {
            problem,
            message,
            retry_after,
        }
    }
}

/// What the front door calls the problem of a call.
const PROBLEM: &str = "millrace-problem";

/// A refused call as the problem that it is.
pub(super) fn problem(status: &Status) -> Problem {
    Problem {
        kind: name(status),
        detail: status.message().to_owned(),
        at: text(status, "millrace-at").unwrap_or_default(),
        retry_after: retry_after(status).and_then(|time| time.try_into().ok()),
    }
}

pub(super) fn retry_after(status: &Status) -> Option<Duration> {
    let seconds = text(status, "retry-after")?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The problem's stable name; by the code where something between refused the call, and no front door named it.
fn name(status: &Status) -> String {
    text(status, PROBLEM).unwrap_or_else(|| {
        let name = match status.code() {
            Code::NotFound => "not-found",
            Code::PermissionDenied => "forbidden",
            Code::Unauthenticated => "unauthorized",
            Code::InvalidArgument => "bad-request",
            Code::ResourceExhausted => "rate-limited",
            _ => "unreachable",
        };
        name.to_owned()
    })
}

fn text(status: &Status, name: &str) -> Option<String> {
    let value = status.metadata().get(name)?;
    value.to_str().ok().map(str::to_owned)
}

/// Whether a call that no front door answered cannot have been taken by one: there was no connection, or what is
/// between turned it away for what it is.
fn was_not_taken(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}
