//! Handing one task over, by HTTP or gRPC, with an idempotency key as often as it takes.
//!
//! What a front door's death leaves open is asked again at the next one: with a key until it is known, without one
//! not at all, since nothing was promised then.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::client::{Client, PAUSE, Said};
use super::http::{Answer, Ask};
use super::refusal::{IN_PROGRESS, REUSED, Refusal};
use super::task::Task;
use super::told::Kind;
use super::waiting::{WAIT, early};

/// A key is busy for at most 15 s after a front door died with it; beyond that, some time for a busy machine.
const BUSY: Duration = Duration::from_secs(20);

/// What became of a task that was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Accepted under this id.
    As(Uuid),
    /// Accepted, and its result was told.
    Done(Uuid),
    /// Its key is another task's.
    Reused,
    /// Nothing was promised, or what was is broken, which is noted.
    Not,
}

impl Taken {
    pub(super) const fn id(self) -> Option<Uuid> {
        match self {
            Self::As(id) | Self::Done(id) => Some(id),
            Self::Reused | Self::Not => None,
        }
    }
}

impl Client {
    /// Hands a task over.
    pub(super) async fn hand_over(&mut self, kind: Kind, task: &Task) -> Taken {
        self.told.count(kind).begun += 1;
        self.insist(kind, task).await
    }

    /// Goes on handing over what was begun.
    pub(super) async fn insist(&mut self, kind: Kind, task: &Task) -> Taken {
        let name = &task.name;
        let mut deadline = self.deadline();
        let mut left_open = Instant::now();
        loop {
            match self.submit(kind, task).await {
                Said::Yes(taken) => {
                    if let Some(id) = taken.id() {
                        self.told.accepted(kind, id, task);
                    }
                    return taken;
                }
                Said::No(refusal) if refusal.name == REUSED && kind == Kind::RaceOfTwo => {
                    self.told.count(kind).reused += 1;
                    return Taken::Reused;
                }
                Said::No(refusal) if self.may_come_again(kind, task, &refusal) => {
                    self.told.count(kind).later += 1;
                    if refusal.name != IN_PROGRESS {
                        left_open = Instant::now();
                    } else if left_open.elapsed() > BUSY && !kind.is_race() {
                        let why = refusal.text();
                        self.told.violation(format!("key {name} stays busy: {why}"));
                        return Taken::Not;
                    }
                    if !task.has_key && refusal.says_not_taken() {
                        self.told.not_taken.insert(name.clone());
                    }
                }
                Said::No(refusal) => {
                    let why = refusal.text();
                    self.told
                        .violation(format!("{}: {name} is refused: {why}", kind.name()));
                    return Taken::Not;
                }
                Said::Cut(excuse) => {
                    self.told.cut(kind, excuse);
                    left_open = Instant::now();
                }
                Said::Wrong => return Taken::Not,
            }
            if !task.has_key {
                return Taken::Not;
            }
            if deadline.is_over() {
                self.told
                    .violation(format!("key {name} was not taken in time"));
                return Taken::Not;
            }
            sleep(PAUSE).await;
        }
    }

    fn may_come_again(&self, kind: Kind, task: &Task, refusal: &Refusal) -> bool {
        // A key is in progress while its first request is: not after that was answered.
        let may_be_busy = task.has_key && kind != Kind::Again;
        refusal.says_later() || (may_be_busy && refusal.name == IN_PROGRESS)
    }

    async fn submit(&mut self, kind: Kind, task: &Task) -> Said<Taken> {
        if kind == Kind::GrpcSubmit {
            let said = self.grpc_submit(task).await;
            return said.and_then(|id| Said::Yes(Taken::As(id)));
        }
        let ask = Ask::post("/v1/task/submit", &task.json());
        if kind != Kind::Prefer {
            let said = self.ask(ask).await;
            return said.and_then(|answer| match id_of(&answer) {
                Some(id) => Said::Yes(Taken::As(id)),
                None => self.wrong(format!("{} is answered {}", task.name, answer.text())),
            });
        }
        let began = Instant::now();
        let wait = format!("wait={}", WAIT.as_secs());
        let said = self.ask(ask.with("prefer", wait)).await;
        let answer = match said {
            Said::Yes(answer) => answer,
            other => return other.unanswered(),
        };
        if let Some(id) = id_of(&answer) {
            if early(began) {
                self.told.violation(format!(
                    "Prefer: wait for {} ended early: {}",
                    task.name,
                    answer.text()
                ));
            }
            self.must_be_open(id).await;
            return Said::Yes(Taken::As(id));
        }
        match located(&answer) {
            Some(id) if answer.json() == Some(task.payload()) => Said::Yes(Taken::Done(id)),
            _ => self.wrong(format!(
                "Prefer: wait for {} is answered {}",
                task.name,
                answer.text()
            )),
        }
    }
}

/// The id in an answer 202.
fn id_of(answer: &Answer) -> Option<Uuid> {
    if answer.status != 202 {
        return None;
    }
    answer.json()?.get("task_id")?.as_str()?.parse().ok()
}

/// The id in the place of a result that was waited for.
fn located(answer: &Answer) -> Option<Uuid> {
    let place = answer.header("content-location")?;
    let place = place.strip_prefix("/v1/task/")?.strip_suffix("/result")?;
    (answer.status == 200).then(|| place.parse().ok())?
}
