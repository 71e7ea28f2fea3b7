//! Following tasks: each change of how they stand, until they have ended.
//!
//! What is told are states, not steps, so one that was missed is made up for by the next. A state has a name,
//! the same at every front door; whoever comes back with it is told only what is new.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace_schemas::TaskId;
use millrace_store::api_keys::Scope;
use millrace_store::results::StatusWord;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::gate::{Caller, Followed, Stay};
use super::lookup::Standing;
use super::refusal::{Kind, Refusal};
use super::state::Door;

/// How long whoever follows may take to read what it was told.
pub(crate) const SLOWEST_READER: Duration = Duration::from_secs(30);
/// How often it is looked at whether whoever follows still may.
pub(crate) const MAY_EVERY: Duration = Duration::from_secs(15);
/// Tasks of one stream that are looked at for the first time together: the desk is there for all streams.
const FIRST_LOOKS: usize = 256;
/// News that may wait for a reader.
const NEWS_WAITING: usize = 16;

/// News of one task: how it stands, or that nothing is known of it, or nothing any more.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub id: TaskId,
    pub seen: Result<Standing, Refusal>,
}

impl Told {
    /// Whether nothing more will come of it.
    pub(crate) fn is_last(&self) -> bool {
        match &self.seen {
            Ok(standing) => standing.status().is_terminal(),
            Err(_) => true,
        }
    }

    /// The state's name.
    pub(crate) fn state(&self) -> String {
        let text = match &self.seen {
            Ok(Standing::Ended(end)) => format!(
                "{} {} {} {}",
                end.status.as_str(),
                end.run,
                end.attempts,
                end.completed_ms
            ),
            Ok(Standing::Open(status)) => format!(
                "{} {} {} {:?} {:?} {:?} {}",
                status.status.as_str(),
                status.run,
                status.attempts,
                status.progress,
                status.note,
                status.due_at,
                status.cancel_requested
            ),
            Err(refusal) => refusal.kind.name().to_owned(),
        };
        let digest = blake3::hash(format!("{} {text}", self.id).as_bytes()).to_hex();
        digest.as_str().get(..16).unwrap_or_default().to_owned()
    }
}

/// What one stream follows. It ends with the last of its tasks, when the front door closes, when its key is
/// revoked, and when nobody reads: whatever was missed is made up for when its client comes back.
pub(crate) struct Following {
    door: Arc<Door>,
    caller: Caller,
    news: mpsc::WeakSender<Told>,
    receiver: mpsc::Receiver<Told>,
    /// What is still to be told of tasks that were followed to their end.
    left: VecDeque<Told>,
    /// When it is to be looked at again whether the caller still may.
    may_until: Instant,
    began: Instant,
    /// When something was last asked for, in s since the beginning.
    taken: Arc<AtomicU64>,
    /// Places of first looks.
    looks: Arc<Semaphore>,
    /// Cancelled when the stream is to end.
    over: CancellationToken,
    _over: DropGuard,
    _place: OwnedSemaphorePermit,
    _stay: Stay,
}

/// A task that is followed, among all of them.
struct Share {
    _all: OwnedSemaphorePermit,
    _tenant: Followed,
}

impl Following {
    /// Begins to follow these tasks; `known` is the state that need not be told.
    ///
    /// # Errors
    /// Too many streams are open, or too many tasks are followed.
    pub(crate) fn begin(
        door: &Arc<Door>,
        caller: &Caller,
        ids: Vec<TaskId>,
        known: Option<&str>,
    ) -> Result<Self, Refusal> {
        most_followed(door, ids.len())?;
        let place = door.stream_place()?;
        let stay = caller.stay()?;
        let shares = shares(door, caller, ids.len())?;
        let (news, receiver) = mpsc::channel(NEWS_WAITING);
        let over = door.closing.child_token();
        let this = Self {
            door: door.clone(),
            caller: caller.clone(),
            news: news.downgrade(),
            receiver,
            left: VecDeque::new(),
            may_until: Instant::now() + MAY_EVERY,
            began: Instant::now(),
            taken: Arc::default(),
            looks: Arc::new(Semaphore::new(FIRST_LOOKS)),
            _over: over.clone().drop_guard(),
            over,
            _place: place,
            _stay: stay,
        };
        this.start(&news, ids, shares, known);
        Ok(this)
    }

    /// Follows these, too; `so_far` counts the others.
    ///
    /// # Errors
    /// Too many tasks are followed, or the key is not valid any more.
    pub(crate) fn more(&mut self, ids: Vec<TaskId>, so_far: usize) -> Result<(), Refusal> {
        most_followed(&self.door, ids.len() + so_far)?;
        self.door.gate.still(&self.caller, Scope::Read)?;
        let shares = shares(&self.door, &self.caller, ids.len())?;
        let news = self.news.upgrade().unwrap_or_else(|| {
            // All others have ended, if not been told of.
            while let Ok(told) = self.receiver.try_recv() {
                self.left.push_back(told);
            }
            let (news, receiver) = mpsc::channel(NEWS_WAITING);
            self.news = news.downgrade();
            self.receiver = receiver;
            news
        });
        self.start(&news, ids, shares, None);
        Ok(())
    }

    fn start(
        &self,
        news: &mpsc::Sender<Told>,
        ids: Vec<TaskId>,
        shares: Vec<Share>,
        known: Option<&str>,
    ) {
        for (id, share) in ids.into_iter().zip(shares) {
            let follower = Follower {
                door: self.door.clone(),
                tenant: self.caller.tenant().into(),
                id,
                news: news.clone(),
                began: self.began,
                taken: self.taken.clone(),
                looks: self.looks.clone(),
                over: self.over.clone(),
                _share: share,
            };
            tokio::spawn(follower.run(known.map(str::to_owned)));
        }
    }

    /// What is new, or nothing new for as long as `patience`. Cancel safe.
    pub(crate) async fn next(&mut self, patience: Duration) -> Next {
        if self.over.is_cancelled() {
            return Next::Over;
        }
        if self.may_until <= Instant::now() {
            if self.door.gate.still(&self.caller, Scope::Read).is_err() {
                return Next::Over;
            }
            self.may_until = Instant::now() + MAY_EVERY;
        }
        let until = self.may_until.min(Instant::now() + patience).into();
        self.taken
            .store(self.began.elapsed().as_secs(), Ordering::Relaxed);
        if let Some(told) = self.left.pop_front() {
            return Next::Told(told);
        }
        tokio::select! {
            biased;
            told = timeout_at(until, self.receiver.recv()) => match told {
                Ok(Some(told)) => Next::Told(told),
                Ok(None) if self.over.is_cancelled() => Next::Over,
                Ok(None) => Next::Done,
                Err(_) => Next::Quiet,
            },
            () = self.over.cancelled() => Next::Over,
        }
    }
}

/// What comes next of a stream.
pub(crate) enum Next {
    /// News of a task.
    Told(Told),
    /// Nothing so far.
    Quiet,
    /// Nothing any more: all tasks have ended.
    Done,
    /// The stream ends before its tasks have.
    Over,
}

/// Room for so many tasks more among those that are followed.
fn shares(door: &Door, caller: &Caller, count: usize) -> Result<Vec<Share>, Refusal> {
    // Where there are keys, no tenant takes all of it.
    let most = match door.gate.needs_keys() {
        true => (door.bounds.followed / 2).max(1),
        false => door.bounds.followed,
    };
    let one = || {
        let all = door.followed.clone().try_acquire_owned().map_err(|_| {
            Refusal::new(Kind::Unavailable, "too many tasks are followed at present")
                .after(Duration::from_secs(5))
        })?;
        Ok(Share {
            _all: all,
            _tenant: caller.follow(most)?,
        })
    };
    std::iter::repeat_with(one).take(count).collect()
}

/// Follows one task for a tenant until it ends.
struct Follower {
    door: Arc<Door>,
    tenant: Box<str>,
    id: TaskId,
    news: mpsc::Sender<Told>,
    began: Instant,
    taken: Arc<AtomicU64>,
    looks: Arc<Semaphore>,
    over: CancellationToken,
    _share: Share,
}

impl Follower {
    async fn run(self, known: Option<String>) {
        let mut wait = self.door.waiting.wait(self.id, true);
        let mut last = known;
        let first = async {
            // Its stream's, then everybody's: so a long stream does not stand before the others.
            let _places = (
                self.looks.acquire().await,
                self.door.first_looks.acquire().await,
            );
            // Without an answer the rounds of those who wait find one later.
            self.door.lookup.standing_now(self.id).await.ok()
        };
        let mut standing = tokio::select! {
            standing = first => standing,
            // Newer than what the first look would find; but that nobody has it may have been true before.
            next = wait.next() => Some(next).filter(|next| next.status() != StatusWord::Unknown),
            () = self.over.cancelled() => return,
        };
        loop {
            if let Some(standing) = standing.take() {
                let told = Told {
                    id: self.id,
                    seen: standing.seen_by(Some(&self.tenant)),
                };
                let (is_last, state) = (told.is_last(), told.state());
                if last.as_ref() != Some(&state) {
                    last = Some(state);
                    if !self.tell(told).await {
                        return;
                    }
                }
                if is_last {
                    return;
                }
            }
            tokio::select! {
                next = wait.next() => standing = Some(next),
                () = self.over.cancelled() => return,
            }
        }
    }

    /// False when the stream is over. One who reads nothing for long is not told less than others, but nothing
    /// any more.
    async fn tell(&self, told: Told) -> bool {
        loop {
            let place = tokio::select! {
                place = timeout(SLOWEST_READER, self.news.reserve()) => place,
                () = self.over.cancelled() => return false,
            };
            match place {
                Ok(Ok(place)) => {
                    place.send(told);
                    return true;
                }
                Ok(Err(_)) => return false,
                Err(_) => {}
            }
            // One who reads on is told in the end, however many others are told before.
            let taken = Duration::from_secs(self.taken.load(Ordering::Relaxed));
            if self.began.elapsed() > taken + SLOWEST_READER {
                self.over.cancel();
                return false;
            }
        }
    }
}

/// Whether one stream may follow so many tasks.
///
/// # Errors
/// It may not.
fn most_followed(door: &Door, count: usize) -> Result<(), Refusal> {
    let most = door.bounds.bulk_tasks;
    if count > most {
        return Err(Refusal::new(
            Kind::TooLarge,
            format!("{count} tasks are more than the {most} that one stream follows"),
        ));
    }
    Ok(())
}
