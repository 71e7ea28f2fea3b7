//! What a caller sends as a task, and how it becomes an event.
//!
//! The same rules for one task, for many, and for gRPC: what a task may hold is checked here, before anything is
//! sent, and every refusal names the field.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use millrace_schemas::{TaskEvent, TaskId, limits};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::intake::{Submission, TraceContext};
use super::json_text::{depth, is_json};
use super::refusal::{Kind, Refusal};

/// Longest time that a task may be held back or given, in seconds: ten years.
const MOST_SECONDS: f64 = 315_360_000.0;

/// A task as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskBody<'a> {
    /// Which handler runs it.
    #[serde(borrow, rename = "type")]
    pub task_type: Cow<'a, str>,
    /// The input, any JSON.
    #[serde(borrow, default)]
    pub payload: Option<&'a RawValue>,
    /// The input as bytes, instead of `payload`.
    #[serde(borrow, default)]
    pub payload_base64: Option<Cow<'a, str>>,
    /// Media type of the bytes.
    #[serde(borrow, default)]
    pub content_type: Option<Cow<'a, str>>,
    /// Tasks with the same key start one after another.
    #[serde(borrow, default)]
    pub key: Option<Cow<'a, str>>,
    /// Of tasks with the same deduplication key only the first runs.
    #[serde(borrow, default)]
    pub dedup_key: Option<Cow<'a, str>>,
    /// Not to be started before, RFC 3339.
    #[serde(borrow, default)]
    pub run_at: Option<Cow<'a, str>>,
    /// To be done by then, RFC 3339.
    #[serde(borrow, default)]
    pub deadline: Option<Cow<'a, str>>,
    /// To be done within so many seconds.
    #[serde(default)]
    pub timeout_seconds: Option<f64>,
    /// Where the outcome is posted to.
    #[serde(borrow, default)]
    pub callback: Option<Cow<'a, str>>,
    /// The caller's name for this request, as the header `Idempotency-Key` gives it.
    #[serde(borrow, default)]
    pub idempotency_key: Option<Cow<'a, str>>,
}

/// A task whatever form it came in, not checked yet.
#[derive(Debug, Default)]
pub(crate) struct Raw<'a> {
    pub task_type: Cow<'a, str>,
    pub payload: Cow<'a, [u8]>,
    pub content_type: Cow<'a, str>,
    pub key: Option<Cow<'a, str>>,
    pub dedup_key: Option<Cow<'a, str>>,
    pub run_at: Option<DateTime<Utc>>,
    pub deadline: Option<DateTime<Utc>>,
    pub timeout: Option<Duration>,
    pub callback: Option<Cow<'a, str>>,
    pub name: Option<Cow<'a, str>>,
}

/// Longest idempotency key, in bytes.
const NAME_BYTES: usize = 255;

/// Reads a task from JSON text.
///
/// # Errors
/// Which field is missing, unknown or of another type, and where in the text.
pub(crate) fn parse(text: &[u8]) -> Result<TaskBody<'_>, Refusal> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let body: TaskBody<'_> = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        // What is not known of the path stands in it as a dot or a question mark.
        let at: String = path
            .split('.')
            .filter(|part| !part.is_empty() && *part != "?")
            .map(|part| format!("/{part}"))
            .collect();
        Refusal::bad(at, error.into_inner().to_string())
    })?;
    reader
        .end()
        .map_err(|error| Refusal::bad("", format!("after the task: {error}")))?;
    Ok(body)
}

impl<'a> TaskBody<'a> {
    /// The same, without the form of JSON.
    pub(crate) fn into_raw(self) -> Result<Raw<'a>, Refusal> {
        let (payload, content_type) = match (self.payload, self.payload_base64) {
            (Some(_), Some(_)) => {
                return Err(Refusal::bad(
                    "/payload_base64",
                    "either payload or payload_base64, not both",
                ));
            }
            (None, Some(text)) => {
                let bytes = STANDARD.decode(text.as_bytes()).map_err(|error| {
                    Refusal::bad("/payload_base64", format!("no base64 (RFC 4648): {error}"))
                })?;
                let content_type = self
                    .content_type
                    .unwrap_or(Cow::Borrowed("application/octet-stream"));
                (Cow::Owned(bytes), content_type)
            }
            (payload, None) => {
                if let Some(content_type) = &self.content_type
                    && !is_json(content_type)
                {
                    return Err(Refusal::bad(
                        "/content_type",
                        "payload is JSON; bytes of another type go into payload_base64",
                    ));
                }
                let text = payload.map_or("null", RawValue::get);
                depth(text.as_bytes()).map_err(|reason| Refusal::bad("/payload", reason))?;
                let content_type = self
                    .content_type
                    .unwrap_or(Cow::Borrowed("application/json"));
                (Cow::Borrowed(text.as_bytes()), content_type)
            }
        };
        Ok(Raw {
            task_type: self.task_type,
            payload,
            content_type,
            key: self.key,
            dedup_key: self.dedup_key,
            run_at: self.run_at.map(|text| time("/run_at", &text)).transpose()?,
            deadline: self
                .deadline
                .map(|text| time("/deadline", &text))
                .transpose()?,
            timeout: self
                .timeout_seconds
                .map(|seconds| self::seconds("/timeout_seconds", seconds))
                .transpose()?,
            callback: self.callback,
            name: self.idempotency_key,
        })
    }
}

impl Raw<'_> {
    /// Makes what is handed over, under a new id, as of `now`. The name of the request is the deduplication key
    /// as well, unless there is another: then repeats meet in one partition, whoever sends them.
    ///
    /// # Errors
    /// Which field is out of its range.
    pub(crate) fn into_submission(
        self,
        tenant: &str,
        now: DateTime<Utc>,
        trace: Arc<TraceContext>,
    ) -> Result<Submission, Refusal> {
        if let Some(name) = self.name.as_deref()
            && (name.is_empty() || name.len() > NAME_BYTES || name.contains('\0'))
        {
            return Err(Refusal::bad(
                "Idempotency-Key",
                format!("expected 1 to {NAME_BYTES} bytes without NUL"),
            ));
        }
        if self.task_type.is_empty() {
            return Err(Refusal::bad("/type", "a task needs a type"));
        }
        for (at, key) in [("/key", &self.key), ("/dedup_key", &self.dedup_key)] {
            if key.as_deref() == Some("") {
                return Err(Refusal::bad(at, "empty: leave it out instead"));
            }
        }
        if let Some(url) = self.callback.as_deref() {
            target(url).map_err(|reason| Refusal::bad("/callback", reason))?;
        }
        let until = self
            .timeout
            .map(|timeout| {
                let timeout = TimeDelta::from_std(timeout).ok();
                timeout
                    .and_then(|timeout| now.checked_add_signed(timeout))
                    .ok_or_else(|| Refusal::bad("/timeout_seconds", "ten years at most"))
            })
            .transpose()?;
        let deadline = match (self.deadline, until) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        if let Some(deadline) = deadline
            && deadline <= now
        {
            return Err(Refusal::bad("/deadline", "the deadline has passed"));
        }
        let event = TaskEvent {
            task_id: TaskId::mint(),
            task_type: self.task_type.into_owned(),
            tenant: tenant.to_owned(),
            key: self.key.map(Cow::into_owned),
            dedup_key: self
                .dedup_key
                .or_else(|| self.name.clone())
                .map(Cow::into_owned),
            submitted_at: now.timestamp_micros(),
            run_at: self.run_at.map(|at| at.timestamp_micros()),
            deadline: deadline.map(|at| at.timestamp_micros()),
            content_type: self.content_type.into_owned(),
            reply: true,
            callback: self.callback.map(Cow::into_owned),
            payload: self.payload.into_owned(),
        };
        limits::check(&event.as_ref())?;
        Ok(Submission {
            event,
            name: self.name.map(|name| name.into()),
            trace,
        })
    }
}

/// A point in time as RFC 3339 writes it.
pub(crate) fn time(at: &str, text: &str) -> Result<DateTime<Utc>, Refusal> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.to_utc())
        .map_err(|error| {
            Refusal::bad(
                at,
                format!("expected a time such as 2026-11-21T08:00:00Z (RFC 3339): {error}"),
            )
        })
}

/// A length of time in seconds.
pub(crate) fn seconds(at: &str, seconds: f64) -> Result<Duration, Refusal> {
    if seconds > 0.0 && seconds <= MOST_SECONDS {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(Refusal::bad(
        at,
        "expected a number of seconds above 0, ten years at most",
    ))
}

/// Whether something may be the target of a callback. Where it leads to is looked at when it is called.
fn target(url: &str) -> Result<(), &'static str> {
    let url: Uri = url
        .parse()
        .map_err(|_| "expected an absolute URL such as https://example.com/done (RFC 3986)")?;
    match url.scheme_str() {
        Some("http" | "https") => {}
        Some(_) => return Err("expected a URL with the scheme http or https"),
        None => return Err("expected an absolute URL, with its scheme"),
    }
    if url
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err("a name and a password in a URL would be kept in the clear: leave them out");
    }
    Ok(())
}

/// A body over its limit.
pub(crate) fn too_large(limit: usize) -> Refusal {
    Refusal::new(
        Kind::TooLarge,
        format!("the body has more than the {limit} bytes allowed"),
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test states what must hold")]

    use super::*;

    fn event(text: &str) -> Result<TaskEvent, Refusal> {
        parse(text.as_bytes())?
            .into_raw()?
            .into_submission("acme", Utc::now(), Arc::default())
            .map(|submission| submission.event)
    }

    #[test]
    fn a_payload_keeps_its_text_as_it_came() {
        let event = event(r#"{"type":"mail", "payload": {"b":1.0 , "a":"\u00e9"}}"#).unwrap();
        assert_eq!(event.payload, br#"{"b":1.0 , "a":"\u00e9"}"#);
        assert_eq!(
            (&*event.content_type, &*event.tenant),
            ("application/json", "acme")
        );
        assert!(event.reply);
    }

    #[test]
    fn bytes_come_as_base64_with_their_type() {
        let text = r#"{"type":"t","payload_base64":"AAEC","content_type":"image/png"}"#;
        let event = event(text).unwrap();
        assert_eq!(
            (event.payload, &*event.content_type),
            (vec![0, 1, 2], "image/png")
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let deep = format!(
            r#"{{"type":"t","payload":{}{}}}"#,
            "[".repeat(129),
            "]".repeat(129)
        );
        let cases = [
            ("", ""),
            ("[]", ""),
            ("{", ""),
            (r#"{"payload":1}"#, ""),
            (r#"{"type":5}"#, "/type"),
            (r#"{"type":""}"#, "/type"),
            (r#"{"type":"t","colour":1}"#, "/colour"),
            (r#"{"type":"t"} x"#, ""),
            (r#"{"type":"t","run_at":"tomorrow"}"#, "/run_at"),
            (
                r#"{"type":"t","deadline":"2001-01-01T00:00:00Z"}"#,
                "/deadline",
            ),
            (r#"{"type":"t","timeout_seconds":0}"#, "/timeout_seconds"),
            (
                r#"{"type":"t","timeout_seconds":1e300}"#,
                "/timeout_seconds",
            ),
            (r#"{"type":"t","key":""}"#, "/key"),
            (r#"{"type":"t","callback":"done"}"#, "/callback"),
            (r#"{"type":"t","callback":"/done"}"#, "/callback"),
            (r#"{"type":"t","callback":"ftp://a.example/"}"#, "/callback"),
            (
                r#"{"type":"t","callback":"https://me:secret@a.example/"}"#,
                "/callback",
            ),
            (r#"{"type":"t","callback":"https://a b/"}"#, "/callback"),
            (r#"{"type":"t","payload_base64":"%"}"#, "/payload_base64"),
            (
                r#"{"type":"t","payload":1,"payload_base64":""}"#,
                "/payload_base64",
            ),
            (
                r#"{"type":"t","payload":1,"content_type":"text/plain"}"#,
                "/content_type",
            ),
            (r#"{"type":"t","idempotency_key":""}"#, "Idempotency-Key"),
            (r#"{"type":"a\u0000b"}"#, "/type"),
            (&deep, "/payload"),
        ];
        for (text, at) in cases {
            let refusal = event(text).unwrap_err();
            assert_eq!(refusal.kind, Kind::BadRequest, "{text}");
            assert_eq!(
                refusal.at.as_deref(),
                Some(at),
                "{text}: {}",
                refusal.detail
            );
        }
    }

    #[test]
    fn the_earlier_of_deadline_and_timeout_holds() {
        let now = Utc::now();
        let body = parse(br#"{"type":"t","deadline":"2999-01-01T00:00:00Z","timeout_seconds":5}"#);
        let raw = body.unwrap().into_raw().unwrap();
        let event = raw
            .into_submission("acme", now, Arc::default())
            .unwrap()
            .event;
        let expected = (now + Duration::from_secs(5)).timestamp_micros();
        assert_eq!(event.deadline, Some(expected));
    }
}
