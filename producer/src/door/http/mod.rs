//! The front door's HTTP: paths, and what every request and answer has in common.
//!
//! Each file is a group of paths; here they are put together. Every refusal is a problem (RFC 9457), also for
//! paths and methods that are not there, and every answer carries the request's id.

mod ask;
mod follow;
mod lines;
mod many;
mod openapi;
mod page;
mod problem;
mod request;
mod socket;
mod submit;
mod view;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, header};
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use millrace_telemetry::DoorRoute;

pub(crate) use self::problem::whole_seconds;
use self::request::PathText;
pub(crate) use self::request::{api_key, trace};

use super::grpc;
use super::refusal::{Kind, Refusal};
use super::state::Door;

/// The request's id: the caller's, or one of ours; it stands in our log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id of a caller that is taken over, in bytes.
const REQUEST_ID_BYTES: usize = 128;

/// All paths.
pub(crate) fn router(door: Arc<Door>) -> Router {
    let paths: [(&str, MethodRouter<Arc<Door>>, &'static str); 11] = [
        ("/v1/task/submit", post(submit::submit), "POST"),
        ("/v1/tasks", post(many::many), "POST"),
        ("/v1/task/{id}/status", get(ask::status), "GET, HEAD"),
        ("/v1/task/{id}/result", get(ask::result), "GET, HEAD"),
        ("/v1/task/{id}/cancel", post(ask::cancel), "POST"),
        ("/v1/task/{id}/events", get(follow::events), "GET, HEAD"),
        ("/v1/events", get(follow::many_events), "GET, HEAD"),
        ("/v1/task/{id}/ws", get(socket::socket), "GET, HEAD"),
        ("/problems/{name}", get(explain), "GET, HEAD"),
        ("/v1/overview", get(page::overview), "GET, HEAD"),
        ("/", get(page::page), "GET, HEAD"),
    ];
    let mut router = Router::new().route(
        "/openapi.json",
        get(openapi::document).fallback(async || not_allowed("GET, HEAD")),
    );
    for (path, methods, allowed) in paths {
        router = router.route(path, methods.fallback(async || not_allowed(allowed)));
    }
    router
        .fallback(async |method: Method, request: Request<Body>| no_path(&method, &request))
        .with_state(door)
}

fn no_path(method: &Method, request: &Request<Body>) -> Response<Body> {
    let path: String = request.uri().path().chars().take(200).collect();
    Refusal::new(
        Kind::NotFound,
        format!("there is nothing to {method} at {path}"),
    )
    .into_response()
}

fn not_allowed(allowed: &'static str) -> Response<Body> {
    let refusal = Refusal::new(Kind::MethodNotAllowed, format!("this path takes {allowed}"));
    let mut response = refusal.into_response();
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// What the `type` of a problem leads to.
async fn explain(PathText(name): PathText) -> Response<Body> {
    match problem::explanation(&name) {
        Some(text) => text.into_response(),
        None => Refusal::new(Kind::NotFound, "there is no such kind of problem").into_response(),
    }
}

/// Gives every request an id, and every answer the same; counts and times it. Calls of gRPC, too.
pub(crate) async fn identified(
    State(door): State<Arc<Door>>,
    matched: Option<MatchedPath>,
    request: Request<Body>,
    next: Next,
) -> Response<Body> {
    let began = Instant::now();
    let is_call = grpc::is_call(&request);
    let route = if is_call {
        grpc::route(request.uri().path())
    } else {
        route(matched.as_ref().map_or("", MatchedPath::as_str))
    };
    let id = request_id(request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    let status = if is_call {
        grpc::status(response.headers())
    } else {
        response.status().as_u16()
    };
    if status == 500 {
        tracing::error!(request_id = ?id, %method, path, "a request failed");
    } else {
        tracing::debug!(request_id = ?id, %method, path, status, "answered");
    }
    door.metrics.answered(route, status, began.elapsed());
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn route(path: &str) -> DoorRoute {
    match path {
        "/v1/task/submit" => DoorRoute::Submit,
        "/v1/tasks" => DoorRoute::SubmitMany,
        "/v1/task/{id}/status" => DoorRoute::Status,
        "/v1/task/{id}/result" => DoorRoute::Result,
        "/v1/task/{id}/cancel" => DoorRoute::Cancel,
        "/v1/task/{id}/events" | "/v1/events" | "/v1/task/{id}/ws" => DoorRoute::Watch,
        _ => DoorRoute::Other,
    }
}

fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(&REQUEST_ID).filter(|value| {
        value.len() <= REQUEST_ID_BYTES && value.to_str().is_ok_and(|text| !text.is_empty())
    });
    // A copy: it would keep the whole of the request's head.
    let given = given.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
    given.unwrap_or_else(|| {
        let id = millrace_schemas::TaskId::mint().to_string();
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
    })
}
