//! The body of a callback: `{type, timestamp, data}`, under 20 kB.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat};
use millrace_store::callbacks::Callback;
use millrace_store::finished::{Finished, Returned};
use serde::Serialize;
use serde_json::value::RawValue;

/// Longest result that comes along, in bytes; beyond it the receiver fetches it.
const RESULT_BYTES: usize = 12_000;

#[derive(Serialize)]
struct Message<'a> {
    /// `task.success`, `task.failed`, `task.cancelled`, `task.expired`.
    r#type: String,
    /// When the task ended, RFC 3339.
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    task_id: String,
    task_type: &'a str,
    status: &'static str,
    attempts: i16,
    run: i16,
    submitted_at: String,
    completed_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate_of: Option<String>,
    /// The result, where it is JSON and short.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    /// The result, where it is short and of another type.
    #[serde(skip_serializing_if = "Option::is_none")]
    result_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    /// True when there is a result that is too long to come along.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    result_omitted: bool,
    /// Why there is no result.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RawValue>,
}

/// The id of a callback's message: the same with each attempt.
pub(super) fn id(callback: &Callback) -> String {
    format!(
        "msg_{}_{}",
        callback.task_id.as_uuid().simple(),
        callback.run
    )
}

/// The body of a callback's message.
pub(super) fn body(callback: &Callback, end: &Finished) -> Vec<u8> {
    let time = |ms: i64| {
        let time = DateTime::from_timestamp_millis(ms).unwrap_or_default();
        time.to_rfc3339_opts(SecondsFormat::Millis, true)
    };
    let mut data = Data {
        task_id: callback.task_id.to_string(),
        task_type: &end.task_type,
        status: end.status.as_str(),
        attempts: end.attempts,
        run: end.run,
        submitted_at: time(end.submitted_ms),
        completed_at: time(end.completed_ms),
        duplicate_of: end.duplicate_of.map(|id| id.to_string()),
        result: None,
        result_base64: None,
        content_type: None,
        result_omitted: false,
        error: None,
    };
    match &end.returned {
        Returned::Body {
            content_type,
            bytes,
        } => {
            data.content_type = Some(content_type);
            let text = std::str::from_utf8(bytes).ok();
            let json = text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
            match json.filter(|_| content_type.starts_with("application/json")) {
                _ if bytes.len() > RESULT_BYTES => data.result_omitted = true,
                Some(json) => data.result = Some(json),
                None => data.result_base64 = Some(STANDARD.encode(bytes)),
            }
        }
        Returned::Long { content_type } => {
            data.content_type = Some(content_type);
            data.result_omitted = true;
        }
        Returned::Nothing { error } => {
            let error = error.as_deref().filter(|error| error.len() <= RESULT_BYTES);
            data.error = error.and_then(|error| serde_json::from_str(error).ok());
        }
    }
    let message = Message {
        r#type: format!("task.{}", end.status.as_str()),
        timestamp: time(end.completed_ms),
        data,
    };
    serde_json::to_vec(&message).unwrap_or_default()
}
