//! The way in: a task that was understood gets room, a name if it asks for one, and Kafka's acknowledgement.
//!
//! An id is given out only after all in-sync replicas have the event (law 1).

use futures_util::future::join_all;
use millrace_schemas::{TaskEvent, TaskId};
use millrace_store::idempotency::{Named, Sent};
use millrace_telemetry::{DoorMetrics, DoorOutcome};

use crate::delivery::DeliveryFailure;
use crate::wire::Trace;

use super::names::{Claim, Claimed, Names};
use super::pressure::{Pressure, Room};
use super::refusal::{Kind, Refusal};
use super::sender::{Acknowledgement, Sender, Unsent};

/// A task as a caller handed it over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Submission {
    /// The event; its id holds unless the name has another one.
    pub event: TaskEvent,
    /// The caller's name for the request.
    pub name: Option<Box<str>>,
    /// The trace that it belongs to.
    pub trace: TraceContext,
}

/// The trace context of a request, as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TraceContext {
    /// `traceparent`, checked.
    pub traceparent: Option<Box<str>>,
    /// `tracestate`.
    pub tracestate: Option<Box<str>>,
    /// `baggage`.
    pub baggage: Option<Box<str>>,
}

impl TraceContext {
    fn borrowed(&self) -> Trace<'_> {
        Trace {
            traceparent: self.traceparent.as_deref(),
            tracestate: self.tracestate.as_deref(),
            baggage: self.baggage.as_deref(),
        }
    }
}

/// The way in of one front door. Clones are the same.
#[derive(Clone)]
pub(crate) struct Intake {
    sender: Sender,
    names: Names,
    pressure: Pressure,
    metrics: DoorMetrics,
}

/// A task on its way to Kafka.
struct Sending {
    task_id: TaskId,
    acknowledgement: Acknowledgement,
    claimed: Option<Claimed>,
}

impl Intake {
    pub(crate) fn new(
        sender: Sender,
        names: Names,
        pressure: Pressure,
        metrics: DoorMetrics,
    ) -> Self {
        Self {
            sender,
            names,
            pressure,
            metrics,
        }
    }

    /// Hands over one task and returns its id once it is durable. Runs to its end even if whoever asked goes
    /// away.
    ///
    /// # Errors
    /// The task was not accepted, or nobody knows.
    pub(crate) async fn submit(&self, submission: Submission) -> Result<TaskId, Refusal> {
        let mut ids = self.submit_all(vec![submission]).await?;
        ids.pop().unwrap_or_else(|| Err(Refusal::kafka_is_behind()))
    }

    /// Hands over many tasks, and answers for each in their order.
    ///
    /// # Errors
    /// Without room for any of them, nothing was sent.
    pub(crate) async fn submit_all(
        &self,
        submissions: Vec<Submission>,
    ) -> Result<Vec<Result<TaskId, Refusal>>, Refusal> {
        let room = self
            .pressure
            .enter(submissions.len())
            .ok_or_else(Refusal::kafka_is_behind)?;
        let this = self.clone();
        // A caller that hangs up in the middle must not leave a name behind that nobody settles.
        let done = tokio::spawn(async move { this.run(submissions, room).await });
        done.await.map_err(|error| {
            tracing::error!(%error, "a submit failed");
            Refusal::new(Kind::Internal, "the front door failed")
        })
    }

    async fn run(
        &self,
        submissions: Vec<Submission>,
        mut room: Room,
    ) -> Vec<Result<TaskId, Refusal>> {
        let mut sent = Vec::with_capacity(submissions.len());
        for submission in self.named(submissions).await {
            sent.push(match submission {
                Ok(Start::Send(submission, claimed)) => {
                    self.send(&submission, claimed).await.map(Begun::Sending)
                }
                Ok(Start::Accepted(id)) => Ok(Begun::Accepted(id)),
                Err(refusal) => Err(refusal),
            });
        }
        let ends = join_all(sent.into_iter().map(finish)).await;
        if ends.iter().any(|end| end.word == Some(Word::Bad)) {
            room.failed();
        } else if ends.iter().any(|end| end.word == Some(Word::Good)) {
            room.acknowledged();
        }
        for outcome in [
            DoorOutcome::Accepted,
            DoorOutcome::Repeated,
            DoorOutcome::Refused,
            DoorOutcome::Unknown,
        ] {
            let count = ends.iter().filter(|end| end.outcome() == outcome).count();
            self.metrics.tasks(outcome, count as u64);
        }
        ends.into_iter().map(|end| end.answer).collect()
    }

    /// Takes the names of those that have one, all at the same time.
    async fn named(&self, submissions: Vec<Submission>) -> Vec<Result<Start, Refusal>> {
        if submissions
            .iter()
            .all(|submission| submission.name.is_none())
        {
            return submissions
                .into_iter()
                .map(|submission| Ok(Start::Send(Box::new(submission), None)))
                .collect();
        }
        let claims = submissions
            .into_iter()
            .map(|submission| self.start(submission));
        join_all(claims).await
    }

    async fn start(&self, mut submission: Submission) -> Result<Start, Refusal> {
        let Some(key) = submission.name.clone() else {
            return Ok(Start::Send(Box::new(submission), None));
        };
        let named = Named {
            tenant: submission.event.tenant.as_str().into(),
            key,
            task_id: submission.event.task_id,
            fingerprint: submission.event.as_ref().fingerprint(),
        };
        Ok(match self.names.claim(named).await? {
            Claim::Send(claimed) => {
                submission.event.task_id = claimed.task_id();
                Start::Send(Box::new(submission), Some(claimed))
            }
            Claim::Accepted(id) => Start::Accepted(id),
        })
    }

    async fn send(
        &self,
        submission: &Submission,
        claimed: Option<Claimed>,
    ) -> Result<Sending, Refusal> {
        let event = submission.event.as_ref();
        match self.sender.send(&event, submission.trace.borrowed()) {
            Ok(acknowledgement) => Ok(Sending {
                task_id: event.task_id,
                acknowledgement,
                claimed,
            }),
            Err(unsent) => {
                if let Some(claimed) = claimed {
                    claimed.settle(Sent::No).await;
                }
                Err(match unsent {
                    Unsent::Full => Refusal::kafka_is_behind(),
                    Unsent::Event(error) => error.into(),
                })
            }
        }
    }
}

enum Start {
    Send(Box<Submission>, Option<Claimed>),
    Accepted(TaskId),
}

enum Begun {
    Sending(Sending),
    Accepted(TaskId),
}

/// What Kafka said of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Good,
    /// It failed, or came too late: for a reason that is not the task's.
    Bad,
}

/// The end of one hand-over.
struct End {
    answer: Result<TaskId, Refusal>,
    word: Option<Word>,
}

impl End {
    fn outcome(&self) -> DoorOutcome {
        match (&self.answer, self.word) {
            (Ok(_), Some(_)) => DoorOutcome::Accepted,
            (Ok(_), None) => DoorOutcome::Repeated,
            (Err(refusal), _) if refusal.kind == Kind::OutcomeUnknown => DoorOutcome::Unknown,
            (Err(_), _) => DoorOutcome::Refused,
        }
    }
}

async fn finish(begun: Result<Begun, Refusal>) -> End {
    let sending = match begun {
        Ok(Begun::Sending(sending)) => sending,
        Ok(Begun::Accepted(id)) => {
            return End {
                answer: Ok(id),
                word: None,
            };
        }
        Err(refusal) => {
            return End {
                answer: Err(refusal),
                word: None,
            };
        }
    };
    let outcome = sending.acknowledgement.wait().await;
    let word = match &outcome {
        Ok(()) => Some(Word::Good),
        Err(DeliveryFailure::Refused(_)) => None,
        Err(_) => Some(Word::Bad),
    };
    if let Some(claimed) = sending.claimed {
        claimed.settle(sent(&outcome)).await;
    }
    End {
        answer: outcome.map(|()| sending.task_id).map_err(Refusal::from),
        word,
    }
}

fn sent(outcome: &Result<(), DeliveryFailure>) -> Sent {
    match outcome {
        Ok(()) => Sent::Accepted,
        Err(DeliveryFailure::Unknown(_)) => Sent::Unknown,
        Err(_) => Sent::No,
    }
}
