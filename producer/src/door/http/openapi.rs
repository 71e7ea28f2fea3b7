//! `/openapi.json`: the description of all paths (OpenAPI 3.1), made from the code.

use std::sync::OnceLock;

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

use super::many::{Answers, ItemAnswer};
use super::problem::Problem;
use super::view::{Accepted, StatusView};
use super::{ask, follow, many, page, socket, submit};
use crate::door::overview::{Failure, Overview};

/// A task.
#[derive(Serialize, ToSchema)]
#[schema(as = Task)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskSchema {
    /// Which handler runs it: 1 to 255 bytes.
    #[serde(rename = "type")]
    #[schema(min_length = 1, max_length = 255, example = "email.send")]
    task_type: String,
    /// The input, any JSON, at most 128 levels deep.
    payload: Option<serde_json::Value>,
    /// The input as bytes, instead of `payload`: base64 (RFC 4648).
    payload_base64: Option<String>,
    /// Media type of the bytes.
    #[schema(max_length = 255)]
    content_type: Option<String>,
    /// Tasks with the same key start one after another.
    #[schema(min_length = 1, max_length = 1024, example = "customer-7")]
    key: Option<String>,
    /// Of tasks with the same deduplication key (and key) only the first runs; the others get its result.
    #[schema(min_length = 1, max_length = 1024)]
    dedup_key: Option<String>,
    /// Not to be started before: RFC 3339.
    #[schema(format = DateTime)]
    run_at: Option<String>,
    /// To be done by then: RFC 3339.
    #[schema(format = DateTime)]
    deadline: Option<String>,
    /// To be done within so many seconds.
    #[schema(exclusive_minimum = 0.0, maximum = 315360000.0)]
    timeout_seconds: Option<f64>,
    /// Where the outcome is posted to.
    #[schema(format = "uri", max_length = 2048)]
    callback: Option<String>,
    /// The caller's name for this request, as the header `Idempotency-Key` gives it.
    #[schema(min_length = 1, max_length = 255)]
    idempotency_key: Option<String>,
}

/// One event of a stream of server-sent events.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct EventSchema {
    /// `status`: how the task stands; `end`: how it ended; `error`: it cannot be followed.
    #[schema(pattern = "^(status|end|error)$", example = "status")]
    event: String,
    /// Names the state: what `Last-Event-ID` takes.
    id: String,
    /// As text: a StatusView, of `error` a Problem.
    #[schema(content_media_type = "application/json")]
    data: String,
}

struct Keys;

impl Modify for Keys {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key; none is needed while none was ever made."))
            .build();
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("key", SecurityScheme::Http(bearer));
    }
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Millrace", description = "Tasks: hand them over, ask, wait, watch, cancel. Every refusal is a problem (RFC 9457)."),
    paths(
        submit::submit, many::many, ask::status, ask::result, ask::cancel, follow::events, follow::many_events, socket::socket, page::overview,
    ),
    components(schemas(TaskSchema, EventSchema, Accepted, StatusView, Answers, ItemAnswer, Problem, Overview, Failure)),
    modifiers(&Keys),
    security((), ("key" = [])),
)]
struct Description;

/// The description.
pub(crate) async fn document() -> Response<Body> {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| Description::openapi().to_json().unwrap_or_default());
    let mut response = Response::new(Body::from(text.as_str()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test states what must hold")]

    use super::*;

    #[test]
    fn bytes_have_no_schema_and_a_result_may_have_any_type() {
        let text = Description::openapi().to_json().unwrap();
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        let at = |pointer: &str| all.pointer(pointer).unwrap();
        let nothing = serde_json::json!({});
        let submit = "/paths/~1v1~1task~1submit/post";
        let result = "/paths/~1v1~1task~1{id}~1result/get";
        let raw = at(&format!("{submit}/requestBody/content"));
        assert_eq!(raw["application/octet-stream"], nothing, "{raw}");
        for path in [submit, result] {
            let content = at(&format!("{path}/responses/200/content"));
            assert_eq!(content["*/*"], nothing, "{content}");
            assert!(content["application/json"].is_object(), "{content}");
        }
        for parameter in at(&format!("{submit}/parameters")).as_array().unwrap() {
            let is_time = ["run_at", "deadline"].contains(&parameter["name"].as_str().unwrap());
            let says_so = parameter["schema"]["format"] == "date-time";
            assert_eq!(says_so, is_time, "{parameter}");
        }
    }

    #[test]
    fn a_stream_of_events_is_described_by_its_events() {
        let text = Description::openapi().to_json().unwrap();
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        for path in ["/v1/events", "/v1/task/{id}/events"] {
            let content = &all["paths"][path]["get"]["responses"]["200"]["content"];
            let schema = &content["text/event-stream"]["schema"];
            assert_eq!(schema["$ref"], "#/components/schemas/Event", "{content}");
        }
        let event = &all["components"]["schemas"]["Event"];
        assert_eq!(
            event["required"],
            serde_json::json!(["event", "id", "data"])
        );
        assert_eq!(
            event["properties"]["data"]["contentMediaType"],
            "application/json"
        );
    }
}
