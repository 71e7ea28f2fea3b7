//! What a handler is told about its task, and how it speaks with the worker while it runs.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millrace_schemas::{TaskId, headers};

use super::attempt::Attempt;
use super::signal::CancelReason;
use super::task::FencingToken;
use super::task_error::TaskError;

/// What a handler is told about its task: who asked for what, the how-manieth attempt this is, whether to stop.
///
/// Cheap to clone; clones may go to other tasks and threads and stay valid after the attempt has ended.
#[derive(Clone)]
pub struct Context(pub(super) Arc<Attempt>);

impl Context {
    /// The task's id, the same in every attempt and every run.
    #[must_use]
    pub fn task_id(&self) -> TaskId {
        self.0.task.task_id
    }

    /// The task's type: the name under which the handler is registered.
    #[must_use]
    pub fn task_type(&self) -> &str {
        self.0.shared.registry.name(self.0.task.task_type)
    }

    /// On whose behalf the task runs.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.0.task.tenant
    }

    /// The ordering key: tasks of a tenant with the same key start one after another.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.0.key()
    }

    /// 0 at first, and one more each time that the task was taken out of the dead letters and run again.
    #[must_use]
    pub fn run(&self) -> i16 {
        self.0.task.run
    }

    /// 1 for the first attempt of a run. Attempts of a worker that was killed may not be counted.
    #[must_use]
    pub fn attempt(&self) -> u16 {
        self.0.number
    }

    /// When the producer accepted the task, by the producer's clock.
    #[must_use]
    pub fn submitted_at(&self) -> SystemTime {
        instant(self.0.submitted_at())
    }

    /// When the caller no longer wants the task. It is cancelled then, for [`CancelReason::Deadline`].
    #[must_use]
    pub fn deadline(&self) -> Option<SystemTime> {
        self.0.task.deadline_micros.map(instant)
    }

    /// How long until the deadline, by this machine's clock; zero when it has passed. A good timeout for a call.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline()
            .map(|at| at.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// Media type of the task's input.
    #[must_use]
    pub fn content_type(&self) -> &str {
        self.0.content_type()
    }

    /// The first value of a header of the task's record.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.task.headers.get(name)
    }

    /// All headers of the task's record, in their order; a name may come more than once.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.task.headers.iter()
    }

    /// The submitter's place in a trace (W3C Trace Context), as it was given.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.0.task.headers.text(headers::TRACEPARENT)
    }

    /// What tracing systems added to the trace's context (W3C Trace Context), as it was given.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.0.task.headers.text(headers::TRACESTATE)
    }

    /// What the submitter handed along with the trace (W3C Baggage), as it was given.
    #[must_use]
    pub fn baggage(&self) -> Option<&str> {
        self.0.task.headers.text(headers::BAGGAGE)
    }

    /// For the systems that the handler writes to, so that they can refuse a worker that lost its partition.
    #[must_use]
    pub fn fencing_token(&self) -> FencingToken {
        self.0.task.fencing
    }

    /// A name for "this task, this run", the same in each of the run's attempts: for the systems that the
    /// handler calls, so that a repeated call has no second effect.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        format!("{}-{}", self.task_id(), self.run())
    }

    /// Says how far the attempt has come, from 0 to 1, and what it is doing. Never waits; only the latest word
    /// counts. Values outside of 0 to 1 are moved to the nearer end, notes are cut to
    /// [`NOTE_BYTES`](super::NOTE_BYTES).
    pub fn progress(&self, fraction: f32, note: &str) {
        self.0.note(fraction, note);
    }

    /// Waits until the attempt is asked to stop, and says why. For `tokio::select!` beside the work; does not
    /// end by itself.
    ///
    /// A handler that does not stop is dropped at its next await once the grace time of its policy has passed.
    pub async fn cancelled(&self) -> CancelReason {
        self.0.signal.cancelled().await
    }

    /// Whether the attempt is asked to stop. For loops, and for blocking handlers, which nothing else can stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel_reason().is_some()
    }

    /// Why the attempt is asked to stop, when it is.
    #[must_use]
    pub fn cancel_reason(&self) -> Option<CancelReason> {
        self.0.signal.reason()
    }

    /// Ends the attempt by `?` when it is asked to stop.
    ///
    /// # Errors
    /// When it is. How the task goes on is decided by the reason, not by this error.
    pub fn checkpoint(&self) -> Result<(), TaskError> {
        match self.cancel_reason() {
            Some(reason) => Err(TaskError::retry(format_args!("stopped: {reason}"))),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("task_id", &self.task_id())
            .field("task_type", &self.task_type())
            .field("tenant", &self.tenant())
            .field("run", &self.run())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

/// Microseconds since the Unix epoch as a time of the system's clock.
fn instant(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    if micros < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    }
    .unwrap_or(UNIX_EPOCH)
}
