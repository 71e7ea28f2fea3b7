//! How the owner of a task reaches one running attempt of it: first a request to stop, then the end.
//!
//! [`Signal::cancel`] is heard by the handler through its context and may be ignored. [`Signal::abandon`]
//! drops an async handler at its next await and makes sure that no answer of the attempt is reported any
//! more; a blocking handler cannot be stopped and is left alone. Both may be called at any time and any
//! number of times, also before the attempt began and after it ended.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Why an attempt is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CancelReason {
    /// The deadline that the caller gave has passed; the task ends as expired.
    Deadline,
    /// The attempt runs longer than its type's policy allows; it counts as failed.
    Timeout,
    /// Somebody asked for the task to be cancelled; it ends as cancelled.
    Requested,
    /// Another worker has the partition now, and will run the task again.
    PartitionLost,
    /// The worker ends; another one will run the task again.
    Shutdown,
}

impl CancelReason {
    const ALL: [Self; 5] = [
        Self::Deadline,
        Self::Timeout,
        Self::Requested,
        Self::PartitionLost,
        Self::Shutdown,
    ];

    const fn code(self) -> u8 {
        match self {
            Self::Deadline => 1,
            Self::Timeout => 2,
            Self::Requested => 3,
            Self::PartitionLost => 4,
            Self::Shutdown => 5,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// The reason in a few words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "its deadline passed",
            Self::Timeout => "it ran longer than its type may",
            Self::Requested => "its cancellation was requested",
            Self::PartitionLost => "another worker has its partition",
            Self::Shutdown => "the worker is shutting down",
        }
    }
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The line from the owner to one attempt.
#[derive(Debug, Default)]
pub struct Signal {
    /// 0, or the code of the first reason given: later ones do not change what the handler was told.
    reason: AtomicU8,
    abandoned: AtomicBool,
    heard: Notify,
    began: OnceLock<Instant>,
    stop: OnceLock<Stop>,
}

/// What ends an attempt that is under way.
#[derive(Debug)]
pub(super) enum Stop {
    /// A tokio task of its own.
    Own(AbortHandle),
    /// A batch, which goes on as long as one of its attempts is wanted.
    Shared(Arc<BatchStop>),
}

impl Signal {
    /// A line on which nothing was said.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Asks the attempt to stop. The first reason stays.
    pub fn cancel(&self, reason: CancelReason) {
        let first =
            self.reason
                .compare_exchange(0, reason.code(), Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok() {
            self.heard.notify_waiters();
        }
    }

    /// Ends the attempt as far as the owner is concerned: nothing of it is reported from now on.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        self.end();
    }

    /// Why the attempt is asked to stop, when it is.
    #[must_use]
    pub fn reason(&self) -> Option<CancelReason> {
        CancelReason::from_code(self.reason.load(Ordering::Acquire))
    }

    /// Whether the owner has given the attempt up.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::SeqCst)
    }

    /// When the handler was first called. `None` while the attempt waits for an executor, a blocking thread
    /// or its batch: the time to measure timeouts and long runs from.
    #[must_use]
    pub fn began(&self) -> Option<Instant> {
        self.began.get().copied()
    }

    /// Waits until the attempt is asked to stop.
    pub async fn cancelled(&self) -> CancelReason {
        loop {
            let mut heard = pin!(self.heard.notified());
            // Registered before the look, so that a request between the two is not missed.
            heard.as_mut().enable();
            if let Some(reason) = self.reason() {
                return reason;
            }
            heard.await;
        }
    }

    pub(super) fn begin(&self, now: Instant) {
        // A second call is an owner's mistake; the first time is the true one.
        let _ = self.began.set(now);
    }

    /// Says how the attempt is ended; ends it at once when it was abandoned meanwhile.
    pub(super) fn stop_by(&self, stop: Stop) {
        let _ = self.stop.set(stop);
        if self.is_abandoned() {
            self.end();
        }
    }

    fn end(&self) {
        match self.stop.get() {
            Some(Stop::Own(handle)) => handle.abort(),
            Some(Stop::Shared(batch)) => batch.look(),
            None => {}
        }
    }
}

/// The end of a batch that runs: when none of its attempts is wanted any more.
#[derive(Debug)]
pub(super) struct BatchStop {
    members: Vec<Weak<Signal>>,
    handle: OnceLock<AbortHandle>,
}

impl BatchStop {
    pub(super) fn new(members: Vec<Weak<Signal>>) -> Self {
        Self {
            members,
            handle: OnceLock::new(),
        }
    }

    /// Says what ends the batch.
    pub(super) fn stop_by(&self, handle: AbortHandle) {
        let _ = self.handle.set(handle);
        self.look();
    }

    fn look(&self) {
        let wanted = |member: &Weak<Signal>| member.upgrade().is_some_and(|s| !s.is_abandoned());
        if let Some(handle) = self.handle.get()
            && !self.members.iter().any(wanted)
        {
            handle.abort();
        }
    }
}
