//! The owner's side of the executor, for tests: makes tasks, starts attempts, waits for answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use millrace_consumer::handlers::{
    AttemptEnd, Completions, Executor, ExecutorOptions, Finished, Found, Place, ProgressNotes,
    Registry, Signal, Start, Task,
};
use millrace_consumer::{FencingToken, RunArgs, TaskId, Worker};
use millrace_schemas::{Decoders, Framing, TaskEvent, encode};
use millrace_store::Headers;

/// Long enough for a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    run: RunArgs,
}

/// A worker with these flags, before anything is registered.
pub fn worker(flags: &[&str]) -> Worker {
    let flags = ["worker"].iter().chain(flags);
    Worker::new(Flags::try_parse_from(flags).unwrap().run)
}

/// What a worker with these registrations works with.
pub fn registry(register: impl FnOnce(Worker) -> Worker) -> Arc<Registry> {
    let (_, prepared) = register(worker(&[])).prepare().unwrap();
    prepared.registry
}

/// An event with this type and payload, and something in every other field.
pub fn event(task_type: &str, payload: &str) -> TaskEvent {
    TaskEvent {
        task_id: TaskId::mint(),
        task_type: task_type.to_owned(),
        tenant: "acme".to_owned(),
        key: Some("customer-7".to_owned()),
        dedup_key: None,
        submitted_at: 1_700_000_000_000_000,
        run_at: None,
        deadline: None,
        content_type: "application/json".to_owned(),
        reply: true,
        callback: None,
        payload: payload.as_bytes().to_vec(),
    }
}

pub struct Stage {
    pub executor: Executor,
    pub notes: ProgressNotes,
    registry: Arc<Registry>,
    completions: Completions,
    answers: VecDeque<Finished>,
    tickets: u64,
}

impl Stage {
    pub fn new(register: impl FnOnce(Worker) -> Worker) -> Self {
        Self::with(&ExecutorOptions::new("tasks"), register)
    }

    pub fn with(options: &ExecutorOptions, register: impl FnOnce(Worker) -> Worker) -> Self {
        let registry = registry(register);
        let (executor, completions, notes) =
            Executor::new(Arc::clone(&registry), Decoders::new(), options).unwrap();
        Self {
            executor,
            notes,
            registry,
            completions,
            answers: VecDeque::new(),
            tickets: 0,
        }
    }

    /// An order to start the first attempt of an event.
    pub fn order(&mut self, event: &TaskEvent) -> Start {
        let Found::Handler(task_type) = self.registry.find(&event.task_type) else {
            panic!("{} is not registered", event.task_type);
        };
        let mut value = Vec::new();
        encode(&event.as_ref(), Framing::SingleObject, &mut value);
        let traceparent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".as_slice();
        let headers = [("traceparent", traceparent), ("colour", b"blue".as_slice())];
        self.tickets += 1;
        Start {
            task: Arc::new(Task {
                place: Place {
                    partition: 3,
                    log_book: 1,
                    offset: 42,
                },
                task_id: event.task_id,
                task_type,
                tenant: event.tenant.as_str().into(),
                run: 2,
                fencing: FencingToken {
                    partition: 3,
                    seq: 99,
                },
                value: value.into(),
                spans: None,
                headers: Headers::collect(headers.into_iter()),
                deadline_micros: event.deadline,
            }),
            attempt: 1,
            signal: Signal::new(),
            ticket: self.tickets,
        }
    }

    /// Starts an attempt; its signal.
    pub fn start(&mut self, task_type: &str, payload: &str) -> Arc<Signal> {
        let start = self.order(&event(task_type, payload));
        let signal = Arc::clone(&start.signal);
        self.executor.start(vec![start]);
        signal
    }

    /// The next answer.
    pub async fn answer(&mut self) -> Finished {
        while self.answers.is_empty() {
            let more = tokio::time::timeout(PATIENCE, self.completions.recv()).await;
            self.answers.extend(more.unwrap());
        }
        self.answers.pop_front().unwrap()
    }

    /// Makes one attempt and waits for its end.
    pub async fn attempt(&mut self, task_type: &str, payload: &str) -> AttemptEnd {
        self.start(task_type, payload);
        self.answer().await.end
    }

    /// The text of a success.
    pub async fn success(&mut self, task_type: &str, payload: &str) -> String {
        text(self.attempt(task_type, payload).await)
    }
}

/// The text of a success.
pub fn text(end: AttemptEnd) -> String {
    match end {
        AttemptEnd::Success(output) => String::from_utf8(output.body.into()).unwrap(),
        other => panic!("expected a success, found {other:?}"),
    }
}

/// The error of a permanent failure.
pub fn permanent(end: AttemptEnd) -> String {
    match end {
        AttemptEnd::Permanent { error } => error,
        other => panic!("expected a permanent failure, found {other:?}"),
    }
}

/// The error of a failure that may pass.
pub fn retry(end: AttemptEnd) -> String {
    match end {
        AttemptEnd::Retry { error, .. } => error,
        other => panic!("expected a retry, found {other:?}"),
    }
}

/// Waits until something holds.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
