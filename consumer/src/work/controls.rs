//! What people ask of running workers through the tables: pauses, and tasks to be cancelled.
//!
//! Heard by notification, and read once a second besides, since a notification can be missed. While the
//! database is away, what was known last stays in force.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use millrace_schemas::TaskId;
use millrace_store::notices::{Notice, Notices};
use millrace_store::pauses::Scope;
use millrace_store::{Database, Purpose, Trouble, cancels, pauses};
use sqlx::PgConnection;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::handlers::Task;

/// How often the tables are read without being told to.
const EVERY: Duration = Duration::from_secs(1);
/// How soon they are read again, however often somebody tells to.
const AGAIN: Duration = Duration::from_millis(100);
/// Most cancel requests that are held in memory, the newest; a task that only an older one names runs.
const MOST_CANCELS: i64 = 100_000;

/// What is asked for now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// Types of which nothing is started.
    pub paused_types: HashSet<String>,
    /// Tenants of whom nothing is started.
    pub paused_tenants: HashSet<String>,
    /// Tasks to be cancelled, if they are not done, with the tenants that ask; empty: whosever it is.
    pub cancels: HashMap<TaskId, Vec<Box<str>>>,
}

impl Controls {
    /// Whether a task of this type and tenant is not to be started.
    #[must_use]
    pub fn pauses(&self, task_type: &str, tenant: &str) -> bool {
        self.paused_types.contains(task_type) || self.paused_tenants.contains(tenant)
    }

    /// Whether somebody who may asks for this task to be cancelled.
    #[must_use]
    pub fn is_cancelled(&self, task: &Task) -> bool {
        self.cancels.get(&task.task_id).is_some_and(|tenants| {
            let mut tenants = tenants.iter().map(|tenant| &**tenant);
            tenants.any(|tenant| tenant.is_empty() || tenant == &*task.tenant)
        })
    }

    /// Whether something is paused.
    #[must_use]
    pub fn pause_something(&self) -> bool {
        !self.paused_types.is_empty() || !self.paused_tenants.is_empty()
    }
}

/// The owner's end.
#[derive(Debug)]
pub struct ControlPanel {
    /// What is asked for now.
    pub now: watch::Receiver<Arc<Controls>>,
    /// One for each hint that parked tasks were put into the table by somebody else.
    pub parked: mpsc::UnboundedReceiver<()>,
    /// Tasks whose cancel requests are done with.
    done: mpsc::UnboundedSender<Vec<TaskId>>,
}

impl ControlPanel {
    /// Starts watching.
    #[must_use]
    pub fn start(database: Database) -> Self {
        let (sender, now) = watch::channel(Arc::default());
        let (hints, parked) = mpsc::unbounded_channel();
        let (done, ended) = mpsc::unbounded_channel();
        tokio::spawn(keep_watching(database, sender, hints, ended));
        Self { now, parked, done }
    }

    /// Lets the requests of these tasks be removed: how they ended is in the tables.
    pub fn forget(&self, tasks: Vec<TaskId>) {
        if !tasks.is_empty() {
            // Without a listener the worker is about to end, and maintenance sweeps them.
            let _ = self.done.send(tasks);
        }
    }
}

async fn keep_watching(
    database: Database,
    sender: watch::Sender<Arc<Controls>>,
    hints: mpsc::UnboundedSender<()>,
    mut ended: mpsc::UnboundedReceiver<Vec<TaskId>>,
) {
    let mut told = false;
    while !sender.is_closed() {
        let watched = watch_once(&database, &sender, &hints, &mut ended, &mut told).await;
        let Err(trouble) = watched else { return };
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(error = %trouble, "pauses and cancel requests cannot be read: those known stay in force");
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Watches until the database fails; `Ok` when the owner is gone.
async fn watch_once(
    database: &Database,
    sender: &watch::Sender<Arc<Controls>>,
    hints: &mpsc::UnboundedSender<()>,
    ended: &mut mpsc::UnboundedReceiver<Vec<TaskId>>,
    told: &mut bool,
) -> Result<(), Trouble> {
    let mut notices = Notices::connect(database, &Notice::FOR_WORKERS).await?;
    let mut connection = database.connect(Purpose::Operations).await?;
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Whether they are to be read, and when at the earliest.
    let (mut is_due, mut from) = (true, Instant::now());
    loop {
        tokio::select! {
            () = sleep_until(from), if is_due => {}
            _ = every.tick() => {
                is_due = true;
                continue;
            }
            word = notices.next() => {
                if word?.notice != Notice::Parked {
                    is_due = true;
                } else if hints.send(()).is_err() {
                    return Ok(());
                }
                continue;
            }
            tasks = ended.recv() => match tasks {
                Some(tasks) => {
                    cancels::forget(&mut connection, &tasks).await?;
                    is_due = true;
                    continue;
                }
                None => return Ok(()),
            },
        }
        is_due = false;
        from = Instant::now() + AGAIN;
        let found = Arc::new(read(&mut connection).await?);
        *told = false;
        sender.send_if_modified(|known| {
            let news = *known != found;
            if news {
                *known = found;
            }
            news
        });
    }
}

async fn read(connection: &mut PgConnection) -> Result<Controls, Trouble> {
    let mut controls = Controls::default();
    for pause in pauses::all(connection).await? {
        match pause.scope {
            Scope::TaskType => controls.paused_types.insert(pause.name),
            Scope::Tenant => controls.paused_tenants.insert(pause.name),
        };
    }
    let pending = cancels::pending(connection, MOST_CANCELS).await?;
    for request in pending {
        let tenants = controls.cancels.entry(request.task).or_default();
        tenants.push(request.tenant);
    }
    Ok(controls)
}
