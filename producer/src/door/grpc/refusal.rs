//! Refusals as gRPC says them: a status code, and the stable name of the problem in the metadata.

use axum::http::HeaderMap;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::door::refusal::{Kind, Refusal};

use crate::v1::Problem;

/// The name of the problem in the metadata.
const PROBLEM: &str = "millrace-problem";
/// Seconds after which asking again may help.
const RETRY_AFTER: &str = "retry-after";
/// Where in the request.
const AT: &str = "millrace-at";

/// The code of a kind.
const fn code(kind: Kind) -> Code {
    match kind {
        Kind::BadRequest | Kind::TooLarge | Kind::UnsupportedMediaType => Code::InvalidArgument,
        Kind::Unauthorized => Code::Unauthenticated,
        Kind::Forbidden => Code::PermissionDenied,
        Kind::NotFound | Kind::Gone => Code::NotFound,
        Kind::MethodNotAllowed => Code::Unimplemented,
        Kind::IdempotencyKeyInProgress => Code::Aborted,
        Kind::IdempotencyKeyReused => Code::AlreadyExists,
        Kind::TaskFailed | Kind::TaskCancelled | Kind::TaskExpired => Code::FailedPrecondition,
        Kind::RateLimited => Code::ResourceExhausted,
        Kind::Unavailable => Code::Unavailable,
        // Clients repeat UNAVAILABLE by themselves, which is not safe here.
        Kind::OutcomeUnknown => Code::Unknown,
        Kind::Internal => Code::Internal,
    }
}

/// What the library itself refused, as a refusal of ours: a message that is too large, or cannot be read. `None` for
/// everything else.
pub(super) fn of_library(code: Code) -> Option<Refusal> {
    match code {
        Code::OutOfRange => Some(Refusal::new(
            Kind::TooLarge,
            "a message of the call is larger than this front door takes",
        )),
        Code::Internal => Some(Refusal::new(
            Kind::BadRequest,
            "a message of the call cannot be read: expected one of millrace.v1, uncompressed",
        )),
        _ => None,
    }
}

/// Gives a refusal of the library's its name.
pub(super) fn name(headers: &mut HeaderMap) {
    if headers.contains_key(PROBLEM) {
        return;
    }
    let code = headers
        .get("grpc-status")
        .map(|code| Code::from_bytes(code.as_bytes()));
    if let Some(refusal) = code.and_then(of_library)
        && Status::from(refusal).add_header(headers).is_err()
    {
        tracing::debug!("a refusal of the gRPC library goes out as it is");
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut status = Status::new(code(refusal.kind), refusal.detail);
        let metadata = status.metadata_mut();
        metadata.insert(PROBLEM, MetadataValue::from_static(refusal.kind.name()));
        if let Some(wait) = refusal.retry_after {
            metadata.insert(RETRY_AFTER, crate::door::http::whole_seconds(wait).into());
        }
        if let Some(at) = refusal.at.as_deref().and_then(|at| at.parse().ok()) {
            metadata.insert(AT, at);
        }
        status
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self {
            kind: refusal.kind.name().to_owned(),
            detail: refusal.detail,
            at: refusal.at.unwrap_or_default(),
            retry_after: refusal.retry_after.and_then(|wait| wait.try_into().ok()),
        }
    }
}
