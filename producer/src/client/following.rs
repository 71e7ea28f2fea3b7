//! Following the tasks that somebody awaits: many by one stream, and by asking while no stream can be had.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::v1::task_state::Outcome;
use crate::v1::tasks_client::TasksClient;
use crate::v1::{self, TaskState};

/// How long handles are gathered before a stream is opened for them.
const GATHERED: Duration = Duration::from_millis(2);
/// Tasks that one stream follows.
const STREAM_MOST: usize = 5_000;
/// The first and the longest pause between questions while no stream can be had.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// What is known of a task that somebody awaits: nothing yet, or its last state.
pub(super) type Seen = Option<TaskState>;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) tasks: TasksClient<Channel>,
    pub(super) key: Option<MetadataValue<Ascii>>,
    pub(super) awaited: Mutex<HashMap<String, watch::Sender<Seen>>>,
    /// Tasks for which no stream is open yet.
    pub(super) new: mpsc::UnboundedSender<String>,
}

impl Shared {
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(key) = &self.key {
            request.metadata_mut().insert("authorization", key.clone());
        }
        request
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

    /// Tells whoever awaits a task how it stands. True when nothing more will come, or nobody awaits it any more.
    fn tell(&self, state: TaskState) -> bool {
        self.awaited(|awaited| {
            let Some(sender) = awaited.get(&state.task_id) else {
                return true;
            };
            let id = state.task_id.clone();
            let is_last = is_end(&state) || sender.is_closed();
            sender.send_replace(Some(state));
            if is_last {
                awaited.remove(&id);
            }
            is_last
        })
    }
}

pub(super) fn is_end(state: &TaskState) -> bool {
    state.outcome.is_some()
}

/// Opens a stream for all that begin to be awaited together.
pub(super) async fn gather(shared: Weak<Shared>, mut new: mpsc::UnboundedReceiver<String>) {
    let mut ids = Vec::new();
    while new.recv_many(&mut ids, STREAM_MOST).await > 0 {
        tokio::time::sleep(GATHERED).await;
        while ids.len() < STREAM_MOST
            && let Ok(id) = new.try_recv()
        {
            ids.push(id);
        }
        let Some(shared) = shared.upgrade() else {
            return;
        };
        tokio::spawn(watch_all(shared, std::mem::take(&mut ids)));
    }
}

/// Follows tasks until all have ended or nobody awaits them any more: by a stream, else by asking.
async fn watch_all(shared: Arc<Shared>, mut ids: Vec<String>) {
    let mut pause = PAUSES.0;
    loop {
        if watch_once(&shared, &ids).await {
            pause = PAUSES.0;
        }
        ids.retain(|id| shared.awaited(|awaited| awaited.contains_key(id)));
        if ids.is_empty() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
        ask_all(&shared, &mut ids).await;
    }
}

/// Follows tasks by one stream until it ends. True when it told anything.
async fn watch_once(shared: &Shared, ids: &[String]) -> bool {
    let watch = v1::WatchRequest {
        task_ids: ids.to_vec(),
    };
    let mut tasks = shared.tasks.clone();
    let Ok(answer) = tasks.watch(shared.request(watch)).await else {
        return false;
    };
    let mut states = answer.into_inner();
    let mut told = false;
    while let Ok(Some(state)) = states.message().await {
        told = true;
        shared.tell(state);
    }
    told
}

/// Asks for each task once; one that the front door does not know is told to be so.
async fn ask_all(shared: &Shared, ids: &mut Vec<String>) {
    let mut gone = Vec::new();
    for id in ids.iter() {
        let get = v1::GetRequest {
            task_id: id.clone(),
        };
        match shared.tasks.clone().get(shared.request(get)).await {
            Ok(answer) => {
                shared.tell(answer.into_inner());
            }
            Err(status) if is_final(&status) => {
                gone.push(id.clone());
                shared.tell(TaskState {
                    task_id: id.clone(),
                    outcome: Some(Outcome::Problem(v1::Problem {
                        kind: "refused".to_owned(),
                        detail: status.message().to_owned(),
                        ..v1::Problem::default()
                    })),
                    ..TaskState::default()
                });
            }
            // The front door is away: the others would fare no better.
            Err(_) => return,
        }
    }
    ids.retain(|id| !gone.contains(id));
}

/// Whether asking again would give the same answer.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::NotFound | Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument
    )
}
