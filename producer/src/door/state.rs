//! A front door's parts, and what HTTP and gRPC do with them: submit, ask, wait, cancel.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use millrace_schemas::TaskId;
use millrace_store::results::StatusWord;
use millrace_store::{Trouble, cancels};
use millrace_telemetry::DoorMetrics;
use sqlx::PgConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::desk::{Clerk, Desk, NoAnswer};
use super::gate::{Caller, Gate};
use super::intake::{Intake, Submission};
use super::lookup::{Lookup, Standing};
use super::memory::{BodyMemory, Held};
use super::overview::Overviews;
use super::refusal::{Kind, Refusal};
use super::waiting::{Wait, Waiting};

/// How long whoever waits for a task waits before anybody asks how it stands.
const AT_ONCE: Duration = Duration::from_millis(200);

/// Requests to cancel that a tenant may have open.
const OPEN_CANCELS: i64 = 10_000;

/// Bounds of what one request may ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes of a body with one task.
    pub body_bytes: usize,
    /// Bytes of a body with many tasks in one JSON array.
    pub bulk_bytes: usize,
    /// Tasks in one JSON array, and ids that one stream may follow.
    pub bulk_tasks: usize,
    /// Tasks that all streams together may follow.
    pub followed: usize,
    /// How long a body may take to arrive; of a stream of tasks, how long it may pause.
    pub body_patience: Duration,
}

/// One front door.
pub(crate) struct Door {
    pub gate: Gate,
    pub intake: Intake,
    pub lookup: Lookup,
    pub waiting: Waiting,
    pub cancels: Desk<Cancels>,
    pub overviews: Overviews,
    pub metrics: DoorMetrics,
    pub bounds: Bounds,
    pub bodies: BodyMemory,
    /// Memory for calls that need no key: of health and reflection.
    pub questions: BodyMemory,
    /// Open streams, of tasks and of events, all tenants together.
    pub streams: Arc<Semaphore>,
    /// Tasks that are followed by them.
    pub followed: Arc<Semaphore>,
    /// Places of first looks at tasks that are followed, all streams together.
    pub first_looks: Semaphore,
    /// Conversations by WebSocket, which outlive their connections' tasks.
    pub sockets: TaskTracker,
    /// Cancelled when the front door closes: streams end, waits are answered with what is known.
    pub closing: CancellationToken,
}

pub(crate) struct Cancels;

impl Clerk for Cancels {
    type Question = (TaskId, Box<str>);
    /// Whether the tenant may have one more request open.
    type Answer = bool;
    const MOST: usize = 100;

    async fn answer(
        &mut self,
        connection: &mut PgConnection,
        questions: &[(TaskId, Box<str>)],
    ) -> Result<Vec<bool>, Trouble> {
        cancels::request_within(connection, questions, "front door", OPEN_CANCELS).await
    }
}

impl Door {
    /// A place among the open streams.
    ///
    /// # Errors
    /// There is none at present.
    pub(crate) fn stream_place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            Refusal::new(Kind::Unavailable, "too many streams are open at present")
                .after(Duration::from_secs(5))
        })
    }

    /// Hands over one task for a caller; with `wait`, waits that long for its end besides.
    ///
    /// # Errors
    /// It was not accepted, or nobody knows.
    pub(crate) async fn submit(
        &self,
        caller: &Caller,
        submission: Submission,
        held: Held,
        wait: Option<Duration>,
    ) -> Result<(TaskId, Option<Standing>), Refusal> {
        caller.spend(1)?;
        let Some(wait) = wait else {
            return Ok((self.intake.submit(submission, held).await?, None));
        };
        // Nothing can be missed of a task for which somebody waits before it is sent.
        let offered = submission.event.task_id;
        let mut early = self.waiting.wait(offered, false);
        let task_id = self.intake.submit(submission, held).await?;
        let standing = if task_id == offered {
            let end = self.end(&mut early, Instant::now() + wait).await;
            // That nothing is known of it is no end: the task was accepted.
            end.filter(|end| end.status().is_terminal())
        } else {
            drop(early);
            // It was accepted, whether or not the database tells more.
            let standing = self.settled(caller, task_id, Some(wait)).await.ok();
            standing.filter(|standing| standing.status().is_terminal())
        };
        Ok((task_id, standing))
    }

    /// How a task stands; with `wait`, how it ended if it does within that time.
    ///
    /// # Errors
    /// It is not there for this caller, or the database does not answer.
    pub(crate) async fn settled(
        &self,
        caller: &Caller,
        id: TaskId,
        wait: Option<Duration>,
    ) -> Result<Standing, Refusal> {
        let Some(wait) = wait.filter(|wait| !wait.is_zero()) else {
            return self
                .lookup
                .standing(id)
                .await?
                .seen_by(Some(caller.tenant()));
        };
        let until = Instant::now() + wait;
        let mut ends = self.waiting.wait(id, false);
        if !self.waiting.accepted().is_open(id)
            && let Some(end) = self.lookup.end(id).await?
        {
            return Standing::Ended(end).seen_by(Some(caller.tenant()));
        }
        // Most that are waited for at once end at once; how the others stand is the longer question.
        if let Some(end) = self
            .end(&mut ends, until.min(Instant::now() + AT_ONCE))
            .await
        {
            return end.seen_by(Some(caller.tenant()));
        }
        let standing = self.lookup.standing_now(id).await?;
        let is_final = standing.is_final();
        let standing = standing.seen_by(Some(caller.tenant()))?;
        if is_final || until <= Instant::now() {
            return Ok(standing);
        }
        match self.end(&mut ends, until).await {
            Some(end) => end.seen_by(Some(caller.tenant())),
            None => match self.lookup.standing(id).await {
                Ok(standing) => standing.seen_by(Some(caller.tenant())),
                // What was known before is an answer, too.
                Err(_) => Ok(standing),
            },
        }
    }

    /// How a task ends, if it does before `until` and before the front door closes.
    async fn end(&self, ends: &mut Wait, until: Instant) -> Option<Standing> {
        tokio::select! {
            ended = timeout_at(until, ends.end()) => ended.ok(),
            () = self.closing.cancelled() => None,
        }
    }

    /// Asks for a task to be cancelled. What has ended stays as it is.
    ///
    /// # Errors
    /// It is not there for this caller, or the database does not answer.
    pub(crate) async fn cancel(&self, caller: &Caller, id: TaskId) -> Result<Standing, Refusal> {
        caller.spend(1)?;
        let standing = self
            .lookup
            .standing_now(id)
            .await?
            .seen_by(Some(caller.tenant()))?;
        if standing.status().is_terminal() {
            return Ok(standing);
        }
        let is_open = self.cancels.ask((id, caller.tenant().into())).await;
        let is_open = is_open.map_err(|no_answer| match no_answer {
            NoAnswer::Crowded => no_answer.into(),
            NoAnswer::Away => Refusal::new(
                Kind::OutcomeUnknown,
                "the database did not answer: whether the worker will hear of it is not known. Ask again",
            )
            .after(Duration::from_secs(2)),
        })?;
        if !is_open {
            return Err(Refusal::new(
                Kind::RateLimited,
                format!("{OPEN_CANCELS} requests to cancel are open already"),
            )
            .after(Duration::from_secs(60)));
        }
        Ok(match standing {
            Standing::Open(status) => {
                let mut status = (*status).clone();
                status.cancel_requested = true;
                Standing::Open(Arc::new(status))
            }
            ended @ Standing::Ended(_) => ended,
        })
    }

    /// Why a task that ended has no result.
    pub(crate) fn failure(status: StatusWord, error: Option<&str>) -> Refusal {
        let kind = match status {
            StatusWord::Cancelled => Kind::TaskCancelled,
            StatusWord::Expired => Kind::TaskExpired,
            _ => Kind::TaskFailed,
        };
        let said = error
            .and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok())
            .and_then(|error| {
                let message = error.get("message")?.as_str()?;
                Some(match error.get("code").and_then(|code| code.as_str()) {
                    Some(code) => format!("{code}: {message}"),
                    None => message.to_owned(),
                })
            });
        Refusal::new(kind, said.unwrap_or_else(|| kind.title().to_owned()))
    }

    /// Now, as events carry it.
    pub(crate) fn now() -> chrono::DateTime<Utc> {
        Utc::now()
    }
}
