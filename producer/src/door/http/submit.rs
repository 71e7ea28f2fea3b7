//! `POST /v1/task/submit`: one task, as JSON or as raw bytes.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Response, header};
use serde::Deserialize;

use millrace_store::api_keys::Scope;

use crate::door::body::{self, Raw};
use crate::door::json_text::is_json;
use crate::door::refusal::{Kind, Refusal};
use crate::door::state::Door;

use super::openapi::TaskSchema;
use super::problem::Problem;
use super::request;
use super::view::{self, Accepted};

/// What the query says of a task whose body is its payload.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawQueryOf<'a> {
    #[serde(borrow, rename = "type")]
    task_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    dedup_key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    run_at: Option<Cow<'a, str>>,
    #[serde(borrow)]
    deadline: Option<Cow<'a, str>>,
    timeout_seconds: Option<f64>,
    #[serde(borrow)]
    callback: Option<Cow<'a, str>>,
}

/// Hand over one task
///
/// Answered once all in-sync replicas of Kafka have it. With `Prefer: wait=10` the answer is the result itself, if it
/// is there in time. A body of another type than JSON is the payload as it stands; the query names the rest, of which
/// `type` is needed.
#[utoipa::path(
    post, path = "/v1/task/submit", tag = "tasks",
    request_body(content(
        (TaskSchema = "application/json"),
        ("application/octet-stream"),
    )),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The caller's name for this request: a repeat gets the same task"),
        ("Prefer" = Option<String>, Header, example = "wait=10", description = "Wait so many seconds for the result, 60 at most (RFC 7240)"),
        ("Request-Timeout" = Option<f64>, Header, description = "Seconds within which the task is to be done"),
        ("traceparent" = Option<String>, Header, description = "W3C Trace Context, carried on to the handler"),
        ("type" = Option<String>, Query, description = "With a raw body: the task's type"),
        ("key" = Option<String>, Query, description = "With a raw body: the ordering key"),
        ("dedup_key" = Option<String>, Query, description = "With a raw body: the deduplication key"),
        ("run_at" = Option<String>, Query, format = DateTime, description = "With a raw body: not to be started before, RFC 3339"),
        ("deadline" = Option<String>, Query, format = DateTime, description = "With a raw body: to be done by then, RFC 3339"),
        ("timeout_seconds" = Option<f64>, Query, description = "With a raw body: to be done within so many seconds"),
        ("callback" = Option<String>, Query, description = "With a raw body: where the outcome is posted to"),
    ),
    responses(
        (status = 202, description = "Accepted: durable, and on its way", body = Accepted,
         headers(("Location" = String, description = "Where its status is"), ("Retry-After" = u64, description = "Seconds"))),
        (status = 200, description = "With `Prefer: wait`: the result, in the type in which the handler returned it",
         content((serde_json::Value = "application/json"), ("*/*"))),
        (status = 204, description = "With `Prefer: wait`: it succeeded as the duplicate of a task whose result is not kept any more"),
        (status = "4XX", description = "Refused, or with `Prefer: wait` failed", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the front door", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not possible at present, or the outcome is unknown", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn submit(
    State(door): State<Arc<Door>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    sent: Body,
) -> Result<Response<Body>, Refusal> {
    let caller = door.gate.admit(request::api_key(&headers)?)?;
    caller.needs(Scope::Submit)?;
    let _stay = caller.stay()?;
    let content_type = request::text(&headers, &header::CONTENT_TYPE)?;
    unencoded(&headers)?;
    let bounds = door.bounds;
    let request::ReadBody { bytes, held } =
        request::read(sent, bounds.body_bytes, bounds.body_patience, &door.bodies).await?;
    let mut raw = match content_type {
        Some(content_type) if is_json(content_type) => {
            no_query(query.as_deref())?;
            body::parse(&bytes)?.into_raw()?
        }
        content_type => raw_body(&bytes, content_type, query.as_deref())?,
    };
    let name = request::idempotency_key(&headers)?;
    if let (Some(one), Some(other)) = (&raw.name, &name)
        && one != other
    {
        return Err(Refusal::bad(
            "/idempotency_key",
            "differs from the header Idempotency-Key",
        ));
    }
    raw.name = name.or(raw.name);
    if let Some(text) = request::text(&headers, &request::REQUEST_TIMEOUT)? {
        let seconds: f64 = text
            .trim()
            .parse()
            .map_err(|_| Refusal::bad("Request-Timeout", "expected a number of seconds"))?;
        let timeout = body::seconds("Request-Timeout", seconds)?;
        raw.timeout = Some(raw.timeout.map_or(timeout, |other| other.min(timeout)));
    }
    let submission = raw.into_submission(caller.tenant(), Door::now(), request::trace(&headers))?;
    let wait = request::preferred_wait(&headers);
    drop(bytes);
    let (id, standing) = door.submit(&caller, submission, held, wait).await?;
    let result = match &standing {
        Some(standing) => view::result(&door, id, standing, None).await.ok(),
        None => None,
    };
    // It was accepted, whatever stands in the way of telling more.
    let is_told = result.is_some();
    let mut response = result.unwrap_or_else(|| view::under_way(id, &Accepted::of(id)));
    if let Some(wait) = wait {
        let applied = HeaderValue::from_str(&format!("wait={}", wait.as_secs()));
        let headers = response.headers_mut();
        if let Ok(applied) = applied {
            headers.insert("preference-applied", applied);
        }
        headers.insert(header::VARY, HeaderValue::from_static("prefer"));
        if is_told && let Ok(location) = HeaderValue::from_str(&format!("/v1/task/{id}/result")) {
            headers.insert(header::CONTENT_LOCATION, location);
        }
    }
    Ok(response)
}

/// Bodies are taken as they are: nothing that is small on the wire becomes large here.
pub(crate) fn unencoded(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get(header::CONTENT_ENCODING) {
        None => Ok(()),
        Some(encoding) if encoding.as_bytes().eq_ignore_ascii_case(b"identity") => Ok(()),
        Some(_) => Err(Refusal::new(
            Kind::UnsupportedMediaType,
            "packed bodies are not taken: send it without Content-Encoding",
        )
        .at("Content-Encoding")),
    }
}

fn no_query(query: Option<&str>) -> Result<(), Refusal> {
    match query {
        None | Some("") => Ok(()),
        Some(_) => Err(Refusal::bad(
            "query",
            "with a JSON body everything stands in the body",
        )),
    }
}

fn raw_body<'a>(
    payload: &'a [u8],
    content_type: Option<&'a str>,
    query: Option<&'a str>,
) -> Result<Raw<'a>, Refusal> {
    let query: RawQueryOf<'a> = serde_urlencoded::from_str(query.unwrap_or_default())
        .map_err(|error| Refusal::bad("query", error.to_string()))?;
    let (Some(content_type), Some(task_type)) = (content_type, query.task_type) else {
        return Err(Refusal::new(
            Kind::UnsupportedMediaType,
            "expected application/json; for a raw payload, its own Content-Type and ?type=NAME",
        )
        .at("Content-Type"));
    };
    Ok(Raw {
        task_type,
        payload: Cow::Borrowed(payload),
        content_type: Cow::Borrowed(content_type),
        key: query.key,
        dedup_key: query.dedup_key,
        run_at: query
            .run_at
            .map(|text| body::time("run_at", &text))
            .transpose()?,
        deadline: query
            .deadline
            .map(|text| body::time("deadline", &text))
            .transpose()?,
        timeout: query
            .timeout_seconds
            .map(|seconds| body::seconds("timeout_seconds", seconds))
            .transpose()?,
        callback: query.callback,
        name: None,
    })
}
