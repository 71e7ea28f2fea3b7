//! What callers ask for: how tasks stand and how they ended, from the database or from a moment ago.
//!
//! Questions that come together share a statement. What a task returned is remembered for a while, and how one
//! stands for a tenth of a second, so a client that polls in a circle costs the database nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_schemas::TaskId;
use millrace_store::finished::{self, Finished, Returned};
use millrace_store::position::Consumer;
use millrace_store::results::{self, StatusWord, TaskStatus};
use millrace_store::{Database, Trouble};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sqlx::PgConnection;

use super::desk::{Clerk, Desk, NoAnswer};
use super::refusal::{Kind, Refusal};

/// How long an answer about a task that has not ended holds.
const MOMENT: Duration = Duration::from_millis(100);
/// How long a success is remembered; only a person can withdraw it.
const SUCCESS_KEPT: Duration = Duration::from_secs(30);
/// How long another end is remembered: a redrive withdraws it.
const FAILURE_KEPT: Duration = Duration::from_secs(1);
/// Bytes of remembered ends.
const KEPT_BYTES: u64 = 16 << 20;
/// Remembered answers about tasks that have not ended.
const KEPT_STATUSES: usize = 20_000;

struct Ends;

impl Clerk for Ends {
    type Question = TaskId;
    type Answer = Option<Arc<Finished>>;
    const MOST: usize = 500;

    async fn answer(
        &mut self,
        connection: &mut PgConnection,
        questions: &[TaskId],
    ) -> Result<Vec<Self::Answer>, Trouble> {
        let found = finished::finished(connection, questions).await?;
        let found: std::collections::HashMap<TaskId, Arc<Finished>> = found
            .into_iter()
            .map(|(id, end)| (id, Arc::new(end)))
            .collect();
        Ok(questions.iter().map(|id| found.get(id).cloned()).collect())
    }
}

struct Statuses(Consumer);

impl Clerk for Statuses {
    type Question = TaskId;
    type Answer = Arc<TaskStatus>;
    const MOST: usize = 500;

    async fn answer(
        &mut self,
        connection: &mut PgConnection,
        questions: &[TaskId],
    ) -> Result<Vec<Self::Answer>, Trouble> {
        let found = results::statuses(connection, &self.0, questions).await?;
        Ok(found.into_iter().map(Arc::new).collect())
    }
}

/// One long body at a time: memory holds one of them for the desk, not one for each that waits.
struct Bodies;

impl Clerk for Bodies {
    type Question = TaskId;
    type Answer = Option<Vec<u8>>;
    const MOST: usize = 1;

    async fn answer(
        &mut self,
        connection: &mut PgConnection,
        questions: &[TaskId],
    ) -> Result<Vec<Self::Answer>, Trouble> {
        let mut bodies = Vec::with_capacity(questions.len());
        for id in questions {
            bodies.push(finished::body(connection, *id).await?);
        }
        Ok(bodies)
    }
}

/// How a task stands, as far as a tenant may know.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// It ended with a row.
    Ended(Arc<Finished>),
    /// It has not, or left no row.
    Open(Arc<TaskStatus>),
}

impl Standing {
    /// In one word.
    pub(crate) fn status(&self) -> StatusWord {
        match self {
            Self::Ended(end) => end.status,
            Self::Open(status) => status.status,
        }
    }

    /// Whether nothing more will come.
    pub(crate) fn is_final(&self) -> bool {
        let status = self.status();
        status.is_terminal() || matches!(status, StatusWord::Unknown | StatusWord::Gone)
    }

    /// The same for the eyes of a tenant: another one's task is as if it were not there.
    pub(crate) fn seen_by(self, tenant: Option<&str>) -> Result<Self, Refusal> {
        let owner = match &self {
            Self::Ended(end) => Some(&*end.tenant),
            Self::Open(status) => status.tenant.as_deref(),
        };
        if let (Some(owner), Some(tenant)) = (owner, tenant)
            && owner != tenant
        {
            return Err(Refusal::no_such_task());
        }
        match self.status() {
            StatusWord::Unknown => Err(Refusal::no_such_task()),
            StatusWord::Gone => Err(Refusal::new(
                Kind::Gone,
                "the task was born before the oldest day of which results are kept",
            )),
            _ => Ok(self.without_foreign_cancels(tenant)),
        }
    }

    /// What another tenant asked for of a task of which it is not known yet whose it is, does not show.
    fn without_foreign_cancels(self, tenant: Option<&str>) -> Self {
        match self {
            Self::Open(status)
                if status.cancel_requested
                    && status.tenant.is_none()
                    && !status.is_cancelled_by(tenant) =>
            {
                let mut seen = TaskStatus::clone(&status);
                seen.cancel_requested = false;
                Self::Open(Arc::new(seen))
            }
            other => other,
        }
    }
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<TaskId, (Instant, Arc<Finished>)> for ByBytes {
    fn weight(&self, _: &TaskId, (_, end): &(Instant, Arc<Finished>)) -> u64 {
        let body = match &end.returned {
            Returned::Body { bytes, .. } => bytes.len(),
            Returned::Long { .. } => 0,
            Returned::Nothing { error } => error.as_ref().map_or(0, |error| error.len()),
        };
        body as u64 + 300
    }
}

/// Where to look things up. Clones share desks and memory.
#[derive(Clone)]
pub(crate) struct Lookup {
    ends: Desk<Ends>,
    statuses: Desk<Statuses>,
    bodies: Desk<Bodies>,
    kept_ends: Arc<Cache<TaskId, (Instant, Arc<Finished>), ByBytes>>,
    kept_statuses: Arc<Cache<TaskId, (Instant, Arc<TaskStatus>)>>,
}

impl Lookup {
    /// Opens the desks.
    pub(crate) fn open(database: &Database, consumer: &Consumer) -> Self {
        Self {
            ends: Desk::open(database.clone(), Ends),
            statuses: Desk::open(database.clone(), Statuses(consumer.clone())),
            bodies: Desk::open(database.clone(), Bodies),
            kept_ends: Arc::new(Cache::with_weighter(20_000, KEPT_BYTES, ByBytes)),
            kept_statuses: Arc::new(Cache::new(KEPT_STATUSES)),
        }
    }

    /// How a task stands now, or stood a moment ago.
    pub(crate) async fn standing(&self, id: TaskId) -> Result<Standing, NoAnswer> {
        if let Some(end) = self.remembered(id) {
            return Ok(Standing::Ended(end));
        }
        if let Some((since, status)) = self.kept_statuses.get(&id)
            && since.elapsed() < MOMENT
        {
            return Ok(Standing::Open(status));
        }
        self.standing_now(id).await
    }

    /// How a task stands now.
    pub(crate) async fn standing_now(&self, id: TaskId) -> Result<Standing, NoAnswer> {
        if let Some(end) = self.end(id).await? {
            return Ok(Standing::Ended(end));
        }
        let status = self.statuses.ask(id).await?;
        if status.result.is_some()
            && let Some(end) = self.end(id).await?
        {
            // It ended between the two questions.
            return Ok(Standing::Ended(end));
        }
        self.kept_statuses
            .insert(id, (Instant::now(), status.clone()));
        Ok(Standing::Open(status))
    }

    /// How a task ended, if it has with a row.
    pub(crate) async fn end(&self, id: TaskId) -> Result<Option<Arc<Finished>>, NoAnswer> {
        let end = self.ends.ask(id).await?;
        if let Some(end) = &end {
            self.kept_ends.insert(id, (Instant::now(), end.clone()));
        }
        Ok(end)
    }

    fn remembered(&self, id: TaskId) -> Option<Arc<Finished>> {
        let (since, end) = self.kept_ends.get(&id)?;
        let kept = match end.status {
            StatusWord::Success => SUCCESS_KEPT,
            _ => FAILURE_KEPT,
        };
        (since.elapsed() < kept).then_some(end)
    }

    /// A result that was too long to come along. `None` when it is gone.
    pub(crate) async fn body(&self, id: TaskId) -> Result<Option<Vec<u8>>, NoAnswer> {
        self.bodies.ask(id).await
    }
}
