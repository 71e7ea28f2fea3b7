//! The front door's HTTP: its paths.
//!
//! Each file is a group of paths; here they are put together. Every refusal is a problem (RFC 9457), also for
//! paths and methods that are not there.

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

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, Response, header};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use millrace_telemetry::DoorRoute;

pub(crate) use self::problem::whole_seconds;
use self::request::PathText;
pub(crate) use self::request::{api_key, trace};

use super::refusal::{Kind, Refusal};
use super::state::Door;

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

/// The route that a path leads to, as metrics name it.
pub(crate) fn route(path: &str) -> DoorRoute {
    match path {
        "/v1/task/submit" => DoorRoute::Submit,
        "/v1/tasks" => DoorRoute::SubmitMany,
        "/v1/events" => DoorRoute::Watch,
        _ => {
            let of_task = path.strip_prefix("/v1/task/");
            match of_task.and_then(|rest| rest.split_once('/')) {
                Some((_, "status")) => DoorRoute::Status,
                Some((_, "result")) => DoorRoute::Result,
                Some((_, "cancel")) => DoorRoute::Cancel,
                Some((_, "events" | "ws")) => DoorRoute::Watch,
                _ => DoorRoute::Other,
            }
        }
    }
}
