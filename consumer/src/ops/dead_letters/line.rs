//! A dead letter as it is printed: one line of a list, one entry of a history.

use chrono::{DateTime, SecondsFormat, Utc};
use millrace_store::letters::Letter;

/// What is told of a letter.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Line {
    /// The partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The book with which the record's log began.
    pub log_book: i32,
    /// 0, and one more with each redrive.
    pub run: i16,
    /// The task, where known.
    pub task_id: Option<String>,
    /// The tenant, where known.
    pub tenant: Option<String>,
    /// The type, where known.
    pub task_type: Option<String>,
    /// Why.
    pub reason: String,
    /// What exactly.
    pub error: String,
    /// Attempts of this run.
    pub attempts: i16,
    /// The record's key; bytes that are no text are replaced.
    pub key: Option<String>,
    /// Length of the record's value.
    pub bytes: i64,
    /// The record's time in Kafka.
    pub record_time: Option<String>,
    /// When it was set aside.
    pub created_at: String,
    /// `open`, `redriven` or `discarded`.
    pub state: &'static str,
    /// When it was sent to work again.
    pub redriven_at: Option<String>,
    /// By whom.
    pub redriven_by: Option<String>,
    /// When it was given up.
    pub discarded_at: Option<String>,
    /// By whom.
    pub discarded_by: Option<String>,
    /// Why.
    pub discard_reason: Option<String>,
}

/// A time as it is printed: RFC 3339, milliseconds, UTC.
#[must_use]
pub fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

impl From<&Letter> for Line {
    fn from(letter: &Letter) -> Self {
        let (redriven_at, redriven_by) = letter.redriven.clone().unzip();
        let discarded = letter.discarded.clone();
        let (discarded_by, discard_reason) = discarded
            .as_ref()
            .map_or((None, None), |(_, by, why)| (by.clone(), why.clone()));
        Self {
            partition: letter.place.partition,
            offset: letter.place.offset,
            log_book: letter.place.log_book,
            run: letter.place.run,
            task_id: letter.task_id.map(|id| id.to_string()),
            tenant: letter.tenant.clone(),
            task_type: letter.task_type.clone(),
            reason: letter.reason.clone(),
            error: letter.error.clone(),
            attempts: letter.attempts,
            key: letter
                .key
                .as_ref()
                .map(|key| String::from_utf8_lossy(key).into_owned()),
            bytes: letter.bytes,
            record_time: letter.record_time.map(time),
            created_at: time(letter.created_at),
            state: match (&letter.redriven, &letter.discarded) {
                (Some(_), _) => "redriven",
                (None, Some(_)) => "discarded",
                (None, None) => "open",
            },
            redriven_at: redriven_at.map(time),
            redriven_by: redriven_by.flatten(),
            discarded_at: discarded.map(|(at, ..)| time(at)),
            discarded_by,
            discard_reason,
        }
    }
}
