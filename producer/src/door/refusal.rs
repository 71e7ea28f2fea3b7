//! Every way in which a front door says no: what was wrong, where, and what to do.
//!
//! A refusal knows nothing of HTTP or gRPC beyond its codes; each of them writes it in its own form. Details are for
//! callers: nothing of the inside stands in them.

use std::time::Duration;

use millrace_schemas::{Field, FieldOutOfRange};

use crate::delivery::DeliveryFailure;
use crate::wire::SubmitError;

use super::desk::NoAnswer;

/// What kind of no; each has a stable name that programs may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request cannot be understood, or a field is out of its range.
    BadRequest,
    /// No key, or one that is not valid.
    Unauthorized,
    /// The key is not for this.
    Forbidden,
    /// No such task of this tenant, or no such path.
    NotFound,
    /// The path knows no such method.
    MethodNotAllowed,
    /// The first request of the idempotency key is still in progress.
    IdempotencyKeyInProgress,
    /// The result went with retention.
    Gone,
    /// The body, or the event made from it, is too large.
    TooLarge,
    /// The body has a media type that is not taken here.
    UnsupportedMediaType,
    /// The idempotency key was used for another payload.
    IdempotencyKeyReused,
    /// The task ended without success.
    TaskFailed,
    /// The task was cancelled.
    TaskCancelled,
    /// The task's deadline passed before it was done.
    TaskExpired,
    /// The tenant asks for more than its limits allow.
    RateLimited,
    /// A service behind the front door is away or does not keep up; nothing was accepted.
    Unavailable,
    /// Kafka did not say in time whether it has the task.
    OutcomeUnknown,
    /// A defect of ours.
    Internal,
}

impl Kind {
    /// Every kind there is.
    pub const ALL: [Self; 17] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::IdempotencyKeyInProgress,
        Self::Gone,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::IdempotencyKeyReused,
        Self::TaskFailed,
        Self::TaskCancelled,
        Self::TaskExpired,
        Self::RateLimited,
        Self::Unavailable,
        Self::OutcomeUnknown,
        Self::Internal,
    ];

    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// The status code of HTTP.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// What it is, in a few words that never change.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.row().2
    }

    /// What a caller does about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        self.row().3
    }

    const fn row(self) -> (&'static str, u16, &'static str, &'static str) {
        match self {
            Self::BadRequest => (
                "bad-request",
                400,
                "The request cannot be understood",
                "Correct what the detail names; /openapi.json describes every request.",
            ),
            Self::Unauthorized => (
                "unauthorized",
                401,
                "A valid API key is needed",
                "Send `Authorization: Bearer <key>`; `producer keys create` makes one.",
            ),
            Self::Forbidden => (
                "forbidden",
                403,
                "The API key is not for this",
                "Use a key with the scope that the detail names.",
            ),
            Self::NotFound => (
                "not-found",
                404,
                "Not found",
                "Check the path and the id, and that the task is of the key's tenant.",
            ),
            Self::MethodNotAllowed => (
                "method-not-allowed",
                405,
                "The path knows no such method",
                "Use one of the methods in the Allow header.",
            ),
            Self::IdempotencyKeyInProgress => (
                "idempotency-key-in-progress",
                409,
                "The first request of this idempotency key is still in progress",
                "Send the same request again after Retry-After.",
            ),
            Self::Gone => (
                "gone",
                410,
                "The result is not kept any more",
                "Fetch results before the days that are kept have passed, or have them called back.",
            ),
            Self::TooLarge => (
                "too-large",
                413,
                "The request is too large",
                "Keep large inputs elsewhere and send a reference; the detail names the limit.",
            ),
            Self::UnsupportedMediaType => (
                "unsupported-media-type",
                415,
                "The media type is not taken here",
                "Send application/json, or raw bytes of another type with ?type=NAME.",
            ),
            Self::IdempotencyKeyReused => (
                "idempotency-key-reused",
                422,
                "The idempotency key was used for another payload",
                "Use a new key for a new request.",
            ),
            Self::TaskFailed => (
                "task-failed",
                422,
                "The task ended without success",
                "The detail is what its handler said last; whoever runs the workers may redrive it.",
            ),
            Self::TaskCancelled => (
                "task-cancelled",
                422,
                "The task was cancelled",
                "Submit it again if its result is wanted after all.",
            ),
            Self::TaskExpired => (
                "task-expired",
                422,
                "The task's deadline passed before it was done",
                "Submit it again with more time.",
            ),
            Self::RateLimited => (
                "rate-limited",
                429,
                "More is asked than the tenant's limits allow",
                "Send less, or after Retry-After.",
            ),
            Self::Unavailable => (
                "unavailable",
                503,
                "The service cannot do this at present",
                "Nothing was accepted. Send the same request again after Retry-After.",
            ),
            Self::OutcomeUnknown => (
                "outcome-unknown",
                503,
                "It is not known whether the task was accepted",
                "Send the same request again with the same idempotency key; without one the task may run twice.",
            ),
            Self::Internal => (
                "internal",
                500,
                "The front door failed",
                "Tell whoever runs it; its log has the request id.",
            ),
        }
    }
}

/// A no.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// What kind.
    pub kind: Kind,
    /// What exactly was wrong, for a person.
    pub detail: String,
    /// Where in the request: a JSON pointer, or the name of a header or parameter.
    pub at: Option<String>,
    /// When asking again may help.
    pub retry_after: Option<Duration>,
}

/// Longest explanation, in bytes.
const DETAIL_BYTES: usize = 8_192;

impl Refusal {
    /// The rest of a stream is not taken.
    pub(crate) fn closes() -> Self {
        Self::new(
            Kind::Unavailable,
            "the front door closes: send what was not answered again",
        )
        .after(Duration::from_secs(1))
    }

    /// A no of this kind.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        // What a caller sent is not sent back at length.
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES));
        Self {
            kind,
            detail,
            at: None,
            retry_after: None,
        }
    }

    /// A field, header or parameter that cannot be taken.
    pub fn bad(at: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, detail).at(at)
    }

    /// The same, with the place in the request.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.at = Some(place.into());
        self
    }

    /// The same, with the time after which asking again may help.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Kafka does not keep up, or is away.
    pub(crate) fn kafka_is_behind() -> Self {
        Self::new(
            Kind::Unavailable,
            "Kafka does not take more tasks at present",
        )
        .after(Duration::from_secs(1))
    }

    /// The result went between two looks at it.
    pub(crate) fn withdrawn() -> Self {
        Self::new(Kind::Gone, "the result was withdrawn this moment")
    }

    /// The id leads nowhere, or to another tenant: nobody learns which.
    pub(crate) fn no_such_task() -> Self {
        Self::new(
            Kind::NotFound,
            "no task of this id is known: every partition is worked off beyond its birth",
        )
    }
}

impl From<NoAnswer> for Refusal {
    fn from(_: NoAnswer) -> Self {
        Self::new(Kind::Unavailable, "the database does not answer at present")
            .after(Duration::from_secs(2))
    }
}

impl From<FieldOutOfRange> for Refusal {
    fn from(error: FieldOutOfRange) -> Self {
        // As callers write it.
        let name = match error.field {
            Field::TaskType => "type",
            field => field.name(),
        };
        Self::new(Kind::BadRequest, format!("{name}: {}", error.problem)).at(format!("/{name}"))
    }
}

impl From<SubmitError> for Refusal {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::TooLarge { .. } => Self::new(Kind::TooLarge, error.to_string()),
            SubmitError::Field(error) => error.into(),
            SubmitError::Fatal(reason) => {
                tracing::error!(reason, "the Kafka client cannot go on");
                Self::kafka_is_behind()
            }
        }
    }
}

impl From<DeliveryFailure> for Refusal {
    fn from(failure: DeliveryFailure) -> Self {
        match failure {
            DeliveryFailure::Refused(_) if failure.is_too_large() => {
                Self::new(Kind::TooLarge, failure.to_string())
            }
            DeliveryFailure::Refused(_) => {
                tracing::error!(%failure, "Kafka refused an event");
                Self::new(
                    Kind::BadRequest,
                    "Kafka's topic does not take this task: its operator finds the reason in the front door's log",
                )
            }
            DeliveryFailure::Unknown(_) | DeliveryFailure::Stopped(_) => {
                if matches!(failure, DeliveryFailure::Stopped(_)) {
                    tracing::error!(%failure, "Kafka takes nothing from here");
                }
                Self::new(
                    Kind::OutcomeUnknown,
                    "Kafka did not say in time whether it has the task",
                )
                .after(Duration::from_secs(1))
            }
            DeliveryFailure::NotSent => {
                tracing::error!(%failure, "Kafka takes nothing from here");
                Self::kafka_is_behind()
            }
        }
    }
}
