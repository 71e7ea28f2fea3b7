//! One attempt under way, and how it ended.
//!
//! An attempt answers exactly once, or not at all once its owner has abandoned it. Everything that its context
//! shows is read from here; the event's fields stay where they are, in the record's value.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use millrace_schemas::{Field, limits};
use millrace_store::{Output, storable};
use millrace_telemetry::AttemptOutcome;

use super::executor::Shared;
use super::fields::Fields;
use super::signal::{CancelReason, Signal};
use super::task::{Start, Task};
use super::task_error::ERROR_BYTES;

/// How an attempt ended.
#[derive(Debug, Clone)]
pub enum AttemptEnd {
    /// The task is done.
    Success(Output),
    /// Another attempt may succeed.
    Retry {
        /// What went wrong.
        error: String,
        /// The delay that the handler asked for.
        after: Option<Duration>,
    },
    /// No attempt will succeed.
    Permanent {
        /// What went wrong.
        error: String,
    },
    /// The handler panicked: a failed attempt like any other.
    Panicked {
        /// The panic's message.
        error: String,
    },
}

impl AttemptEnd {
    pub(super) fn retry(error: impl Into<String>) -> Self {
        Self::Retry {
            error: error.into(),
            after: None,
        }
    }

    pub(super) fn permanent(error: impl AsRef<str>) -> Self {
        Self::Permanent {
            error: storable(error.as_ref(), ERROR_BYTES),
        }
    }

    /// How the attempt is counted, once it is known whether it was asked to stop.
    #[must_use]
    pub const fn outcome(&self, asked: Option<CancelReason>) -> AttemptOutcome {
        match (self, asked) {
            (Self::Success(_), _) => AttemptOutcome::Success,
            (_, Some(CancelReason::Timeout)) => AttemptOutcome::Timeout,
            (_, Some(_)) => AttemptOutcome::Cancelled,
            (Self::Retry { .. }, None) => AttemptOutcome::Retry,
            (Self::Permanent { .. }, None) => AttemptOutcome::Permanent,
            (Self::Panicked { .. }, None) => AttemptOutcome::Panic,
        }
    }

    /// What can be kept of an end: an output that has no place in the tables is a permanent failure, since
    /// the handler would only make it again.
    pub(super) fn within(self, max_result_bytes: usize) -> Self {
        match self {
            Self::Success(output) if output.body.len() > max_result_bytes => {
                Self::permanent(format!(
                    "the result has {} bytes, more than the {max_result_bytes} that this worker keeps",
                    output.body.len()
                ))
            }
            Self::Success(output) => match limits::text(Field::ContentType, &output.content_type) {
                Ok(()) => Self::Success(output),
                Err(error) => Self::permanent(format!("the result's content type: {error}")),
            },
            other => other,
        }
    }
}

/// The answer of one attempt.
#[derive(Debug)]
pub struct Finished {
    /// The name that the owner gave the attempt.
    pub ticket: u64,
    /// How it ended.
    pub end: AttemptEnd,
    /// Time in the handler, waits for a thread or a batch not included.
    pub took: Duration,
}

/// One attempt; its context is a handle to it.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) task: Arc<Task>,
    pub(super) number: u16,
    pub(super) signal: Arc<Signal>,
    pub(super) ticket: u64,
    pub(super) fields: Fields,
    pub(super) shared: Arc<Shared>,
    /// What the handler last said of its progress, when nobody has taken it yet.
    pub(super) note: Mutex<Option<(f32, Box<str>)>>,
}

impl Attempt {
    pub(super) fn new(shared: &Arc<Shared>, start: Start, fields: Fields) -> Arc<Self> {
        Arc::new(Self {
            task: start.task,
            number: start.attempt,
            signal: start.signal,
            ticket: start.ticket,
            fields,
            shared: Arc::clone(shared),
            note: Mutex::new(None),
        })
    }

    pub(super) fn key(&self) -> Option<&str> {
        self.fields.key(&self.task.value)
    }

    pub(super) fn content_type(&self) -> &str {
        self.fields.content_type(&self.task.value)
    }

    pub(super) fn payload(&self) -> &[u8] {
        self.fields.payload(&self.task.value)
    }

    /// Microseconds since the Unix epoch.
    pub(super) const fn submitted_at(&self) -> i64 {
        self.fields.submitted_at()
    }

    /// Whether the handler may be called now. An attempt that was asked to stop before it began is answered
    /// here, and one that nobody waits for is forgotten.
    pub(super) fn may_begin(&self, now: Instant) -> bool {
        if self.signal.is_abandoned() {
            return false;
        }
        if let Some(reason) = self.signal.reason() {
            let end = AttemptEnd::retry(format!("not begun: {reason}"));
            self.finish(end, now);
            return false;
        }
        self.signal.begin(now);
        true
    }

    /// The answer, unless nobody waits for it any more.
    pub(super) fn finished(&self, end: AttemptEnd, took: Duration) -> Option<Finished> {
        if self.signal.is_abandoned() {
            return None;
        }
        let end = end.within(self.shared.max_result_bytes);
        Some(Finished {
            ticket: self.ticket,
            end,
            took,
        })
    }

    /// Answers from wherever the attempt ended.
    pub(super) fn finish(&self, end: AttemptEnd, began: Instant) {
        if let Some(finished) = self.finished(end, began.elapsed()) {
            self.shared.completions.push(finished);
        }
    }

    /// Keeps the latest word on progress and says once that there is one.
    pub(super) fn note(self: &Arc<Self>, fraction: f32, note: &str) {
        let fraction = if fraction.is_nan() {
            0.0
        } else {
            fraction.clamp(0.0, 1.0)
        };
        let note = storable(note, super::progress::NOTE_BYTES).into_boxed_str();
        let was_there = self
            .note
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace((fraction, note))
            .is_some();
        if !was_there {
            self.shared.progress.announce(Arc::clone(self));
        }
    }
}
