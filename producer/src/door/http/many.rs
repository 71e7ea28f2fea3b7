//! `POST /v1/tasks`: many tasks, as a JSON array or as a stream of NDJSON lines; an answer for each, in order.
//!
//! A stream is worked on while it arrives: lines go to Kafka as they come, and answers flow back meanwhile. Memory
//! holds some hundred lines, however long the stream is.

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use serde::Serialize;
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use millrace_schemas::TaskId;
use millrace_store::api_keys::Scope;

use crate::door::body;
use crate::door::gate::Caller;
use crate::door::intake::{Submission, TraceContext};
use crate::door::json_text::is_json;
use crate::door::memory::Held;
use crate::door::readers::Watched;
use crate::door::refusal::{Kind, Refusal};
use crate::door::state::Door;

use super::lines;
use super::openapi::TaskSchema;
use super::problem::Problem;
use super::request;
use super::submit::unencoded;
use super::view::json;

/// The answer for one task of many.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ItemAnswer {
    /// It was accepted.
    Accepted {
        /// Its id, a UUIDv7.
        task_id: String,
        /// Always `accepted`.
        status: &'static str,
    },
    /// It was not, or nobody knows.
    Refused {
        /// Always `refused`, or `unknown`.
        status: &'static str,
        /// What was wrong.
        error: Problem,
    },
}

impl From<Result<TaskId, Refusal>> for ItemAnswer {
    fn from(answer: Result<TaskId, Refusal>) -> Self {
        match answer {
            Ok(id) => Self::Accepted {
                task_id: id.to_string(),
                status: "accepted",
            },
            Err(refusal) => Self::Refused {
                status: match refusal.kind {
                    Kind::OutcomeUnknown => "unknown",
                    _ => "refused",
                },
                error: Problem::from(&refusal),
            },
        }
    }
}

/// The answers for many tasks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Answers {
    /// How many were accepted.
    pub accepted: usize,
    /// One for each task, in their order.
    pub items: Vec<ItemAnswer>,
}

/// Hand over many tasks
///
/// A JSON array is answered as a whole: 202 when all were accepted, 207 when some were not. A stream of NDJSON is answered
/// by a stream of NDJSON, line by line while it arrives. Each task may carry an `idempotency_key` of its own.
#[utoipa::path(
    post, path = "/v1/tasks", tag = "tasks",
    request_body(content(
        (Vec<TaskSchema> = "application/json"),
        (String = "application/x-ndjson"),
    )),
    responses(
        (status = 202, description = "All were accepted", body = Answers),
        (status = 207, description = "Some were not: each item says so", body = Answers),
        (status = 200, description = "To a stream: an answer for each line", body = String, content_type = "application/x-ndjson"),
        (status = "4XX", description = "Refused as a whole", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the front door", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not possible at present", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn many(
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
    sent: Body,
) -> Result<Response<Body>, Refusal> {
    let caller = door.gate.admit(request::api_key(&headers)?)?;
    caller.needs(Scope::Submit)?;
    let stay = caller.stay()?;
    unencoded(&headers)?;
    if headers.contains_key(&request::IDEMPOTENCY_KEY) {
        return Err(Refusal::bad(
            "Idempotency-Key",
            "many tasks are many requests: give each its own idempotency_key",
        ));
    }
    let trace = request::trace(&headers);
    let content_type = request::text(&headers, &header::CONTENT_TYPE)?.unwrap_or_default();
    if is_ndjson(content_type) {
        let place = door.stream_place()?;
        let answers = lines::answered(door, caller, trace, sent, (stay, place));
        let mut response = Response::new(answers);
        response.extensions_mut().insert(Watched::STREAM);
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-ndjson"),
        );
        return Ok(response);
    }
    if !is_json(content_type) {
        return Err(Refusal::new(
            Kind::UnsupportedMediaType,
            "expected a JSON array (application/json) or a stream of lines (application/x-ndjson)",
        )
        .at("Content-Type"));
    }
    let bounds = door.bounds;
    let request::ReadBody { bytes, held } =
        request::read(sent, bounds.bulk_bytes, bounds.body_patience, &door.bodies).await?;
    let items = items(&bytes, bounds.bulk_tasks)?;
    caller.spend(items.len())?;
    let texts = items.iter().map(|item| item.get().as_bytes());
    let parsed = parse(&door, &caller, &trace, texts);
    drop(items);
    drop(bytes);
    let answers = hand_over(&door, parsed, held).await?;
    let accepted = answers.iter().filter(|answer| answer.is_ok()).count();
    let all = accepted == answers.len();
    let body = Answers {
        accepted,
        items: answers.into_iter().map(ItemAnswer::from).collect(),
    };
    let status = if all {
        StatusCode::ACCEPTED
    } else {
        StatusCode::MULTI_STATUS
    };
    Ok((status, json(&body)).into_response())
}

/// The items of an array of at most `most`; what is beyond them is not looked at.
fn items(text: &[u8], most: usize) -> Result<Vec<&RawValue>, Refusal> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let items = reader.deserialize_seq(Items { most }).and_then(|items| {
        if items.is_some() {
            reader.end()?;
        }
        Ok(items)
    });
    match items {
        Ok(Some(items)) => Ok(items),
        Ok(None) => Err(Refusal::new(
            Kind::TooLarge,
            format!(
                "more than the {most} tasks that one array may hold: send a stream of lines instead"
            ),
        )),
        Err(error) => Err(Refusal::bad(
            "",
            format!("expected an array of tasks: {error}"),
        )),
    }
}

/// Reads so many items, or nothing when there are more.
struct Items {
    most: usize,
}

impl<'de> Visitor<'de> for Items {
    type Value = Option<Vec<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            if items.len() >= self.most {
                return Ok(None);
            }
            items.push(item);
        }
        Ok(Some(items))
    }
}

fn is_ndjson(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    [
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
    ]
    .iter()
    .any(|known| essence.eq_ignore_ascii_case(known))
}

/// Many tasks that were read: what can be sent, and what was refused at once.
pub(super) struct Parsed {
    /// One for each task; those of good ones are filled in when Kafka has answered.
    answers: Vec<Result<TaskId, Refusal>>,
    good: Vec<Submission>,
    /// Where the good ones stand.
    places: Vec<usize>,
}

pub(super) fn parse<'t>(
    door: &Door,
    caller: &Caller,
    trace: &Arc<TraceContext>,
    texts: impl Iterator<Item = &'t [u8]>,
) -> Parsed {
    let now = Door::now();
    let mut parsed = Parsed {
        answers: Vec::new(),
        good: Vec::new(),
        places: Vec::new(),
    };
    for (place, text) in texts.enumerate() {
        let task = if text.len() > door.bounds.body_bytes {
            Err(body::too_large(door.bounds.body_bytes))
        } else {
            body::parse(text)
                .and_then(body::TaskBody::into_raw)
                .and_then(|raw| raw.into_submission(caller.tenant(), now, trace.clone()))
        };
        match task {
            Ok(submission) => {
                parsed.places.push(place);
                parsed.good.push(submission);
                parsed.answers.push(Err(Refusal::kafka_is_behind()));
            }
            Err(refusal) => parsed.answers.push(Err(refusal)),
        }
    }
    parsed
}

/// Hands over what can be sent, and answers for each task in their order.
pub(super) async fn hand_over(
    door: &Door,
    mut parsed: Parsed,
    held: Held,
) -> Result<Vec<Result<TaskId, Refusal>>, Refusal> {
    if !parsed.good.is_empty() {
        let sent = door.intake.submit_all(parsed.good, held).await?;
        for (place, answer) in parsed.places.into_iter().zip(sent) {
            if let Some(slot) = parsed.answers.get_mut(place) {
                *slot = answer;
            }
        }
    }
    Ok(parsed.answers)
}

pub(super) fn line(answer: Result<TaskId, Refusal>) -> Bytes {
    let mut text = serde_json::to_vec(&ItemAnswer::from(answer)).unwrap_or_default();
    text.push(b'\n');
    text.into()
}
