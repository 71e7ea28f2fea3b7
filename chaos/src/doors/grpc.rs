//! The same by gRPC, each call on a connection of its own.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use super::client::{Client, REQUEST, Said};
use super::lives::Visit;
use super::refusal::Refusal;
use super::task::Task;
use super::v1::task_state::Outcome;
use super::v1::tasks_client::TasksClient;
use super::v1::{self, TaskState, WaitRequest, WatchRequest};
use super::waiting::WAIT;
use super::watching::QUIET;

type Tasks = TasksClient<Channel>;

impl Client {
    pub(super) async fn grpc_submit(&mut self, task: &Task) -> Said<Uuid> {
        let (visit, mut tasks) = match self.connect().await {
            Said::Yes(connected) => connected,
            other => return other.unanswered(),
        };
        let answer = timeout(REQUEST, tasks.submit(task.request())).await;
        let answer = match answer {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return self.ended(visit, "Submit", status),
            Err(_) => return self.slow(visit, "Submit"),
        };
        match answer.task_id.parse() {
            Ok(id) => Said::Yes(id),
            Err(_) => self.wrong(format!("Submit of {} is answered {answer:?}", task.name)),
        }
    }

    /// The result, if it comes while it is waited for.
    pub(super) async fn grpc_wait(&mut self, id: Uuid) -> Said<Option<Value>> {
        let (visit, mut tasks) = match self.connect().await {
            Said::Yes(connected) => connected,
            other => return other.unanswered(),
        };
        let began = Instant::now();
        let request = WaitRequest {
            task_id: id.to_string(),
            timeout: WAIT.try_into().ok(),
        };
        let state = match timeout(REQUEST, tasks.wait(request)).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return self.ended(visit, "Wait", status),
            Err(_) => return self.slow(visit, "Wait"),
        };
        match state.status() {
            v1::Status::Success => match result_of(&state) {
                Some(result) => Said::Yes(Some(result)),
                None => self.wrong(format!("Wait is answered {state:?}")),
            },
            status if is_under_way(status) => self.ended_without(id, began).await,
            _ => self.wrong(format!("Wait is answered {state:?}")),
        }
    }

    /// One `Watch`, to its end or until it has been quiet for some time.
    pub(super) async fn watch(&mut self, open: &mut BTreeSet<Uuid>) -> Said<()> {
        let (visit, mut tasks) = match self.connect().await {
            Said::Yes(connected) => connected,
            other => return other.unanswered(),
        };
        let request = WatchRequest {
            task_ids: open.iter().map(Uuid::to_string).collect(),
        };
        let mut states = match timeout(REQUEST, tasks.watch(request)).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return self.ended(visit, "Watch", status),
            Err(_) => return self.slow(visit, "Watch"),
        };
        let mut news = Instant::now();
        loop {
            let state = match timeout_at(news + QUIET, states.message()).await {
                Ok(Ok(Some(state))) => state,
                Ok(Ok(None)) if open.is_empty() => return Said::Yes(()),
                Ok(Ok(None)) => {
                    return self.wrong(format!("Watch ended without the end of {open:?}"));
                }
                Ok(Err(status)) => return self.ended(visit, "Watch", status),
                Err(_) if open.is_empty() => {
                    return self.wrong("Watch does not end after the last end");
                }
                Err(_) => return self.quiet(open).await,
            };
            news = Instant::now();
            match (state.status(), state.task_id.parse()) {
                (v1::Status::Success, Ok(id)) => _ = open.remove(&id),
                (status, Ok(_)) if is_under_way(status) => {}
                _ => return self.wrong(format!("Watch says {state:?}")),
            }
        }
    }

    async fn connect(&mut self) -> Said<(Visit, Tasks)> {
        let Some(visit) = self.visit() else {
            return self.wrong("there are no front doors");
        };
        let endpoint = match Endpoint::from_shared(format!("http://{}", visit.address)) {
            Ok(endpoint) => endpoint,
            Err(error) => return self.wrong(format!("no address: {error}")),
        };
        match timeout(REQUEST, endpoint.connect()).await {
            Ok(Ok(channel)) => Said::Yes((visit, TasksClient::new(channel))),
            Ok(Err(error)) => self.broke(visit, "a gRPC connection", &error.into()),
            Err(_) => self.slow(visit, "a gRPC connection"),
        }
    }

    /// A call that did not succeed: the front door says why, or the connection broke.
    fn ended<T>(&mut self, visit: Visit, call: &str, status: Status) -> Said<T> {
        match Refusal::of_status(&status) {
            Some(Ok(refusal)) => Said::No(refusal),
            Some(Err(text)) => {
                self.wrong(format!("{call} is refused in no documented way: {text}"))
            }
            None => self.broke(visit, call, &status.into()),
        }
    }
}

const fn is_under_way(status: v1::Status) -> bool {
    matches!(
        status,
        v1::Status::Accepted | v1::Status::Processing | v1::Status::Retrying
    )
}

fn result_of(state: &TaskState) -> Option<Value> {
    match &state.outcome {
        Some(Outcome::Result(result)) => serde_json::from_slice(&result.body).ok(),
        _ => None,
    }
}
