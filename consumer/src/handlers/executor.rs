//! Runs attempts: everything between the owner's [`Start`] and its [`Finished`].
//!
//! Guarantees to the owner: each start is answered exactly once, or never once its signal was abandoned; a
//! panic or an endless handler costs its own attempt and never the worker, since handlers run on threads of
//! their own, apart from the one that keeps the worker in its group. An async handler that blocks for good takes
//! its thread with it; once all are taken nothing begins any more, and the owner gives the worker up
//! (`--stuck-after`). How many attempts run at once is the owner's to limit: what it starts is begun.
//!
//! An async handler is polled once by the executor that took it, a thread of its own; most handlers that have
//! little to do end there. The others go on as tokio tasks. Were the executors tokio tasks, too, what a busy one
//! has woken or spawned last could not be taken over by another thread.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context as PollContext, Poll, Waker};
use std::time::{Duration, Instant};

use millrace_schemas::{DecodeError, Decoded, Decoders};
use tokio::runtime::Runtime;
use tracing::{Instrument as _, Span};

use super::attempt::{Attempt, AttemptEnd, Finished};
use super::caught::{self, Caught};
use super::completions::{self, Completions, Finisher};
use super::context::Context;
use super::fields::{Fields, Spans};
use super::kind::{Block, Kind, Rest};
use super::progress::{self, Announcer, ProgressNotes};
use super::registry::Registry;
use super::signal::Stop;
use super::starts::Starts;
use super::task::{Start, Task};

/// A poll that took longer sends the rest of its executor's share back to the queue, for others to take.
const SLOW_POLL: Duration = Duration::from_micros(200);

/// How an executor is set up.
#[derive(Debug, Clone)]
pub struct ExecutorOptions {
    /// Async threads for handlers.
    pub threads: usize,
    /// Most bytes of a result.
    pub max_result_bytes: usize,
    /// The topic, for spans.
    pub topic: Arc<str>,
}

/// The longest result that is kept, unless told otherwise.
pub const MAX_RESULT_BYTES: usize = 1_000_000;

impl ExecutorOptions {
    /// One thread a core, two at least; results up to [`MAX_RESULT_BYTES`].
    #[must_use]
    pub fn new(topic: &str) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, Into::into);
        Self {
            threads: cores.max(2),
            max_result_bytes: MAX_RESULT_BYTES,
            topic: topic.into(),
        }
    }
}

/// What every attempt of a worker shares. Each executor has a copy of its own: attempts are counted there, and
/// threads that count in one place wait for each other.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) registry: Arc<Registry>,
    pub(super) completions: Finisher,
    pub(super) progress: Announcer,
    pub(super) max_result_bytes: usize,
    pub(super) topic: Arc<str>,
    starts: Arc<Starts>,
    decoders: Arc<RwLock<Arc<Decoders>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn decoders(&self) -> Arc<Decoders> {
        Arc::clone(&self.decoders.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The threads that run handlers. Dropping it ends them, drops every async attempt at its next await; blocking ones go
/// on unheard until they end or the process does.
#[derive(Debug)]
pub struct Executor {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Executor {
    /// Starts the threads; gives the owner its two ends.
    ///
    /// # Errors
    /// When the operating system gives no threads.
    pub fn new(
        registry: Arc<Registry>,
        decoders: Decoders,
        options: &ExecutorOptions,
    ) -> io::Result<(Self, Completions, ProgressNotes)> {
        let threads = options.threads.max(1);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("handler")
            .enable_all()
            .build()?;
        let (finisher, completions) = completions::channel();
        let (announcer, notes) = progress::channel();
        let shared = Arc::new(Shared {
            registry,
            completions: finisher,
            progress: announcer,
            max_result_bytes: options.max_result_bytes,
            topic: Arc::clone(&options.topic),
            starts: Arc::new(Starts::new(threads)),
            decoders: Arc::new(RwLock::new(Arc::new(decoders))),
        });
        for registered in shared.registry.types() {
            if let Kind::Batch(batch) = &registered.kind
                && let Some(collector) = batch.collector()
            {
                runtime.spawn(collector);
            }
        }
        let executor = Self {
            shared,
            runtime: Some(runtime),
        };
        executor.start_threads(threads)?;
        Ok((executor, completions, notes))
    }

    fn start_threads(&self, threads: usize) -> io::Result<()> {
        let Some(runtime) = &self.runtime else {
            return Ok(());
        };
        for _ in 0..threads {
            let shared = Arc::new(Shared::clone(&self.shared));
            let handle = runtime.handle().clone();
            std::thread::Builder::new()
                .name("executor".to_owned())
                .spawn(move || {
                    // Handlers may use tokio's timers, sockets and tasks from their first poll on.
                    let _runtime = handle.enter();
                    execute(&shared);
                })?;
        }
        Ok(())
    }

    /// Has these attempts begun, as soon as threads are free.
    pub fn start(&self, starts: Vec<Start>) {
        self.shared.starts.add(starts);
    }

    /// How many attempts wait for a thread: many, for long, when handlers keep the async threads busy.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.starts.len()
    }

    /// A schema was learned: to be called before the first task written with it is started.
    pub fn learned(&self, decoders: Decoders) {
        *self
            .shared
            .decoders
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(decoders);
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.shared.starts.close();
        if let Some(runtime) = self.runtime.take() {
            // A blocking handler may never return; nobody waits for it.
            runtime.shutdown_background();
        }
    }
}

/// One executor, until the queue is closed.
fn execute(shared: &Arc<Shared>) {
    let mut starts = Vec::new();
    let mut finished = Vec::new();
    while shared.starts.take(&mut starts) {
        let decoders = shared.decoders();
        let mut now = Instant::now();
        let mut share = starts.drain(..);
        while let Some(start) = share.next() {
            let answer = begin(shared, &decoders, start, now);
            let then = std::mem::replace(&mut now, Instant::now());
            let took = now.duration_since(then);
            // Most tasks end here, and one look at the clock is enough for each.
            finished.extend(answer.map(|finished| Finished { took, ..finished }));
            if took > SLOW_POLL {
                // An answer that is there does not wait for the next slow one.
                shared.completions.append(&mut finished);
                if share.len() > 0 {
                    shared.starts.give_back(share.by_ref());
                }
            }
        }
        drop(share);
        shared.completions.append(&mut finished);
    }
}

/// Begins an attempt at `now`; its answer, when it ended here, to which the time that it took is still to be added.
fn begin(
    shared: &Arc<Shared>,
    decoders: &Decoders,
    start: Start,
    began: Instant,
) -> Option<Finished> {
    let fields = match fields(decoders, &start.task) {
        Ok(fields) => fields,
        Err(error) => {
            // The owner has decoded these bytes, so this is the worker's trouble and not the task's.
            return (!start.signal.is_abandoned()).then(|| Finished {
                ticket: start.ticket,
                end: AttemptEnd::retry(format!("the event cannot be read here: {error}")),
                took: Duration::ZERO,
            });
        }
    };
    let attempt = Attempt::new(shared, start, fields);
    let Some(registered) = shared.registry.get(attempt.task.task_type) else {
        return attempt.finished(
            AttemptEnd::retry("the task's type has no handler in this worker"),
            Duration::ZERO,
        );
    };
    match &registered.kind {
        Kind::Async(handler) => {
            if !attempt.may_begin(began) {
                return None;
            }
            let span = span(&attempt);
            let entered = span.enter();
            let rest = caught::call(|| handler.begin(Context(Arc::clone(&attempt))))
                .unwrap_or_else(|panic| Err(panic.into()));
            let polled = match rest {
                Ok(rest) => first_poll(rest),
                Err(end) => FirstPoll::Ended(end),
            };
            drop(entered);
            match polled {
                FirstPoll::Ended(end) => attempt.finished(end, Duration::ZERO),
                FirstPoll::GoesOn(rest) => {
                    go_on(attempt, rest, began, span);
                    None
                }
            }
        }
        Kind::Blocking(handler) => {
            go_on_blocking(attempt, Arc::clone(handler));
            None
        }
        Kind::Batch(batch) => {
            if attempt.signal.is_abandoned() {
                return None;
            }
            caught::call(|| batch.add(Context(Arc::clone(&attempt))))
                .unwrap_or_else(|panic| Err(panic.into()))
                .err()
                .and_then(|end| attempt.finished(end, Duration::ZERO))
        }
    }
}

fn fields(decoders: &Decoders, task: &Task) -> Result<Fields, DecodeError> {
    if let Some(spans) = task.spans {
        return Ok(Fields::Within(spans));
    }
    let decoded = decoders.decode(&task.value)?;
    Ok(match (Spans::of(&task.value, &decoded), decoded) {
        (Some(spans), _) => Fields::Within(spans),
        (None, Decoded::Current(event)) => Fields::Apart(Box::new(event.to_owned())),
        (None, Decoded::Resolved(event)) => Fields::Apart(event),
    })
}

enum FirstPoll {
    Ended(AttemptEnd),
    GoesOn(Caught<Rest>),
}

/// The waker does nothing: a future that is not ready is polled again at once, as a task of its own.
fn first_poll(rest: Rest) -> FirstPoll {
    let mut rest = Caught::new(rest);
    match Pin::new(&mut rest).poll(&mut PollContext::from_waker(Waker::noop())) {
        Poll::Ready(end) => FirstPoll::Ended(end.unwrap_or_else(AttemptEnd::from)),
        Poll::Pending => FirstPoll::GoesOn(rest),
    }
}

fn go_on(attempt: Arc<Attempt>, rest: Caught<Rest>, began: Instant, span: Span) {
    let signal = Arc::clone(&attempt.signal);
    let work = async move {
        let end = rest.await.unwrap_or_else(AttemptEnd::from);
        attempt.finish(end, began);
    };
    let handle = if span.is_disabled() {
        tokio::spawn(work)
    } else {
        tokio::spawn(work.instrument(span))
    };
    signal.stop_by(Stop::Own(handle.abort_handle()));
}

fn go_on_blocking(attempt: Arc<Attempt>, handler: Arc<dyn Block>) {
    let signal = Arc::clone(&attempt.signal);
    let handle = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        if !attempt.may_begin(began) {
            return;
        }
        let end = span(&attempt).in_scope(|| {
            caught::call(|| handler.run(Context(Arc::clone(&attempt))))
                .unwrap_or_else(AttemptEnd::from)
        });
        attempt.finish(end, began);
    });
    // Takes it out of the queue when it has no thread yet; one that runs is left alone.
    signal.stop_by(Stop::Own(handle.abort_handle()));
}

fn span(attempt: &Attempt) -> Span {
    tracing::info_span!(
        target: "millrace::attempt",
        "attempt",
        task_id = %attempt.task.task_id,
        topic = %attempt.shared.topic,
        partition = attempt.task.place.partition,
        offset = attempt.task.place.offset,
    )
}
