//! Between the messages of gRPC and what the front door works with.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use millrace_schemas::TaskId;
use millrace_store::finished::Returned;
use millrace_store::results::StatusWord;
use prost_types::Timestamp;
use tonic::metadata::MetadataMap;

use crate::door::body::{Raw, seconds};
use crate::door::json_text::{check_json, is_json};
use crate::door::lookup::Standing;
use crate::door::refusal::Refusal;
use crate::door::state::Door;

use crate::v1::task_state::Outcome;
use crate::v1::{Result as TaskResult, Status, SubmitRequest, TaskState};

/// A task as it was handed over by gRPC. `left` is what is left of the call's own time.
pub(super) fn raw(request: SubmitRequest, left: Option<Duration>) -> Result<Raw<'static>, Refusal> {
    let content_type = if request.content_type.is_empty() {
        "application/json".to_owned()
    } else {
        request.content_type
    };
    if is_json(&content_type) {
        check_json(&request.payload)?;
    }
    let given = |text: String| (!text.is_empty()).then_some(Cow::Owned(text));
    let timeout = request
        .timeout
        .map(|timeout| {
            let timeout = Duration::try_from(timeout)
                .map_err(|_| Refusal::bad("timeout", "expected a time above 0"))?;
            seconds("timeout", timeout.as_secs_f64())
        })
        .transpose()?;
    let left = left.filter(|_| request.deadline_from_call);
    Ok(Raw {
        task_type: Cow::Owned(request.r#type),
        payload: Cow::Owned(request.payload),
        content_type: Cow::Owned(content_type),
        key: given(request.key),
        dedup_key: given(request.dedup_key),
        run_at: request.run_at.map(|at| time("run_at", at)).transpose()?,
        deadline: request
            .deadline
            .map(|at| time("deadline", at))
            .transpose()?,
        timeout: match (timeout, left) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        },
        callback: given(request.callback),
        name: given(request.idempotency_key),
    })
}

fn time(at: &str, time: Timestamp) -> Result<DateTime<Utc>, Refusal> {
    u32::try_from(time.nanos)
        .ok()
        .and_then(|nanos| DateTime::from_timestamp(time.seconds, nanos))
        .ok_or_else(|| Refusal::bad(at, "no point in time"))
}

/// What is left of the call's time (`grpc-timeout`).
pub(super) fn left(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // The specification allows eight digits.
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3_600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// How a task stands, with its result if it has one.
pub(super) async fn state(
    door: &Door,
    id: TaskId,
    standing: &Standing,
) -> Result<TaskState, Refusal> {
    let mut state = TaskState {
        task_id: id.to_string(),
        status: word(standing.status()).into(),
        ..TaskState::default()
    };
    match standing {
        Standing::Open(status) => {
            state.progress = status.progress;
            state.note = status.note.clone().unwrap_or_default();
            state.attempts = status.attempts.into();
            state.run = status.run.into();
            state.cancel_requested = status.cancel_requested;
            if status.status.is_terminal() {
                let problem = Door::failure(status.status, None).into();
                state.outcome = Some(Outcome::Problem(problem));
            }
        }
        Standing::Ended(end) => {
            state.attempts = end.attempts.into();
            state.run = end.run.into();
            state.submitted_at = timestamp(end.submitted_ms);
            state.completed_at = timestamp(end.completed_ms);
            state.duplicate_of = end
                .duplicate_of
                .map_or_else(String::new, |id| id.to_string());
            state.outcome = Some(match &end.returned {
                Returned::Body {
                    content_type,
                    bytes,
                } => Outcome::Result(TaskResult {
                    content_type: content_type.to_string(),
                    body: bytes.to_vec(),
                }),
                Returned::Long { content_type } => {
                    let holder = end.duplicate_of.unwrap_or(id);
                    match door.lookup.body(holder).await? {
                        Some(body) => Outcome::Result(TaskResult {
                            content_type: content_type.to_string(),
                            body,
                        }),
                        None => Outcome::Problem(Refusal::withdrawn().into()),
                    }
                }
                Returned::Nothing { .. } if end.status == StatusWord::Success => {
                    Outcome::Result(TaskResult::default())
                }
                Returned::Nothing { error } => {
                    Outcome::Problem(Door::failure(end.status, error.as_deref()).into())
                }
            });
        }
    }
    Ok(state)
}

/// A task that cannot be told of, among others that can.
pub(super) fn refused(id: TaskId, refusal: Refusal) -> TaskState {
    TaskState {
        task_id: id.to_string(),
        outcome: Some(Outcome::Problem(refusal.into())),
        ..TaskState::default()
    }
}

const fn word(status: StatusWord) -> Status {
    match status {
        StatusWord::Accepted => Status::Accepted,
        StatusWord::Processing => Status::Processing,
        StatusWord::Retrying => Status::Retrying,
        StatusWord::Success => Status::Success,
        StatusWord::Failed => Status::Failed,
        StatusWord::Cancelled => Status::Cancelled,
        StatusWord::Expired => Status::Expired,
        // Both are refused before anything is told of them.
        StatusWord::Unknown | StatusWord::Gone => Status::Unspecified,
    }
}

fn timestamp(ms: i64) -> Option<Timestamp> {
    let since = Duration::from_millis(u64::try_from(ms).ok()?);
    Some(Timestamp::from(SystemTime::UNIX_EPOCH + since))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test states what must hold")]

    use super::*;

    #[test]
    fn the_time_of_a_call_is_read_as_the_specification_writes_it() {
        let left = |text: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            left(&metadata)
        };
        assert_eq!(left("100m"), Some(Duration::from_millis(100)));
        assert_eq!(left("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(left("5S"), Some(Duration::from_secs(5)));
        for bad in ["", "5", "S", "5s", "123456789S", "-5S"] {
            assert_eq!(left(bad), None, "{bad}");
        }
    }
}
