//! `GET …/status`, `GET …/result` and `POST …/cancel` of one task.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;

use millrace_store::api_keys::Scope;

use crate::door::refusal::Refusal;
use crate::door::state::Door;

use super::problem::Problem;
use super::request::{self, PathText};
use super::view::{self, StatusView, json};

/// How a task stands
///
/// With `wait` the answer comes when the task has ended, or when the time is over. Asking often costs little: an answer
/// holds for a tenth of a second.
#[utoipa::path(
    get, path = "/v1/task/{id}/status", tag = "tasks",
    params(
        ("id" = String, Path, description = "The task's id, a UUIDv7"),
        ("wait" = Option<String>, Query, example = "30s", description = "Wait so long for its end: `30s`, `500ms`, or a number of seconds; 60 s at most"),
    ),
    responses(
        (status = 200, description = "How it stands", body = StatusView),
        (status = 304, description = "It ended, and the caller has that answer"),
        (status = "4XX", description = "Unknown (404), not kept any more (410), or not allowed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not possible at present", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn status(
    State(door): State<Arc<Door>>,
    PathText(id): PathText,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response<Body>, Refusal> {
    let caller = door.gate.admit(request::api_key(&headers)?)?;
    caller.needs(Scope::Read)?;
    let _stay = caller.stay()?;
    let id = request::task_id(&id)?;
    let wait = wait(query.as_deref(), &headers)?;
    let known = view::known(&headers);
    // Whoever waits holds nothing that they need not.
    drop((headers, query));
    let standing = door.settled(&caller, id, wait).await?;
    Ok(view::status(id, &standing, known.as_deref()))
}

/// What a task returned
///
/// 202 while it is under way; with `wait` the answer comes when the task has ended, or when the time is over. A task that
/// ended without success is answered by a problem.
#[utoipa::path(
    get, path = "/v1/task/{id}/result", tag = "tasks",
    params(
        ("id" = String, Path, description = "The task's id, a UUIDv7"),
        ("wait" = Option<String>, Query, example = "30s", description = "Wait so long for its end: `30s`, `500ms`, or a number of seconds; 60 s at most"),
    ),
    responses(
        (status = 200, description = "The result, in the type in which the handler returned it",
         content((serde_json::Value = "application/json"), ("*/*"))),
        (status = 202, description = "It is under way", body = StatusView),
        (status = 204, description = "It succeeded as the duplicate of a task whose result is not kept any more"),
        (status = 304, description = "The caller has it"),
        (status = 422, description = "It failed, was cancelled, or expired", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Unknown (404), not kept any more (410), or not allowed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not possible at present", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn result(
    State(door): State<Arc<Door>>,
    PathText(id): PathText,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response<Body>, Refusal> {
    let caller = door.gate.admit(request::api_key(&headers)?)?;
    caller.needs(Scope::Read)?;
    let _stay = caller.stay()?;
    let id = request::task_id(&id)?;
    let wait = wait(query.as_deref(), &headers)?;
    let known = view::known(&headers);
    // Whoever waits holds nothing that they need not.
    drop((headers, query));
    let standing = door.settled(&caller, id, wait).await?;
    view::result(&door, id, &standing, known.as_deref()).await
}

/// Ask for a task to be cancelled
///
/// The worker that has the task answers the request: its status tells when it did. What has ended stays as it is.
#[utoipa::path(
    post, path = "/v1/task/{id}/cancel", tag = "tasks",
    params(("id" = String, Path, description = "The task's id, a UUIDv7")),
    responses(
        (status = 202, description = "The request is kept", body = StatusView),
        (status = 200, description = "It had ended before", body = StatusView),
        (status = "4XX", description = "Unknown (404), not kept any more (410), or not allowed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not possible at present", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn cancel(
    State(door): State<Arc<Door>>,
    PathText(id): PathText,
    headers: HeaderMap,
) -> Result<Response<Body>, Refusal> {
    let caller = door.gate.admit(request::api_key(&headers)?)?;
    caller.needs(Scope::Cancel)?;
    let _stay = caller.stay()?;
    let id = request::task_id(&id)?;
    let standing = door.cancel(&caller, id).await?;
    let body = json(&StatusView::of(id, &standing));
    let status = if standing.status().is_terminal() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, body).into_response())
}

/// How long to wait: the query's word, else the preference.
fn wait(query: Option<&str>, headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let mut asked = None;
    for (name, value) in parameters(query)? {
        if name != "wait" {
            return Err(Refusal::bad(name, "there is no such parameter here"));
        }
        asked = Some(request::wait(&value)?);
    }
    Ok(asked.or_else(|| request::preferred_wait(headers)))
}

/// The parameters of a query.
pub(crate) fn parameters(query: Option<&str>) -> Result<Vec<(String, String)>, Refusal> {
    serde_urlencoded::from_str(query.unwrap_or_default())
        .map_err(|error| Refusal::bad("query", error.to_string()))
}
