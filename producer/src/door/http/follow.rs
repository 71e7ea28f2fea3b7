//! Watching tasks live: `GET …/events` (server-sent events), the same for many, and as a WebSocket.
//!
//! What is sent are states, not steps: each event tells how a task stands, so one that was missed is made up for
//! by the next. An event's id names the state; a client that comes back with it (`Last-Event-ID`) is told only
//! what is new. A stream ends when all that it follows has ended.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;

use millrace_schemas::TaskId;
use millrace_store::api_keys::Scope;

use crate::door::following::{Following, Next, Told};
use crate::door::gate::Caller;
use crate::door::readers::Watched;
use crate::door::refusal::Refusal;
use crate::door::state::Door;

use super::ask::parameters;
use super::openapi::EventSchema;
use super::problem::Problem;
use super::request::{self, PathText};
use super::view::StatusView;

/// How often a quiet stream says that it lives.
pub(super) const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// News of one task, as it is written.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum News {
    /// How it stands.
    Status(StatusView),
    /// It ended, and nothing more will come of it.
    End(StatusView),
    /// It cannot be followed.
    Error {
        task_id: String,
        error: Box<Problem>,
    },
}

impl News {
    pub(super) fn of(told: &Told) -> Self {
        match &told.seen {
            Ok(standing) if told.is_last() => Self::End(StatusView::of(told.id, standing)),
            Ok(standing) => Self::Status(StatusView::of(told.id, standing)),
            Err(refusal) => {
                let task_id = told.id.to_string();
                let mut problem = Problem::from(refusal);
                problem.task_id = Some(task_id.clone());
                Self::Error {
                    task_id,
                    error: Box::new(problem),
                }
            }
        }
    }

    /// As an event of a stream (HTML standard, section 9.2).
    fn event(&self, state: &str) -> Bytes {
        let (name, data) = match self {
            Self::Status(view) => ("status", serde_json::to_string(view)),
            Self::End(view) => ("end", serde_json::to_string(view)),
            Self::Error { error, .. } => ("error", serde_json::to_string(error)),
        };
        let data = data.unwrap_or_default();
        format!("event: {name}\nid: {state}\ndata: {data}\n\n").into()
    }
}

/// Watch a task
///
/// Server-sent events: `status` with each change, `end` once it has ended; then the stream ends. A client that comes back
/// with the id of the `end` is answered 204, which tells it to stay away.
#[utoipa::path(
    get, path = "/v1/task/{id}/events", tag = "streams",
    params(
        ("id" = String, Path, description = "The task's id, a UUIDv7"),
        ("Last-Event-ID" = Option<String>, Header, description = "The state that the caller knows"),
    ),
    responses(
        (status = 200, description = "Events", body = EventSchema, content_type = "text/event-stream"),
        (status = 204, description = "It has ended, and the caller knows how"),
        (status = "4XX", description = "Unknown, or not allowed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not possible at present", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn events(
    State(door): State<Arc<Door>>,
    PathText(id): PathText,
    headers: HeaderMap,
) -> Result<Response<Body>, Refusal> {
    let caller = door.gate.admit(request::api_key(&headers)?)?;
    caller.needs(Scope::Read)?;
    let id = request::task_id(&id)?;
    // An id that is unknown is answered as such, not by a stream.
    let standing = door.settled(&caller, id, None).await?;
    let known = last_event(&headers)?;
    let told = Told {
        id,
        seen: Ok(standing),
    };
    if told.is_last() && known == Some(told.state()) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    stream_of(&door, &caller, vec![id], known.as_deref())
}

/// Watch many tasks
///
/// The same events in one stream, which ends when all of the tasks have ended.
#[utoipa::path(
    get, path = "/v1/events", tag = "streams",
    params(
        ("ids" = String, Query, description = "The tasks' ids, separated by commas; a request's head of 32 KiB holds some 850"),
        ("Last-Event-ID" = Option<String>, Header, description = "The state that the caller knows"),
    ),
    responses(
        (status = 200, description = "Events", body = EventSchema, content_type = "text/event-stream"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not possible at present", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn many_events(
    State(door): State<Arc<Door>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response<Body>, Refusal> {
    let caller = door.gate.admit(request::api_key(&headers)?)?;
    caller.needs(Scope::Read)?;
    let mut ids = Vec::new();
    for (name, value) in parameters(query.as_deref())? {
        if name != "ids" {
            return Err(Refusal::bad(name, "there is no such parameter here"));
        }
        for text in value
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
        {
            let id = text
                .parse()
                .map_err(|error| Refusal::bad("ids", format!("{error}")))?;
            ids.push(id);
        }
    }
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Err(Refusal::bad(
            "ids",
            "expected ids of tasks, separated by commas",
        ));
    }
    let known = last_event(&headers)?;
    stream_of(&door, &caller, ids, known.as_deref())
}

fn last_event(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let name = axum::http::HeaderName::from_static("last-event-id");
    Ok(request::text(headers, &name)?.map(str::to_owned))
}

fn stream_of(
    door: &Arc<Door>,
    caller: &Caller,
    ids: Vec<TaskId>,
    known: Option<&str>,
) -> Result<Response<Body>, Refusal> {
    let following = Following::begin(door, caller, ids, known)?;
    let events = stream::unfold(following, async |mut following| {
        let event = match following.next(ALIVE_EVERY).await {
            Next::Told(told) => News::of(&told).event(&told.state()),
            Next::Quiet => Bytes::from_static(b": alive\n\n"),
            // A client that is not at its end comes back by itself.
            Next::Done | Next::Over => return None,
        };
        Some((Ok::<_, Infallible>(event), following))
    });
    let mut response = Response::new(Body::from_stream(events));
    response.extensions_mut().insert(Watched::STREAM);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}
