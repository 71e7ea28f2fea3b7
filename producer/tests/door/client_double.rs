//! A front door that answers by gRPC what a test wants it to, and tells what it was asked.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::{Stream, StreamExt as _, stream};
use millrace_producer::client::Client;
use millrace_producer::v1::task_state::Outcome;
use millrace_producer::v1::tasks_server::{Tasks, TasksServer};
use millrace_producer::v1::{
    CancelRequest, GetRequest, Result as TaskResult, SubmitRequest, SubmitResponse,
    SubmitStreamResponse, TaskState, WaitRequest, WatchRequest,
};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::scene::DEADLINE;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T, R> = Box<dyn Fn(T) -> Result<R, Status> + Send + Sync>;

/// What it answers. A stream tells these states and stays open.
pub struct Script {
    pub submit: Answer<SubmitRequest, String>,
    pub get: Answer<String, TaskState>,
    pub watch: Answer<Vec<String>, Vec<TaskState>>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            submit: Box::new(|_| Err(refused(Code::Unavailable, Some("unavailable")))),
            get: Box::new(|_| Err(refused(Code::Unavailable, Some("unavailable")))),
            watch: Box::new(|_| Ok(Vec::new())),
        }
    }
}

/// What it was asked.
#[derive(Default)]
pub struct Asked {
    pub watches: usize,
    /// The streams that are open, and the tasks of each.
    pub open: HashMap<usize, Vec<String>>,
    /// The most that were open at a time.
    pub most: usize,
}

pub struct Double {
    pub base: String,
    asked: Arc<Mutex<Asked>>,
}

impl Double {
    pub async fn open(script: Script) -> Double {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::default();
        let service = Service {
            script,
            asked: Arc::clone(&asked),
        };
        let router = tonic::service::Routes::new(TasksServer::new(service)).into_axum_router();
        tokio::spawn(async { axum::serve(listener, router).await });
        Double { base, asked }
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.base).await.unwrap()
    }

    pub fn asked<T>(&self, look: impl FnOnce(&Asked) -> T) -> T {
        look(&self.asked.lock().unwrap())
    }

    pub async fn until(&self, what: &str, is_so: impl Fn(&Asked) -> bool) {
        let began = Instant::now();
        while !self.asked(&is_so) {
            assert!(began.elapsed() < DEADLINE, "{what}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// A refused call, with the name that the front door gives it.
pub fn refused(code: Code, problem: Option<&'static str>) -> Status {
    let mut status = Status::new(code, "not now");
    if let Some(problem) = problem {
        let name = MetadataValue::from_static(problem);
        status.metadata_mut().insert("millrace-problem", name);
    }
    status
}

/// A task under way.
pub fn open(task_id: &str) -> TaskState {
    TaskState {
        task_id: task_id.to_owned(),
        ..TaskState::default()
    }
}

/// A task that ended with nothing.
pub fn ended(task_id: &str) -> TaskState {
    TaskState {
        outcome: Some(Outcome::Result(TaskResult::default())),
        ..open(task_id)
    }
}

struct Service {
    script: Script,
    asked: Arc<Mutex<Asked>>,
}

/// A stream that is open until it is dropped.
struct Open(usize, Arc<Mutex<Asked>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.1.lock().unwrap().open.remove(&self.0);
    }
}

#[tonic::async_trait]
impl Tasks for Service {
    async fn submit(
        &self,
        request: Request<SubmitRequest>,
    ) -> Result<Response<SubmitResponse>, Status> {
        let task_id = (self.script.submit)(request.into_inner())?;
        Ok(Response::new(SubmitResponse { task_id }))
    }

    type SubmitStreamStream = Answers<SubmitStreamResponse>;

    async fn submit_stream(
        &self,
        _: Request<Streaming<SubmitRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        Err(refused(Code::Unimplemented, None))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<TaskState>, Status> {
        (self.script.get)(request.into_inner().task_id).map(Response::new)
    }

    async fn wait(&self, _: Request<WaitRequest>) -> Result<Response<TaskState>, Status> {
        Err(refused(Code::Unimplemented, None))
    }

    type WatchStream = Answers<TaskState>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let ids = request.into_inner().task_ids;
        let place = {
            let mut asked = self.asked.lock().unwrap();
            asked.watches += 1;
            asked.watches
        };
        let states = (self.script.watch)(ids.clone())?;
        let is_over = states
            .iter()
            .filter(|state| state.outcome.is_some())
            .count()
            == ids.len();
        let open = Open(place, Arc::clone(&self.asked));
        {
            let mut asked = self.asked.lock().unwrap();
            asked.open.insert(place, ids);
            asked.most = asked.most.max(asked.open.len());
        }
        let told = stream::iter(states.into_iter().map(Ok));
        let rest = stream::pending().take(usize::from(!is_over));
        let answer = told.chain(rest).map(move |state| {
            let _open = &open;
            state
        });
        Ok(Response::new(Box::pin(answer)))
    }

    async fn cancel(&self, _: Request<CancelRequest>) -> Result<Response<TaskState>, Status> {
        Err(refused(Code::Unimplemented, None))
    }
}
