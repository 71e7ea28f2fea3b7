//! The names of requests (`Idempotency-Key`) at this front door: taken before the event is sent, settled after.
//!
//! The table decides; here two requests of one name that meet at one door are told apart without it, and many
//! names are taken by one statement.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_schemas::{Fingerprint, TaskId};
use millrace_store::idempotency::{self, Hold, Named, Sent, Settled, Taken, Terms};
use millrace_store::{Database, Trouble};
use sqlx::PgConnection;

use super::desk::{Clerk, Desk};
use super::refusal::{Kind, Refusal};

struct Taking(Terms);

impl Clerk for Taking {
    type Question = Named;
    type Answer = Taken;
    const MOST: usize = 1_000;

    async fn answer(
        &mut self,
        connection: &mut PgConnection,
        questions: &[Named],
    ) -> Result<Vec<Taken>, Trouble> {
        idempotency::take(connection, questions, self.0).await
    }
}

struct Settling;

impl Clerk for Settling {
    type Question = Settled;
    type Answer = ();
    const MOST: usize = 1_000;

    async fn answer(
        &mut self,
        connection: &mut PgConnection,
        questions: &[Settled],
    ) -> Result<Vec<()>, Trouble> {
        idempotency::settle(connection, questions).await?;
        Ok(vec![(); questions.len()])
    }
}

type Name = (Box<str>, Box<str>);

/// The names of one front door. Clones share them.
#[derive(Clone)]
pub(crate) struct Names {
    take: Desk<Taking>,
    settle: Desk<Settling>,
    /// Those that a request of this front door is working on.
    here: Arc<Mutex<HashMap<Name, Fingerprint>>>,
}

/// What a request with a name has to do.
pub(crate) enum Claim {
    /// Send the event under this id, then settle.
    Send(Claimed),
    /// It was accepted under this id.
    Accepted(TaskId),
}

/// A name that this request is working on.
pub(crate) struct Claimed {
    hold: Hold,
    here: Here,
}

/// A name that a request of this front door is working on, until it is dropped.
struct Here {
    names: Names,
    name: Name,
}

impl Names {
    /// Opens the desks.
    pub(crate) fn open(database: &Database, terms: Terms) -> Self {
        Self {
            take: Desk::open(database.clone(), Taking(terms)),
            settle: Desk::open(database.clone(), Settling),
            here: Arc::default(),
        }
    }

    /// Takes a name for a request.
    ///
    /// # Errors
    /// The name is another request's, or the database does not answer.
    pub(crate) async fn claim(&self, named: Named) -> Result<Claim, Refusal> {
        let here = self.enter(&named)?;
        match self.take.ask(named).await? {
            Taken::Send(hold) => Ok(Claim::Send(Claimed { hold, here })),
            Taken::Accepted(task_id) => Ok(Claim::Accepted(task_id)),
            Taken::Busy(wait) => Err(in_progress(wait)),
            Taken::OtherContent => Err(reused()),
        }
    }

    fn enter(&self, named: &Named) -> Result<Here, Refusal> {
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (named.tenant.clone(), named.key.clone());
        match here.get(&name) {
            Some(fingerprint) if *fingerprint == named.fingerprint => {
                Err(in_progress(Duration::ZERO))
            }
            Some(_) => Err(reused()),
            None => {
                here.insert(name.clone(), named.fingerprint);
                Ok(Here {
                    names: self.clone(),
                    name,
                })
            }
        }
    }
}

impl Claimed {
    /// The id under which the event is to be sent.
    pub(crate) fn task_id(&self) -> TaskId {
        self.hold.task_id
    }

    /// Says what became of the event. Where the database does not take it, the name stays busy until its lease
    /// ends, and the next request of it sends the event again.
    pub(crate) async fn settle(self, sent: Sent) {
        let (tenant, key) = self.here.name.clone();
        let settled = Settled {
            tenant,
            key,
            hold: self.hold,
            sent,
        };
        if self.here.names.settle.ask(settled).await.is_err() {
            tracing::debug!("an idempotency key stays busy until its lease ends");
        }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let mut here = self
            .names
            .here
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        here.remove(&self.name);
    }
}

fn in_progress(wait: Duration) -> Refusal {
    Refusal::new(
        Kind::IdempotencyKeyInProgress,
        "another request with this key and payload has not been answered yet",
    )
    .at("Idempotency-Key")
    .after(wait.max(Duration::from_secs(1)))
}

fn reused() -> Refusal {
    Refusal::new(
        Kind::IdempotencyKeyReused,
        "this key was used for a request with another type, payload, content type or ordering key",
    )
    .at("Idempotency-Key")
}
