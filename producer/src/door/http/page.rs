//! `/`: a page for people, and what it shows of all tasks together.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, header};

use millrace_store::api_keys::Scope;

use crate::door::overview::Overview;
use crate::door::refusal::Refusal;
use crate::door::state::Door;

use super::problem::Problem;
use super::request;
use super::view::json;

const PAGE: &str = include_str!("page/index.html");
/// The page runs its own script and style, and talks to its own front door only.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page.
pub(crate) async fn page() -> Response<Body> {
    let mut response = Response::new(Body::from(PAGE));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// How all tasks stand together
///
/// Numbers of all tenants, and the latest failures of one's own: where keys are in use, it takes one with the scope
/// `admin`.
#[utoipa::path(
    get, path = "/v1/overview", tag = "operations",
    responses(
        (status = 200, description = "How all stands, or stood a moment ago", body = Overview),
        (status = "4XX", description = "Not allowed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not possible at present", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn overview(
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
) -> Result<Response<Body>, Refusal> {
    let caller = door.gate.admit(request::api_key(&headers)?)?;
    caller.needs(Scope::Admin)?;
    let _stay = caller.stay()?;
    let overview = door
        .overviews
        .now(caller.tenant(), door.waiting.count())
        .await?;
    let mut response = json(&overview);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
