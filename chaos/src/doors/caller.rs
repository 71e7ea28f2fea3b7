//! One caller: hands a task over, or some, waits for their results, goes on with the next ones.
//!
//! How it does so is drawn anew each time, so that a kill meets every kind of request and every kind of wait.

use std::time::Duration;

use tokio::join;

use super::client::Client;
use super::hand_over::Taken;
use super::task::Task;
use super::told::{Kind, Told};
use crate::chance::Chance;

/// Tasks handed over at once.
const MANY: usize = 8;
/// So many tasks in a thousand are not to be started at once, but so many milliseconds later.
const DELAYED: (u64, u64, u64) = (350, 1_000, 3_000);
/// So many tasks in a thousand have an idempotency key.
const WITH_KEY: u64 = 600;
/// Of those so many in a thousand are handed over once more.
const AGAIN: u64 = 300;

/// See the module.
pub(super) struct Caller {
    number: usize,
    count: usize,
    chance: Chance,
    client: Client,
}

impl Caller {
    pub(super) fn new(number: usize, client: Client) -> Self {
        Self {
            number,
            count: 0,
            chance: Chance::new(number as u64),
            client,
        }
    }

    /// Calls until it is to hang up; what it has begun by then it ends. What it was told.
    pub(super) async fn call(mut self) -> Told {
        while !self.client.is_over() {
            match self.chance.below(100) {
                0..22 => self.one(Kind::Submit).await,
                22..40 => self.one(Kind::Prefer).await,
                40..58 => self.one(Kind::GrpcSubmit).await,
                58..70 => self.race(Kind::Race).await,
                70..78 => self.race(Kind::RaceOfTwo).await,
                78..89 => self.many(Kind::Array).await,
                _ => self.many(Kind::Lines).await,
            }
        }
        self.client.told
    }

    fn task(&mut self, has_key: bool) -> Task {
        let name = format!("{}-{}", self.number, self.count);
        self.count += 1;
        let (delayed, least, most) = DELAYED;
        let delay = self.chance.in_a_thousand(delayed).then(|| {
            let millis = self.chance.between(least, most);
            Duration::from_millis(millis)
        });
        Task::new(name, has_key, delay)
    }

    fn wait(&mut self) -> Kind {
        let kinds = [Kind::Result, Kind::Events, Kind::GrpcWait, Kind::GrpcWatch];
        self.chance.one_of(&kinds).copied().unwrap_or(Kind::Result)
    }

    async fn one(&mut self, kind: Kind) {
        let has_key = self.chance.in_a_thousand(WITH_KEY);
        let task = self.task(has_key);
        let taken = self.client.hand_over(kind, &task).await;
        if taken.id().is_some() && has_key && self.chance.in_a_thousand(AGAIN) {
            self.client.hand_over(Kind::Again, &task).await;
        }
        if let Taken::As(id) = taken {
            let wait = self.wait();
            self.client.await_results(wait, &[(id, task)]).await;
        }
    }

    /// One key at two front doors at the same time.
    async fn race(&mut self, kind: Kind) {
        let task = self.task(true);
        let other = match kind {
            Kind::RaceOfTwo => task.with_other_payload(),
            _ => task.clone(),
        };
        let mut beside = self.client.beside();
        let (here, there) = join!(
            Box::pin(self.client.hand_over(kind, &task)),
            Box::pin(beside.hand_over(kind, &other)),
        );
        self.client.told.add(beside.told);
        let (id, task) = match (here, there) {
            (Taken::As(one), Taken::As(two)) if one == two && kind == Kind::Race => (one, task),
            (Taken::As(id), Taken::Reused) => (id, task),
            (Taken::Reused, Taken::As(id)) => (id, other),
            // Noted where it happened.
            (Taken::Not, _) | (_, Taken::Not) => return,
            both => {
                let name = &task.name;
                let what = format!("{}: {name} is answered {both:?}", kind.name());
                self.client.told.violation(what);
                return;
            }
        };
        let wait = self.wait();
        self.client.await_results(wait, &[(id, task)]).await;
    }

    async fn many(&mut self, kind: Kind) {
        let tasks: Vec<Task> = (0..MANY)
            .map(|_| {
                let has_key = self.chance.in_a_thousand(WITH_KEY);
                self.task(has_key)
            })
            .collect();
        let accepted = self.client.hand_over_many(kind, tasks).await;
        if accepted.is_empty() {
            return;
        }
        let kinds = [
            Kind::ManyEvents,
            Kind::ManyEvents,
            Kind::GrpcWatch,
            Kind::Result,
        ];
        let wait = self.chance.one_of(&kinds).copied();
        let wait = wait.unwrap_or(Kind::ManyEvents);
        self.client.await_results(wait, &accepted).await;
    }
}
