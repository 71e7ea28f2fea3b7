//! The tasks that somebody awaits, and what is known of each. Whoever awaits one is told of every change, however
//! it was found out; a task that nobody awaits any more is forgotten, and followed no further.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

use super::calls::Calls;
use super::gathering;
use crate::v1::TaskState;

/// What is known of a task that somebody awaits: nothing yet, or its last state.
pub(super) type Seen = Option<TaskState>;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) calls: Calls,
    awaited: Mutex<HashMap<String, watch::Sender<Seen>>>,
    /// Tasks that nothing follows yet.
    new: mpsc::UnboundedSender<String>,
}

impl Shared {
    /// Begins to gather what is awaited, until the last client is gone.
    pub(super) fn start(calls: Calls) -> Arc<Self> {
        let (new, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Self {
            calls,
            awaited: Mutex::default(),
            new,
        });
        tokio::spawn(gathering::gather(Arc::downgrade(&shared), receiver));
        shared
    }

    fn awaited<T>(&self, act: impl FnOnce(&mut HashMap<String, watch::Sender<Seen>>) -> T) -> T {
        act(&mut self.awaited.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn follow(&self, task_id: &str) -> watch::Receiver<Seen> {
        let (receiver, is_new) = self.awaited(|awaited| match awaited.get(task_id) {
            Some(sender) => (sender.subscribe(), false),
            None => {
                let (sender, receiver) = watch::channel(None);
                awaited.insert(task_id.to_owned(), sender);
                (receiver, true)
            }
        });
        if is_new {
            // Without a listener the client is about to go, and its handles with it.
            let _ = self.new.send(task_id.to_owned());
        }
        receiver
    }

    /// Tells whoever awaits a task how it stands, if that is new: who begins to follow is told the last state again.
    pub(super) fn tell(&self, state: TaskState) {
        self.awaited(|awaited| {
            let Some(sender) = awaited.get(&state.task_id) else {
                return;
            };
            let id = is_end(&state).then(|| state.task_id.clone());
            sender.send_if_modified(|seen| {
                let is_news = seen.as_ref() != Some(&state);
                if is_news {
                    *seen = Some(state);
                }
                is_news
            });
            if let Some(id) = id {
                awaited.remove(&id);
            }
        });
    }

    /// Keeps of these tasks those that somebody awaits.
    pub(super) fn retain_awaited(&self, ids: &mut Vec<String>) {
        self.awaited(|awaited| ids.retain(|id| awaited.contains_key(id)));
    }

    /// Forgets the tasks that nobody awaits any more, and says which.
    pub(super) fn forget_abandoned(&self) -> HashSet<String> {
        self.awaited(|awaited| {
            let abandoned = awaited.extract_if(|_, sender| sender.is_closed());
            abandoned.map(|(id, _)| id).collect()
        })
    }
}

pub(super) fn is_end(state: &TaskState) -> bool {
    state.outcome.is_some()
}
