//! The way in: a task that was understood gets room, a name if it asks for one, and Kafka's acknowledgement.
//!
//! An id is given out only after all in-sync replicas have the event (law 1).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use millrace_schemas::{TaskEvent, TaskId};
use millrace_store::idempotency::{Named, Sent};
use millrace_telemetry::{DoorMetrics, DoorOutcome};

use crate::delivery::DeliveryFailure;
use crate::wire::Trace;

use super::accepted::Accepted;
use super::memory::Held;
use super::names::{Claim, Claimed, Names};
use super::pressure::{Pressure, Room};
use super::refusal::{Kind, Refusal};
use super::sender::{Acknowledgement, Sender, Unsent};

/// An id is sent at most so long after it was made, else a new one is.
const FRESH: Duration = Duration::from_secs(1);

/// A task as a caller handed it over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Submission {
    /// The event; its id holds unless the name has another one.
    pub event: TaskEvent,
    /// The caller's name for the request.
    pub name: Option<Box<str>>,
    /// The trace that it belongs to.
    pub trace: Arc<TraceContext>,
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
    accepted: Arc<Accepted>,
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
        accepted: Arc<Accepted>,
        metrics: DoorMetrics,
    ) -> Self {
        Self {
            sender,
            names,
            pressure,
            accepted,
            metrics,
        }
    }

    /// Hands over one task and returns its id once it is durable. Runs to its end even if whoever asked goes
    /// away, and holds the body's memory until then.
    ///
    /// # Errors
    /// The task was not accepted, or nobody knows.
    pub(crate) async fn submit(
        &self,
        submission: Submission,
        held: Held,
    ) -> Result<TaskId, Refusal> {
        let mut ids = self.submit_all(vec![submission], held).await?;
        ids.pop().unwrap_or_else(|| Err(Refusal::kafka_is_behind()))
    }

    /// Hands over many tasks, and answers for each in their order.
    ///
    /// # Errors
    /// Kafka takes no more at present: nothing was sent.
    pub(crate) async fn submit_all(
        &self,
        submissions: Vec<Submission>,
        held: Held,
    ) -> Result<Vec<Result<TaskId, Refusal>>, Refusal> {
        let any_named = submissions.iter().any(|one| one.name.is_some());
        // A name is asked for first: how long the database takes says nothing of Kafka, and must not fill the room of
        // those that have none.
        let room = if any_named {
            if self.pressure.is_full() {
                return Err(Refusal::kafka_is_behind());
            }
            None
        } else {
            let room = self.pressure.enter(submissions.len());
            Some(room.ok_or_else(Refusal::kafka_is_behind)?)
        };
        let this = self.clone();
        // A caller that hangs up in the middle must not leave a name behind that nobody settles.
        let done = tokio::spawn(async move {
            let answers = this.run(submissions, room).await;
            drop(held);
            answers
        });
        done.await.map_err(|error| {
            tracing::error!(%error, "a submit failed");
            // It may have happened after the event was sent.
            Refusal::new(Kind::OutcomeUnknown, "the front door failed on the way")
        })
    }

    async fn run(
        &self,
        submissions: Vec<Submission>,
        room: Option<Room>,
    ) -> Vec<Result<TaskId, Refusal>> {
        let starts = self.named(submissions).await;
        let sends = starts
            .iter()
            .filter(|start| matches!(start, Ok(Start::Send(..))))
            .count();
        let mut room = room.or_else(|| self.pressure.enter(sends));
        let begun: Vec<Begun> = starts
            .into_iter()
            .map(|start| match start {
                Ok(Start::Send(submission, claimed)) if room.is_some() => {
                    self.send(*submission, claimed)
                }
                Ok(Start::Send(_, claimed)) => {
                    Begun::Done(End::unsent(claimed, Refusal::kafka_is_behind()))
                }
                Ok(Start::Accepted(id)) => Begun::Done(End::without_word(Ok(id))),
                Err(refusal) => Begun::Done(End::without_word(Err(refusal))),
            })
            .collect();
        let mut ends = join_all(begun.into_iter().map(acknowledged)).await;
        if let Some(room) = &mut room {
            if ends.iter().any(|end| end.word == Some(Word::Bad)) {
                room.failed();
            } else if ends.iter().any(|end| end.word == Some(Word::Good)) {
                room.acknowledged();
            }
        }
        // Kafka has said all that it has to say.
        drop(room);
        let settled = ends.iter_mut().filter_map(|end| end.settle.take());
        join_all(settled.map(|(claimed, sent)| claimed.settle(sent))).await;
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

    fn send(&self, mut submission: Submission, claimed: Option<Claimed>) -> Begun {
        // A task that stays unseen for a while after its birth counts as unknown, so an id is not given to an event
        // that was long on its way here.
        if claimed.is_none() && is_old(submission.event.task_id) {
            submission.event.task_id = TaskId::mint();
        }
        let event = submission.event.as_ref();
        self.accepted.sending(std::iter::once(event.task_id));
        match self.sender.send(&event, submission.trace.borrowed()) {
            Ok(acknowledgement) => Begun::Sending(Sending {
                task_id: event.task_id,
                acknowledgement,
                claimed,
            }),
            Err(unsent) => Begun::Done(End::unsent(
                claimed,
                match unsent {
                    Unsent::Full => Refusal::kafka_is_behind(),
                    Unsent::Event(error) => error.into(),
                },
            )),
        }
    }
}

/// Whether an id was made some time ago.
fn is_old(id: TaskId) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.saturating_sub(Duration::from_millis(id.born_ms())) > FRESH
}

enum Start {
    Send(Box<Submission>, Option<Claimed>),
    Accepted(TaskId),
}

enum Begun {
    Sending(Sending),
    Done(End),
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
    /// The name that is to be told what became of the event.
    settle: Option<(Claimed, Sent)>,
}

impl End {
    /// Kafka was not asked.
    fn without_word(answer: Result<TaskId, Refusal>) -> Self {
        Self {
            answer,
            word: None,
            settle: None,
        }
    }

    fn unsent(claimed: Option<Claimed>, refusal: Refusal) -> Self {
        Self {
            settle: claimed.map(|claimed| (claimed, Sent::No)),
            ..Self::without_word(Err(refusal))
        }
    }

    fn outcome(&self) -> DoorOutcome {
        match (&self.answer, self.word) {
            (Ok(_), Some(_)) => DoorOutcome::Accepted,
            (Ok(_), None) => DoorOutcome::Repeated,
            (Err(refusal), _) if refusal.kind == Kind::OutcomeUnknown => DoorOutcome::Unknown,
            (Err(_), _) => DoorOutcome::Refused,
        }
    }
}

async fn acknowledged(begun: Begun) -> End {
    let sending = match begun {
        Begun::Sending(sending) => sending,
        Begun::Done(end) => return end,
    };
    let outcome = sending.acknowledgement.wait().await;
    let word = match &outcome {
        Ok(()) => Some(Word::Good),
        Err(DeliveryFailure::Refused(_)) => None,
        Err(_) => Some(Word::Bad),
    };
    let sent = sent(&outcome);
    End {
        answer: outcome.map(|()| sending.task_id).map_err(Refusal::from),
        word,
        settle: sending.claimed.map(|claimed| (claimed, sent)),
    }
}

/// What is certain of an event: a client that stops may have sent it before.
fn sent(outcome: &Result<(), DeliveryFailure>) -> Sent {
    match outcome {
        Ok(()) => Sent::Accepted,
        Err(DeliveryFailure::NotSent | DeliveryFailure::Refused(_)) => Sent::No,
        Err(DeliveryFailure::Unknown(_) | DeliveryFailure::Stopped(_)) => Sent::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::types::RDKafkaErrorCode;

    use super::*;

    #[test]
    fn only_what_certainly_was_not_written_frees_its_name() {
        let stopped = DeliveryFailure::from(RDKafkaErrorCode::UnknownTopic);
        assert!(matches!(stopped, DeliveryFailure::Stopped(_)));
        assert_eq!(Refusal::from(stopped).kind, Kind::OutcomeUnknown);
        assert_eq!(sent(&Err(stopped)), Sent::Unknown);
        assert_eq!(sent(&Err(DeliveryFailure::NotSent)), Sent::No);
        assert_eq!(sent(&Ok(())), Sent::Accepted);
    }
}
