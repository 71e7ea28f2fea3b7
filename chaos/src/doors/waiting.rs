//! Waiting for what becomes of accepted tasks, until each result was told.
//!
//! A wait that ends without a result has to have lasted as long as it was to, and the task must not have ended while
//! it was waited for: whoever sleeps through an end was not told of it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::client::{Client, PAUSE, Said};
use super::http::Ask;
use super::task::Task;
use super::told::Kind;

/// The wait that is asked for.
pub(super) const WAIT: Duration = Duration::from_secs(10);
/// A wait may be shorter than asked for by no more than this.
const EARLY: Duration = Duration::from_millis(500);
/// An end is told within milliseconds of its transaction; on a busy machine, and by the time that a worker has
/// written down before its transaction, within this.
const SLACK: Duration = Duration::from_secs(5);

/// Whether a wait that began then ends too early now.
pub(super) fn early(began: Instant) -> bool {
    began.elapsed() + EARLY < WAIT
}

impl Client {
    /// Waits for these tasks, until all of their results were told.
    pub(super) async fn await_results(&mut self, kind: Kind, tasks: &[(Uuid, Task)]) {
        self.told.count(kind).begun += tasks.len();
        if kind.follows() && !self.follow_to_the_end(kind, tasks).await {
            return;
        }
        for (id, task) in tasks {
            self.await_result(kind, *id, task).await;
        }
    }

    async fn await_result(&mut self, kind: Kind, id: Uuid, task: &Task) {
        let name = &task.name;
        let mut deadline = self.deadline();
        loop {
            let said = if matches!(kind, Kind::GrpcWait | Kind::GrpcWatch) {
                self.grpc_wait(id).await
            } else {
                self.result(id).await
            };
            match said {
                Said::Yes(Some(result)) => {
                    if result == task.payload() {
                        self.told.count(kind).answered += 1;
                    } else {
                        let what = format!("the result of {name} ({id}) is told as {result}");
                        self.told.violation(what);
                    }
                    return;
                }
                Said::Yes(None) if kind.follows() => {
                    let what = format!("{}: {name} ({id}) ended, and has no result", kind.name());
                    self.told.violation(what);
                    return;
                }
                Said::Yes(None) => {}
                Said::No(refusal) if refusal.says_later() => self.told.count(kind).later += 1,
                Said::No(refusal) => {
                    let why = refusal.text();
                    self.told
                        .violation(format!("asking for {name} ({id}) is refused: {why}"));
                    return;
                }
                Said::Cut(excuse) => self.told.cut(kind, excuse),
                Said::Wrong => return,
            }
            if deadline.is_over() {
                self.told.violation(format!(
                    "{}: nobody told the result of {name} ({id}) in time",
                    kind.name()
                ));
                return;
            }
            sleep(PAUSE).await;
        }
    }

    /// The result, if it comes while it is waited for.
    async fn result(&mut self, id: Uuid) -> Said<Option<Value>> {
        let path = format!("/v1/task/{id}/result?wait={}s", WAIT.as_secs());
        let began = Instant::now();
        let answer = match self.ask(Ask::get(path)).await {
            Said::Yes(answer) => answer,
            other => return other.unanswered(),
        };
        match (answer.status, answer.json()) {
            (200, Some(result)) => Said::Yes(Some(result)),
            (202, Some(_)) => self.ended_without(id, began).await,
            _ => self.wrong(format!("the result of {id} is told as {}", answer.text())),
        }
    }

    /// A wait that began then ended now, and the task had not.
    pub(super) async fn ended_without<T>(&mut self, id: Uuid, began: Instant) -> Said<Option<T>> {
        if early(began) {
            let lasted = began.elapsed();
            return self.wrong(format!("a wait for {id} ended after {lasted:?}"));
        }
        if self.must_be_open(id).await {
            Said::Yes(None)
        } else {
            Said::Wrong
        }
    }

    /// Asks whether a task that was waited for in vain until now had not ended for some time; a violation if it had.
    pub(super) async fn must_be_open(&mut self, id: Uuid) -> bool {
        let now = Utc::now();
        let mut deadline = self.deadline();
        while !deadline.is_over() {
            match self.ask(Ask::get(format!("/v1/task/{id}/status"))).await {
                Said::Yes(answer) => {
                    let ended: Option<DateTime<Utc>> = answer
                        .json()
                        .and_then(|status| status.get("completed_at")?.as_str()?.parse().ok());
                    let is_late = ended.is_some_and(|ended| ended + SLACK < now);
                    if is_late {
                        self.told.violation(format!(
                            "{id} had ended, and who waited until {now} was not told: {}",
                            answer.text()
                        ));
                    }
                    return !is_late;
                }
                Said::No(refusal) if refusal.says_later() => {}
                Said::No(refusal) => {
                    let why = refusal.text();
                    self.told
                        .violation(format!("the status of {id} is refused: {why}"));
                    return false;
                }
                Said::Cut(_) => {}
                Said::Wrong => return false,
            }
            sleep(PAUSE).await;
        }
        self.told
            .violation(format!("nobody told the status of {id} in time"));
        false
    }
}
