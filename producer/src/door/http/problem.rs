//! Refusals as RFC 9457 writes them: `application/problem+json` with a `type` that never changes.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::door::refusal::{Kind, Refusal};

/// The media type of a problem.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";
/// What a `type` begins with: a path of the front door itself, which explains it.
pub(crate) const TYPE_PREFIX: &str = "/problems/";

/// A problem (RFC 9457): what was wrong, where, and what to do about it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// What kind of problem, for programs; following it explains the kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words that never change.
    pub title: &'static str,
    /// The status code.
    pub status: u16,
    /// What exactly was wrong.
    pub detail: String,
    /// Where in the request: a JSON pointer, or the name of a header or parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// What to do about it.
    pub remedy: &'static str,
    /// The task that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// Seconds after which asking again may help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl From<&Refusal> for Problem {
    fn from(refusal: &Refusal) -> Self {
        Self {
            kind: format!("{TYPE_PREFIX}{}", refusal.kind.name()),
            title: refusal.kind.title(),
            status: refusal.kind.status(),
            detail: refusal.detail.clone(),
            at: refusal.at.clone(),
            remedy: refusal.kind.remedy(),
            task_id: None,
            retry_after: refusal.retry_after.map(whole_seconds),
        }
    }
}

/// Seconds for `Retry-After`: rounded up, so that nobody comes too early.
pub(crate) fn whole_seconds(wait: std::time::Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"millrace\""),
            );
        }
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        Problem::from(&self).into_response()
    }
}

/// What a kind of problem means: what its `type` leads to.
pub(crate) fn explanation(name: &str) -> Option<String> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name)?;
    Some(format!(
        "{}\n\n{}\n\nStatus code: {}\n",
        kind.title(),
        kind.remedy(),
        kind.status()
    ))
}
