//! Batch handlers: many tasks of a type in one call, with an answer for each.
//!
//! A collector for each type gathers what the executors bring until a batch is full or its first task has
//! waited for as long as it may, and goes on gathering while the batch runs. A task whose input does not fit
//! never gets into a batch. When a call panics, or gives more or fewer answers than it got tasks, each task of
//! the batch has failed an attempt; so that one task cannot use up the attempts of others, a task is alone in
//! its batch from its third attempt on.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tracing::Instrument as _;

use super::attempt::{Attempt, AttemptEnd};
use super::caught::Caught;
use super::context::Context;
use super::json;
use super::signal::{BatchStop, Stop};
use super::task_error::TaskError;

/// The last attempt that a task makes together with others.
const LAST_IN_COMPANY: u16 = 2;

/// How much a batch handler gets at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// Most tasks in one call.
    pub size: usize,
    /// How long the first task of a batch waits for others.
    pub linger: Duration,
}

impl Default for Batching {
    /// 100 tasks, 10 ms.
    fn default() -> Self {
        Self {
            size: 100,
            linger: Duration::from_millis(10),
        }
    }
}

/// A batch handler as the executor sees it.
pub(super) trait Gather: Send + Sync {
    /// Takes an attempt; its answer comes from the batch.
    fn add(&self, context: Context) -> Result<(), AttemptEnd>;

    /// What gathers and calls the handler, to be spawned once.
    fn collector(&self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>>;
}

/// Tasks with their inputs.
type Tasks<I> = Vec<(I, Context)>;

/// A function of many tasks.
pub(super) struct Batch<F, I> {
    function: Arc<F>,
    limits: Batching,
    tasks: UnboundedSender<(I, Context)>,
    collected: Mutex<Option<UnboundedReceiver<(I, Context)>>>,
}

impl<F, I> Batch<F, I> {
    pub(super) fn new(function: F, limits: Batching) -> Self {
        // Bounded by the tasks that the owner hands out.
        let (tasks, collected) = mpsc::unbounded_channel();
        Self {
            function: Arc::new(function),
            limits,
            tasks,
            collected: Mutex::new(Some(collected)),
        }
    }
}

impl<F, Answer, I, O> Gather for Batch<F, I>
where
    F: Fn(Tasks<I>) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Vec<Result<O, TaskError>>> + Send + 'static,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + 'static,
{
    fn add(&self, context: Context) -> Result<(), AttemptEnd> {
        let input = json::input(context.0.payload())?;
        self.tasks
            .send((input, context))
            .map_err(|_| AttemptEnd::retry("the batch's collector is gone"))
    }

    fn collector(&self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let tasks = self
            .collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()?;
        Some(Box::pin(collect(
            tasks,
            Arc::clone(&self.function),
            self.limits,
        )))
    }
}

/// Gathers batches and starts them, until the worker ends.
async fn collect<F, Answer, I, O>(
    mut tasks: UnboundedReceiver<(I, Context)>,
    function: Arc<F>,
    limits: Batching,
) where
    F: Fn(Tasks<I>) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Vec<Result<O, TaskError>>> + Send + 'static,
    I: Send + 'static,
    O: Serialize + 'static,
{
    let mut batch = Vec::new();
    while let Some(first) = tasks.recv().await {
        if is_loner(&first.1) {
            launch(vec![first], &function);
            continue;
        }
        batch.push(first);
        let full_at = tokio::time::Instant::now() + limits.linger;
        while batch.len() < limits.size {
            match tokio::time::timeout_at(full_at, tasks.recv()).await {
                Ok(Some(task)) if is_loner(&task.1) => launch(vec![task], &function),
                Ok(Some(task)) => batch.push(task),
                Ok(None) | Err(_) => break,
            }
        }
        launch(std::mem::take(&mut batch), &function);
    }
}

fn is_loner(context: &Context) -> bool {
    context.attempt() > LAST_IN_COMPANY
}

/// Runs one batch in a task of its own, without those that nobody wants any more.
fn launch<F, Answer, I, O>(mut batch: Tasks<I>, function: &Arc<F>)
where
    F: Fn(Tasks<I>) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Vec<Result<O, TaskError>>> + Send + 'static,
    I: Send + 'static,
    O: Serialize + 'static,
{
    let began = Instant::now();
    batch.retain(|(_, context)| context.0.may_begin(began));
    let Some((_, first)) = batch.first() else {
        return;
    };
    let span = tracing::info_span!(
        target: "millrace::attempt",
        "batch",
        topic = %first.0.shared.topic,
        task_type = first.task_type(),
        tasks = batch.len(),
    );
    let attempts: Vec<Arc<Attempt>> = batch
        .iter()
        .map(|(_, context)| Arc::clone(&context.0))
        .collect();
    let signals = attempts.iter().map(|a| Arc::downgrade(&a.signal));
    let stop = Arc::new(BatchStop::new(signals.collect()));
    for attempt in &attempts {
        attempt.signal.stop_by(Stop::Shared(Arc::clone(&stop)));
    }
    let function = Arc::clone(function);
    let work = async move {
        let answers = Box::pin(async move { encoded(function(batch).await) });
        let answers = Caught::new(answers).await;
        answer(&attempts, answers.map_err(AttemptEnd::from), began);
    };
    stop.stop_by(tokio::spawn(work.instrument(span)).abort_handle());
}

fn encoded<O: Serialize>(answers: Vec<Result<O, TaskError>>) -> Vec<AttemptEnd> {
    answers
        .into_iter()
        .map(|answer| match answer {
            Ok(value) => json::output(&value),
            Err(error) => error.into(),
        })
        .collect()
}

fn answer(attempts: &[Arc<Attempt>], answers: Result<Vec<AttemptEnd>, AttemptEnd>, began: Instant) {
    match answers {
        Ok(answers) if answers.len() == attempts.len() => {
            for (attempt, end) in attempts.iter().zip(answers) {
                attempt.finish(end, began);
            }
        }
        Ok(answers) => {
            let error = format!(
                "the batch handler gave {} answers for {} tasks",
                answers.len(),
                attempts.len()
            );
            for attempt in attempts {
                attempt.finish(AttemptEnd::retry(error.as_str()), began);
            }
        }
        Err(end) => {
            for attempt in attempts {
                attempt.finish(end.clone(), began);
            }
        }
    }
}
