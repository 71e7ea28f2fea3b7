//! What callers see of a task: its status as JSON, its result as the handler returned it.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use millrace_schemas::TaskId;
use millrace_store::finished::{Finished, Returned};
use serde::Serialize;
use utoipa::ToSchema;

use crate::door::lookup::Standing;
use crate::door::readers::Watched;
use crate::door::refusal::Refusal;
use crate::door::state::Door;

use super::problem::Problem;

/// How long a client or its cache may keep a success: only a person can withdraw it.
const SUCCESS_CACHED: &str = "private, max-age=60";
/// Everything else is asked for again.
const NOT_CACHED: &str = "private, no-cache";
/// Seconds after which asking again may be worth it.
const ASK_AGAIN_SECONDS: u64 = 1;

/// A task that was accepted.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Accepted {
    /// Its id, a UUIDv7.
    pub task_id: String,
    /// Always `accepted`.
    pub status: &'static str,
}

impl Accepted {
    pub(crate) fn of(id: TaskId) -> Self {
        Self {
            task_id: id.to_string(),
            status: "accepted",
        }
    }
}

/// How a task stands.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct StatusView {
    /// Its id, a UUIDv7.
    pub task_id: String,
    /// One of accepted, processing, retrying, success, failed, cancelled, expired.
    #[schema(example = "processing")]
    pub status: &'static str,
    /// How much is done, from 0 to 1, where the handler says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<f32>,
    /// What the handler says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Attempts that began, as far as is known.
    pub attempts: i16,
    /// 0, and one more each time that it was sent to work again after it had failed.
    pub run: i16,
    /// Whether somebody asked for it to be cancelled and it has not ended yet.
    pub cancel_requested: bool,
    /// When its next attempt is due at the earliest, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub due_at: Option<String>,
    /// When it was submitted, RFC 3339; told once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub submitted_at: Option<String>,
    /// When it ended, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub completed_at: Option<String>,
    /// The task that it is a repeat of, whose result is its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate_of: Option<String>,
}

impl StatusView {
    pub(crate) fn of(id: TaskId, standing: &Standing) -> Self {
        match standing {
            Standing::Ended(end) => Self {
                task_id: id.to_string(),
                status: end.status.as_str(),
                progress: None,
                note: None,
                attempts: end.attempts,
                run: end.run,
                cancel_requested: false,
                due_at: None,
                submitted_at: rfc3339(end.submitted_ms),
                completed_at: rfc3339(end.completed_ms),
                duplicate_of: end.duplicate_of.map(|id| id.to_string()),
            },
            Standing::Open(status) => Self {
                task_id: id.to_string(),
                status: status.status.as_str(),
                progress: status.progress,
                note: status.note.clone(),
                attempts: status.attempts,
                run: status.run,
                cancel_requested: status.cancel_requested,
                due_at: status.due_at.clone(),
                submitted_at: None,
                completed_at: None,
                duplicate_of: None,
            },
        }
    }
}

fn rfc3339(ms: i64) -> Option<String> {
    let time = chrono::DateTime::from_timestamp_millis(ms)?;
    Some(time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

/// Where a task's status is.
pub(crate) fn status_path(id: TaskId) -> String {
    format!("/v1/task/{id}/status")
}

/// A task that is under way: where to ask, and when.
pub(crate) fn under_way(id: TaskId, body: &impl Serialize) -> Response<Body> {
    let mut response = (StatusCode::ACCEPTED, json(body)).into_response();
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&status_path(id)) {
        headers.insert(header::LOCATION, location);
    }
    headers.insert(header::RETRY_AFTER, ASK_AGAIN_SECONDS.into());
    response
}

/// A body of JSON.
pub(crate) fn json(value: &impl Serialize) -> Response<Body> {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// The validators of answers that the caller has (`If-None-Match`).
pub(crate) fn known(headers: &HeaderMap) -> Option<String> {
    let tags: Vec<&str> = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    (!tags.is_empty()).then(|| tags.join(","))
}

/// The status of a task, with a validator once it has ended.
pub(crate) fn status(id: TaskId, standing: &Standing, known: Option<&str>) -> Response<Body> {
    let mut response = json(&StatusView::of(id, standing));
    if let Standing::Ended(end) = standing {
        return validated(response, id, end, known);
    }
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static(NOT_CACHED));
    response
}

/// The result of a task that ended, else that it is under way.
///
/// # Errors
/// The database does not answer about a long result, or has it no more.
pub(crate) async fn result(
    door: &Door,
    id: TaskId,
    standing: &Standing,
    known: Option<&str>,
) -> Result<Response<Body>, Refusal> {
    let end = match standing {
        Standing::Ended(end) => end,
        Standing::Open(status) if status.status.is_terminal() => {
            // A dead letter without a row: its explanation is all there is.
            return Ok(failed(id, Door::failure(status.status, None)));
        }
        Standing::Open(_) => return Ok(under_way(id, &StatusView::of(id, standing))),
    };
    let (content_type, bytes) = match &end.returned {
        Returned::Body {
            content_type,
            bytes,
        } => (content_type, bytes.to_vec()),
        Returned::Long { content_type } => {
            let holder = end.duplicate_of.unwrap_or(id);
            let bytes = door.lookup.body(holder).await?;
            (content_type, bytes.ok_or_else(Refusal::withdrawn)?)
        }
        Returned::Nothing { error } => {
            if end.status != millrace_store::results::StatusWord::Success {
                return Ok(failed(id, Door::failure(end.status, error.as_deref())));
            }
            return Ok(validated(
                StatusCode::NO_CONTENT.into_response(),
                id,
                end,
                known,
            ));
        }
    };
    let held = door.bodies.hold(bytes.len())?;
    let mut response = Response::new(Body::from(bytes));
    response.extensions_mut().insert(Watched::holding(held));
    let content_type = HeaderValue::from_str(content_type)
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    // What handlers return is never run as a page of ours.
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'"),
    );
    Ok(validated(response, id, end, known))
}

fn failed(id: TaskId, refusal: Refusal) -> Response<Body> {
    let mut problem = Problem::from(&refusal);
    problem.task_id = Some(id.to_string());
    let mut response = problem.into_response();
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static(NOT_CACHED));
    response
}

/// The response with its validator; nothing but that when the caller has it already.
fn validated(
    mut response: Response<Body>,
    id: TaskId,
    end: &Finished,
    known: Option<&str>,
) -> Response<Body> {
    let etag = format!(
        "\"{}-{}-{}\"",
        id.as_uuid().simple(),
        end.run,
        end.completed_ms
    );
    let known = known
        .into_iter()
        .flat_map(|tags| tags.split(','))
        .any(|tag| tag.trim() == "*" || tag.trim().trim_start_matches("W/") == etag);
    if known {
        response = StatusCode::NOT_MODIFIED.into_response();
    }
    let cached = match end.status {
        millrace_store::results::StatusWord::Success => SUCCESS_CACHED,
        _ => NOT_CACHED,
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cached));
    response
}
