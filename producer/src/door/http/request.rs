//! What is read from a request before its content counts: who, which task, how long to wait, which trace.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use millrace_schemas::TaskId;
use tokio::time::{Instant, timeout_at};

use crate::door::body::too_large;
use crate::door::intake::TraceContext;
use crate::door::memory::{BodyMemory, Held};
use crate::door::refusal::{Kind, Refusal};

/// `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// `Prefer` (RFC 7240).
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");
/// How long the caller gives the task, in seconds.
pub(crate) const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("request-timeout");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Longest wait for a result in one request.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Longest `tracestate` and `baggage` that are carried on, in bytes.
const TRACESTATE_BYTES: usize = 512;
const BAGGAGE_BYTES: usize = 8_192;
/// How long, and how much, a body that is too large is read on.
const DRAINED_FOR: Duration = Duration::from_secs(1);
const DRAINED_BYTES: usize = 4 << 20;

/// The text of a header, if it is there once or more: the first.
pub(crate) fn text<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h str>, Refusal> {
    headers
        .get(name)
        .map(|value| {
            value
                .to_str()
                .map_err(|_| Refusal::bad(name.as_str(), "expected visible ASCII characters"))
        })
        .transpose()
}

/// The API key that the request presents.
pub(crate) fn api_key(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(authorization) = text(headers, &header::AUTHORIZATION)? else {
        return text(headers, &API_KEY);
    };
    let (scheme, key) = authorization.split_once(' ').unwrap_or((authorization, ""));
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(Some(key.trim()))
    } else {
        Err(
            Refusal::new(Kind::Unauthorized, "expected `Authorization: Bearer <key>`")
                .at("Authorization"),
        )
    }
}

/// What stands in a path; nothing, where it is no text. A path that names nothing is answered as such, whatever
/// is wrong with it.
pub(crate) struct PathText(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathText {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        Ok(Self(path.map_or_else(|_| String::new(), |Path(text)| text)))
    }
}

/// The id in a path. What is no id at all is as unknown as an id that nobody has.
pub(crate) fn task_id(text: &str) -> Result<TaskId, Refusal> {
    text.parse().map_err(|error| {
        Refusal::new(Kind::NotFound, format!("no task has this id: {error}")).at("id")
    })
}

/// The name of the request: a string of RFC 8941 (in quotes), or the same without quotes.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, Refusal> {
    let Some(text) = text(headers, &IDEMPOTENCY_KEY)? else {
        return Ok(None);
    };
    let text = text.trim();
    let Some(quoted) = text.strip_prefix('"') else {
        return Ok(Some(Cow::Borrowed(text)));
    };
    let malformed = || {
        Refusal::bad(
            IDEMPOTENCY_KEY.as_str(),
            "expected a string in double quotes, with \\\" and \\\\ as its only escapes (RFC 8941)",
        )
    };
    let quoted = quoted.strip_suffix('"').ok_or_else(malformed)?;
    let mut key = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return Err(malformed()),
            '\\' => match characters.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => return Err(malformed()),
            },
            other => key.push(other),
        }
    }
    Ok(Some(Cow::Owned(key)))
}

/// How long the query asks to wait: `30s`, `500ms`, or a number of seconds.
pub(crate) fn wait(text: &str) -> Result<Duration, Refusal> {
    let wait = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    wait.map(|wait| wait.min(LONGEST_WAIT)).ok_or_else(|| {
        Refusal::bad(
            "wait",
            "expected a time such as 30s, 500ms or 30 (seconds); more than 60s is taken as 60s",
        )
    })
}

/// How long the preference `wait` asks to wait (RFC 7240, section 4.3), if there is one. Preferences that are
/// not understood are passed over, as the RFC wants it.
pub(crate) fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|preference| {
            let token = preference.split(';').next()?.trim();
            let (name, value) = token.split_once('=')?;
            if !name.trim().eq_ignore_ascii_case("wait") {
                return None;
            }
            let seconds: u64 = value.trim().trim_matches('"').parse().ok()?;
            Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
        })
}

/// The trace that the request belongs to. A `traceparent` that is none is dropped with the state that belongs
/// to it, as the specification wants it.
pub(crate) fn trace(headers: &HeaderMap) -> Arc<TraceContext> {
    let text = |name: &'static str, most: usize| {
        let value = headers.get(name)?.to_str().ok()?;
        (!value.is_empty() && value.len() <= most).then_some(value)
    };
    let text = |name, most| text(name, most).map(Box::<str>::from);
    let traceparent = text("traceparent", 256).filter(|value| is_traceparent(value));
    Arc::new(TraceContext {
        tracestate: traceparent
            .as_ref()
            .and_then(|_| text("tracestate", TRACESTATE_BYTES)),
        traceparent,
        baggage: text("baggage", BAGGAGE_BYTES),
    })
}

/// Whether a text is a `traceparent` (W3C Trace Context, section 3.2).
pub(crate) fn is_traceparent(value: &str) -> bool {
    let hex = |text: &str, length: usize| {
        text.len() == length
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let mut parts = value.split('-');
    let (Some(version), Some(trace), Some(parent), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && !is_zero(trace)
        && hex(parent, 16)
        && !is_zero(parent)
        && hex(flags, 2)
        && (version != "00" || parts.next().is_none())
}

/// A body that was read, and the room that it takes.
pub(crate) struct ReadBody {
    pub(crate) bytes: Bytes,
    pub(crate) held: Held,
}

/// Reads a whole body of at most `most` bytes within `patience`.
///
/// # Errors
/// It is too large, takes too long, breaks off, or all bodies together are more than the memory for them.
pub(crate) async fn read(
    body: Body,
    most: usize,
    patience: Duration,
    memory: &BodyMemory,
) -> Result<ReadBody, Refusal> {
    let until = Instant::now() + patience;
    let mut body = body;
    let mut length = 0;
    if body.size_hint().lower() > most as u64 {
        drain(body).await;
        return Err(too_large(most));
    }
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut held = memory.nothing();
    loop {
        let frame = timeout_at(until, body.frame()).await.map_err(|_| {
            Refusal::new(
                Kind::BadRequest,
                format!("the body did not arrive within {} s", patience.as_secs()),
            )
        })?;
        let frame = match frame {
            None => break,
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Err(Refusal::new(Kind::BadRequest, "the body broke off")),
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        if length > most {
            drain(body).await;
            return Err(too_large(most));
        }
        held.grow(data.len())?;
        // One frame is the usual case, and needs no copy.
        if first.is_empty() && whole.is_empty() {
            first = data;
        } else {
            if whole.is_empty() {
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&data);
        }
    }
    let bytes = if whole.is_empty() {
        first
    } else {
        whole.freeze()
    };
    Ok(ReadBody { bytes, held })
}

/// Reads on for a moment and throws it away: a connection that is closed with something unread is reset, and its
/// client may never see the answer.
pub(crate) async fn drain(mut body: Body) {
    let until = Instant::now() + DRAINED_FOR;
    let mut left = DRAINED_BYTES;
    while let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test states what must hold")]

    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn a_request_is_named_with_quotes_or_without() {
        let key = |text| {
            let headers = headers(&[("idempotency-key", text)]);
            idempotency_key(&headers).map(|key| key.map(Cow::into_owned))
        };
        assert_eq!(key("abc-1").unwrap().as_deref(), Some("abc-1"));
        assert_eq!(key("\"abc-1\"").unwrap().as_deref(), Some("abc-1"));
        assert_eq!(key(r#""a\"b\\c""#).unwrap().as_deref(), Some(r#"a"b\c"#));
        for malformed in ["\"abc", "\"a\"b\"", r#""a\b""#, "\""] {
            assert_eq!(key(malformed).unwrap_err().kind, Kind::BadRequest);
        }
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_preference_to_wait_is_found_among_others() {
        let preferred = |text| preferred_wait(&headers(&[("prefer", text)]));
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(preferred("wait=10"), seconds(10));
        assert_eq!(preferred("respond-async, Wait=\"5\"; foo"), seconds(5));
        assert_eq!(preferred("wait=100000"), Some(LONGEST_WAIT));
        for other in ["respond-async", "wait", "wait=soon", "waits=1"] {
            assert_eq!(preferred(other), None, "{other}");
        }
    }

    #[test]
    fn a_wait_has_a_unit_or_is_in_seconds() {
        assert_eq!(wait("30s").unwrap(), Duration::from_secs(30));
        assert_eq!(wait("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(wait("1.5").unwrap(), Duration::from_millis(1500));
        assert_eq!(wait("10h").unwrap(), LONGEST_WAIT);
        for bad in ["", "soon", "-1", "NaN", "inf"] {
            assert!(wait(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_trace_is_carried_on_only_when_it_is_one() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let good = trace(&headers(&[("traceparent", parent), ("tracestate", "a=1")]));
        assert_eq!(good.traceparent.as_deref(), Some(parent));
        assert_eq!(good.tracestate.as_deref(), Some("a=1"));
        for bad in [
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "nonsense",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
        let bad = trace(&headers(&[("traceparent", "x"), ("tracestate", "a=1")]));
        assert_eq!(*bad, TraceContext::default());
    }

    #[test]
    fn a_key_comes_as_bearer_or_in_its_own_header() {
        let key = |pairs| api_key(&headers(pairs)).map(|key| key.map(str::to_owned));
        assert_eq!(
            key(&[("authorization", "Bearer abc")]).unwrap().as_deref(),
            Some("abc")
        );
        assert_eq!(
            key(&[("x-api-key", "abc")]).unwrap().as_deref(),
            Some("abc")
        );
        assert_eq!(key(&[]).unwrap(), None);
        let basic = key(&[("authorization", "Basic abc")]).unwrap_err();
        assert_eq!(basic.kind, Kind::Unauthorized);
    }
}
