//! Whoever waits for tasks: told within milliseconds of the flush, at whichever front door they wait.
//!
//! One connection listens for the notices that flushes send; the tasks of a notice that somebody waits for here
//! are looked up together. A notice may be missed (the connection broke, or a release of another version sends
//! none), so what waits is also looked at every few seconds, many at a time. Ten thousand who wait cost ten
//! thousand entries and a statement now and then.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use millrace_schemas::TaskId;
use millrace_store::notices::{Notice, Notices};
use millrace_store::{Database, Trouble};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::accepted::Accepted;
use super::lookup::{Lookup, Standing};

/// How long a task may go without being looked at while somebody waits for its end.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Of those looks, one in so many asks how a task stands; the others ask for its end alone, which is a short question.
const THOROUGH: u32 = 4;
/// How often tasks are looked at whose progress somebody follows.
const FOLLOW: Duration = Duration::from_millis(500);
/// How often the round is made that finds both.
const ROUND: Duration = Duration::from_millis(250);
/// Most tasks looked at in one round.
const ROUND_MOST: usize = 2_000;
/// How long to wait before listening again after the connection broke.
const LISTEN_AGAIN: Duration = Duration::from_millis(500);

/// What is known of a task that somebody waits for; `None` before the first look.
type Seen = Option<Standing>;

struct Entry {
    seen: watch::Sender<Seen>,
    waiting: usize,
    /// How many of those want every change, not only the end.
    following: usize,
    looked: Instant,
    /// Looks so far.
    looks: u32,
    /// Whether a look is under way.
    looking: bool,
}

impl Entry {
    /// Whether the next look asks how the task stands, and not for its end alone.
    const fn is_thorough(&self) -> bool {
        self.following > 0 || self.looks % THOROUGH == THOROUGH - 1
    }
}

#[derive(Default)]
struct Shared {
    entries: Mutex<HashMap<TaskId, Entry>>,
    /// Somebody new waits.
    news: Notify,
}

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<TaskId, Entry>) -> T) -> T {
        act(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// All who wait at this front door. Clones are the same.
#[derive(Clone)]
pub(crate) struct Waiting {
    shared: Arc<Shared>,
    lookup: Lookup,
    accepted: Arc<Accepted>,
    /// Tasks to be looked at now.
    look: mpsc::UnboundedSender<Vec<TaskId>>,
}

/// One who waits for one task, until it is dropped.
pub(crate) struct Wait {
    waiting: Waiting,
    id: TaskId,
    follows: bool,
    seen: watch::Receiver<Seen>,
}

impl Waiting {
    /// Begins to listen; ends with `stop`. `access` is told when keys or limits may have changed.
    pub(crate) fn open(
        database: Database,
        lookup: Lookup,
        access: Arc<Notify>,
        stop: CancellationToken,
    ) -> Self {
        let shared: Arc<Shared> = Arc::default();
        let (look, looks) = mpsc::unbounded_channel();
        let this = Self {
            shared,
            lookup,
            accepted: Arc::default(),
            look,
        };
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(this.clone().listen(database, access)),
        );
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(this.clone().rounds()),
        );
        tokio::spawn(stop.run_until_cancelled_owned(this.clone().looks(looks)));
        this
    }

    /// Waits for a task from now on; look at it once after this, since what was told before is not told again.
    /// `follows` asks for every change instead of the end alone.
    pub(crate) fn wait(&self, id: TaskId, follows: bool) -> Wait {
        let seen = self.shared.with(|entries| {
            let entry = entries.entry(id).or_insert_with(|| Entry {
                seen: watch::Sender::new(None),
                waiting: 0,
                following: 0,
                looked: Instant::now(),
                looks: 0,
                looking: false,
            });
            entry.waiting += 1;
            entry.following += usize::from(follows);
            entry.seen.subscribe()
        });
        self.shared.news.notify_one();
        Wait {
            waiting: self.clone(),
            id,
            follows,
            seen,
        }
    }

    /// What this front door handed over a moment ago.
    pub(crate) fn accepted(&self) -> &Arc<Accepted> {
        &self.accepted
    }

    /// How many wait here.
    pub(crate) fn count(&self) -> usize {
        self.shared
            .with(|entries| entries.values().map(|entry| entry.waiting).sum())
    }

    async fn listen(self, database: Database, access: Arc<Notify>) {
        loop {
            if let Err(trouble) = self.listen_once(&database, &access).await {
                tracing::warn!(%trouble, "notices of the database are not heard; looking instead");
            }
            self.accepted.listens(false);
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    async fn listen_once(&self, database: &Database, access: &Notify) -> Result<(), Trouble> {
        let mut notices = Notices::connect(database, &Notice::FOR_DOORS).await?;
        self.accepted.listens(true);
        // Whatever was told before is not told again.
        access.notify_one();
        self.look_at(|_, _| true);
        loop {
            let word = notices.next().await?;
            match word.notice {
                Notice::Ended => {
                    self.accepted.ended(&word.tasks);
                    let told: HashSet<TaskId> = word.tasks.into_iter().collect();
                    let here: Vec<TaskId> = self.shared.with(|entries| {
                        told.into_iter()
                            .filter(|id| entries.contains_key(id))
                            .collect()
                    });
                    if !here.is_empty() && self.look.send(here).is_err() {
                        return Ok(());
                    }
                }
                _ => access.notify_one(),
            }
        }
    }

    /// Looks now at up to a round's worth of those that are wanted, the longest not looked at first.
    fn look_at(&self, wanted: impl Fn(&Entry, Instant) -> bool) {
        let now = Instant::now();
        let found = self.shared.with(|entries| {
            let mut found: Vec<(Instant, TaskId)> = entries
                .iter()
                .filter(|(_, entry)| !entry.looking && wanted(entry, now))
                .map(|(id, entry)| (entry.looked, *id))
                .collect();
            found.sort_unstable_by_key(|(looked, _)| *looked);
            found.truncate(ROUND_MOST);
            for (_, id) in &found {
                if let Some(entry) = entries.get_mut(id) {
                    entry.looking = true;
                }
            }
            found
        });
        if !found.is_empty() {
            let _ = self
                .look
                .send(found.into_iter().map(|(_, id)| id).collect());
        }
    }

    async fn rounds(self) {
        loop {
            if self.shared.with(|entries| entries.is_empty()) {
                self.shared.news.notified().await;
            }
            tokio::time::sleep(ROUND).await;
            self.look_at(|entry, now| {
                let due = match entry.following {
                    0 => LOOK_AGAIN,
                    _ => FOLLOW,
                };
                now.duration_since(entry.looked) >= due
            });
        }
    }

    async fn looks(self, mut looks: mpsc::UnboundedReceiver<Vec<TaskId>>) {
        while let Some(ids) = looks.recv().await {
            for id in ids {
                let this = self.clone();
                // Each asks at the desk, where they meet in one statement.
                tokio::spawn(async move {
                    let standing = this.look(id).await;
                    this.saw(id, standing);
                });
            }
        }
    }

    async fn look(&self, id: TaskId) -> Option<Standing> {
        let is_thorough =
            |entries: &mut HashMap<TaskId, Entry>| Some(entries.get(&id)?.is_thorough());
        if self.shared.with(is_thorough)? {
            return self.lookup.standing_now(id).await.ok();
        }
        let end = self.lookup.end(id).await.ok()?;
        end.map(Standing::Ended)
    }

    fn saw(&self, id: TaskId, standing: Option<Standing>) {
        self.shared.with(|entries| {
            if let Some(entry) = entries.get_mut(&id) {
                entry.looking = false;
                entry.looked = Instant::now();
                entry.looks = entry.looks.wrapping_add(1);
                // An end that was told meanwhile is newer than what this look found.
                let has_ended = matches!(&*entry.seen.borrow(), Some(Standing::Ended(_)));
                if let Some(standing) = standing
                    && (standing.is_final() || !has_ended)
                {
                    entry.seen.send_replace(Some(standing));
                }
            }
        });
    }
}

impl Wait {
    /// Waits for the task's end. What it returns is the end, or that there will be none.
    pub(crate) async fn end(&mut self) -> Standing {
        loop {
            {
                let seen = self.seen.borrow_and_update();
                if let Some(standing) = seen.as_ref().filter(|standing| standing.is_final()) {
                    return standing.clone();
                }
            }
            self.news().await;
        }
    }

    /// Waits for the next look at the task.
    pub(crate) async fn next(&mut self) -> Standing {
        loop {
            self.news().await;
            if let Some(standing) = self.seen.borrow_and_update().clone() {
                return standing;
            }
        }
    }

    async fn news(&mut self) {
        if self.seen.changed().await.is_err() {
            // The sender lives as long as its entry, and the entry as long as this.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.waiting.shared.with(|entries| {
            if let Some(entry) = entries.get_mut(&self.id) {
                entry.waiting -= 1;
                entry.following -= usize::from(self.follows);
                if entry.waiting == 0 {
                    entries.remove(&self.id);
                }
            }
        });
    }
}
