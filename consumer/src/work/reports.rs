//! What running and retried tasks say of themselves, on its way into the table of progress.
//!
//! Only tasks that run long, wait long or report something get a row; the rows are written together once a
//! second at most, and a short task never causes a write. They are hints: a report that is lost is followed by
//! the next.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_schemas::TaskId;
use millrace_store::position::Consumer;
use millrace_store::progress::{self, State, TaskProgress};
use millrace_store::{Database, Purpose};
use uuid::Uuid;

use super::job::Job;

/// How often reports are written.
const EVERY: Duration = Duration::from_secs(1);
/// Longest that writing them may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Most rows in one go; what is beyond waits, and newer reports replace older ones meanwhile.
const MOST: usize = 5_000;

/// Reports that wait to be written.
#[derive(Debug, Default)]
pub struct Reports {
    new: HashMap<TaskId, TaskProgress>,
    /// Tasks that have a row, as far as this worker knows.
    shown: HashSet<TaskId>,
    over: HashSet<TaskId>,
    next: Option<Instant>,
}

/// What a report says of the task itself.
#[derive(Debug)]
pub struct Reported(TaskProgress);

impl Reported {
    /// A report about this task, whose attempt runs or failed just now.
    #[must_use]
    pub fn of(job: &Job, state: State) -> Self {
        let running = u16::from(state == State::Processing);
        Self(TaskProgress {
            partition: job.task.place.partition,
            claim: Uuid::nil(),
            task_id: job.task.task_id,
            tenant: (*job.task.tenant).into(),
            state,
            run: job.task.run,
            attempt: job.attempts + running,
            fraction: None,
            note: None,
            started_ms: wall_ms(),
            next_attempt_in: None,
        })
    }

    /// The report under a claim.
    #[must_use]
    pub fn under(self, claim: Uuid) -> TaskProgress {
        TaskProgress { claim, ..self.0 }
    }
}

fn wall_ms() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

impl Reports {
    /// Takes in a report; it replaces an earlier one of the same task.
    pub fn tell(&mut self, report: TaskProgress) {
        self.over.remove(&report.task_id);
        self.new.insert(report.task_id, report);
    }

    /// The task runs no longer and waits for nothing here: its row goes.
    pub fn remove(&mut self, task_id: TaskId) {
        if self.new.is_empty() && self.shown.is_empty() {
            return;
        }
        self.new.remove(&task_id);
        if self.shown.remove(&task_id) {
            self.over.insert(task_id);
        }
    }

    /// Writes what is new, when it is time.
    pub fn write(&mut self, now: Instant, database: &Database, consumer: &Consumer) {
        if (self.new.is_empty() && self.over.is_empty()) || self.next.is_some_and(|next| now < next)
        {
            return;
        }
        self.next = Some(now + EVERY);
        let ids: Vec<TaskId> = self.new.keys().copied().take(MOST).collect();
        let reports: Vec<TaskProgress> = ids.iter().filter_map(|id| self.new.remove(id)).collect();
        self.shown.extend(ids);
        let over: Vec<TaskId> = self.over.drain().collect();
        let (database, consumer) = (database.clone(), consumer.clone());
        tokio::spawn(async move {
            let written = async {
                let mut connection = database.connect(Purpose::Operations).await?;
                if !over.is_empty() {
                    progress::remove(&mut connection, &over).await?;
                }
                if !reports.is_empty() {
                    progress::report(&mut connection, &consumer, &reports).await?;
                }
                Ok::<(), millrace_store::Trouble>(())
            };
            match tokio::time::timeout(DEADLINE, written).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "progress was not written"),
                Err(_) => tracing::debug!("writing progress took over {DEADLINE:?}"),
            }
        });
    }
}
