//! `millrace.v1.Tasks`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::{Request, Response, Status, Streaming};

use millrace_schemas::TaskId;
use millrace_store::api_keys::Scope;

use crate::door::following::{Following, MAY_EVERY, Next};
use crate::door::gate::{Caller, Stay};
use crate::door::http::{api_key, trace};
use crate::door::intake::TraceContext;
use crate::door::lookup::Standing;
use crate::door::memory::Held;
use crate::door::readers::Watched;
use crate::door::refusal::{Kind, Refusal};
use crate::door::state::Door;

use super::{convert, refusal};
use crate::v1::submit_stream_response::Answer;
use crate::v1::tasks_server::Tasks;
use crate::v1::{
    CancelRequest, GetRequest, SubmitRequest, SubmitResponse, SubmitStreamResponse, TaskState,
    WaitRequest, WatchRequest,
};

/// Longest wait in one call.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Tasks of a stream that are handed over together at most.
const TASKS_AT_ONCE: usize = 500;
/// Such groups on their way at a time.
const GROUPS_AT_ONCE: usize = 4;

/// The service of one front door.
pub(crate) struct Service {
    door: Arc<Door>,
}

impl Service {
    pub(super) fn new(door: Arc<Door>) -> Self {
        Self { door }
    }

    /// Who calls, if they may do this.
    fn caller(&self, metadata: &MetadataMap, scope: Scope) -> Result<(Caller, Stay), Refusal> {
        let headers = headers(metadata);
        let caller = self.door.gate.admit(api_key(&headers)?)?;
        caller.needs(scope)?;
        let stay = caller.stay()?;
        Ok((caller, stay))
    }

    /// How a task stands, and the memory of its result until it was read.
    async fn answer(&self, id: TaskId, standing: &Standing) -> Result<Response<TaskState>, Status> {
        let state = convert::state(&self.door, id, standing).await?;
        let held = self.door.bodies.hold(state.encoded_len())?;
        let mut response = Response::new(state);
        response.extensions_mut().insert(Watched::holding(held));
        Ok(response)
    }
}

/// The stream ends before its tasks have.
fn over() -> Refusal {
    Refusal::new(
        Kind::Unavailable,
        "the stream ends here: the front door closes, the key was revoked, or nobody read: watch again",
    )
    .after(Duration::from_secs(1))
}

/// The metadata that is text, as headers of HTTP.
fn headers(metadata: &MetadataMap) -> axum::http::HeaderMap {
    metadata
        .iter()
        .filter_map(|entry| match entry {
            KeyAndValueRef::Ascii(name, value) => Some((
                name.as_str().parse().ok()?,
                axum::http::HeaderValue::from_bytes(value.as_bytes()).ok()?,
            )),
            KeyAndValueRef::Binary(..) => None,
        })
        .collect()
}

fn id(text: &str) -> Result<TaskId, Refusal> {
    text.parse().map_err(|error| {
        Refusal::new(Kind::NotFound, format!("no task has this id: {error}")).at("task_id")
    })
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Tasks for Service {
    async fn submit(
        &self,
        request: Request<SubmitRequest>,
    ) -> Result<Response<SubmitResponse>, Status> {
        let (caller, _stay) = self.caller(request.metadata(), Scope::Submit)?;
        let trace = trace(&headers(request.metadata()));
        let left = convert::left(request.metadata());
        let request = request.into_inner();
        let held = self.door.bodies.hold(request.encoded_len())?;
        let raw = convert::raw(request, left)?;
        let submission = raw.into_submission(caller.tenant(), Door::now(), trace)?;
        let (task_id, _) = self.door.submit(&caller, submission, held, None).await?;
        Ok(Response::new(SubmitResponse {
            task_id: task_id.to_string(),
        }))
    }

    type SubmitStreamStream = Answers<SubmitStreamResponse>;

    async fn submit_stream(
        &self,
        request: Request<Streaming<SubmitRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        let (caller, stay) = self.caller(request.metadata(), Scope::Submit)?;
        let trace = trace(&headers(request.metadata()));
        let left = convert::left(request.metadata());
        let place = self.door.stream_place()?;
        let door = self.door.clone();
        let bodies = door.bodies.clone();
        let groups = until_closing(request.into_inner(), door.closing.clone())
            .map(move |request| {
                let request = request?;
                // A group that has gathered is memory that is held.
                let held = bodies.hold(request.encoded_len());
                Ok((request, held))
            })
            .ready_chunks(TASKS_AT_ONCE);
        let answers = groups
            .map(move |group| hand_over(door.clone(), caller.clone(), trace.clone(), left, group))
            .buffered(GROUPS_AT_ONCE)
            .flat_map(stream::iter)
            .enumerate()
            .map(move |(index, answer)| {
                // The stream counts among its tenant's requests until it has ended.
                let _counted = (&stay, &place);
                answer.map(|answer| SubmitStreamResponse {
                    index: index as u64,
                    answer: Some(answer),
                })
            });
        let mut response = Response::new(Box::pin(answers) as Self::SubmitStreamStream);
        response.extensions_mut().insert(Watched::STREAM);
        Ok(response)
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<TaskState>, Status> {
        let (caller, _stay) = self.caller(request.metadata(), Scope::Read)?;
        let id = id(&request.into_inner().task_id)?;
        let standing = self.door.settled(&caller, id, None).await?;
        self.answer(id, &standing).await
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<TaskState>, Status> {
        let (caller, _stay) = self.caller(request.metadata(), Scope::Read)?;
        let left = convert::left(request.metadata());
        let request = request.into_inner();
        let id = id(&request.task_id)?;
        let wait = request
            .timeout
            .and_then(|timeout| timeout.try_into().ok())
            .unwrap_or(LONGEST_WAIT)
            .min(LONGEST_WAIT)
            // The answer has to be there before the call's own time is over.
            .min(left.map_or(LONGEST_WAIT, |left| left.mul_f64(0.9)));
        let standing = self.door.settled(&caller, id, Some(wait)).await?;
        self.answer(id, &standing).await
    }

    type WatchStream = Answers<TaskState>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        // The stream counts among its tenant's requests by itself.
        let (caller, _) = self.caller(request.metadata(), Scope::Read)?;
        let texts = request.into_inner().task_ids;
        if texts.is_empty() {
            return Err(Refusal::bad("task_ids", "expected ids of tasks").into());
        }
        let mut ids = texts
            .iter()
            .map(|text| {
                text.parse::<TaskId>()
                    .map_err(|error| Refusal::bad("task_ids", format!("{text:?}: {error}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        ids.sort_unstable();
        ids.dedup();
        let following = Following::begin(&self.door, &caller, ids, None)?;
        let begun = (following, self.door.clone(), None);
        let states = stream::unfold(Some(begun), async |watching| {
            // One message at a time: what the last one held is given back when the next is asked for.
            let (mut following, door, _) = watching?;
            let told = loop {
                match following.next(MAY_EVERY).await {
                    Next::Told(told) => break told,
                    Next::Quiet => {}
                    Next::Done => return None,
                    Next::Over => return Some((Err(over().into()), None)),
                }
            };
            let state = match &told.seen {
                Ok(standing) => match convert::state(&door, told.id, standing).await {
                    Ok(state) => door
                        .bodies
                        .hold(state.encoded_len())
                        .map(|held| (state, Some(held))),
                    Err(refusal) => Err(refusal),
                },
                // The others are followed on.
                Err(refusal) => Ok((convert::refused(told.id, refusal.clone()), None)),
            };
            Some(match state {
                Ok((state, held)) => (Ok(state), Some((following, door, held))),
                Err(refusal) => (Err(refusal.into()), None),
            })
        });
        let mut response = Response::new(Box::pin(states) as Self::WatchStream);
        response.extensions_mut().insert(Watched::STREAM);
        Ok(response)
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<TaskState>, Status> {
        let (caller, _stay) = self.caller(request.metadata(), Scope::Cancel)?;
        let id = id(&request.into_inner().task_id)?;
        let standing = self.door.cancel(&caller, id).await?;
        self.answer(id, &standing).await
    }
}

/// What comes before the front door closes, then a word of that.
fn until_closing<T: Send + 'static>(
    requests: Streaming<T>,
    closing: CancellationToken,
) -> impl Stream<Item = Result<T, Status>> + Send {
    stream::unfold(Some((requests, closing)), async |open| {
        let (mut requests, closing) = open?;
        tokio::select! {
            biased;
            () = closing.cancelled() => Some((Err(Refusal::closes().into()), None)),
            next = requests.next() => next.map(|next| (next, Some((requests, closing)))),
        }
    })
}

/// A task of a stream, and the memory that it takes if there is any.
type Arrived = (SubmitRequest, Result<Held, Refusal>);

/// Hands over a group of a stream; an answer for each, in order.
async fn hand_over(
    door: Arc<Door>,
    caller: Caller,
    trace: Arc<TraceContext>,
    left: Option<Duration>,
    group: Vec<Result<Arrived, Status>>,
) -> Vec<Result<Answer, Status>> {
    let now = Door::now();
    let mut answers = Vec::with_capacity(group.len());
    let mut good = Vec::new();
    let mut places = Vec::new();
    let mut held = door.bodies.nothing();
    let refused = |why: Refusal| Ok(Answer::Problem(why.into()));
    if let Err(refusal) = door.gate.still(&caller, Scope::Submit) {
        return vec![Err(refusal.into())];
    }
    for (place, request) in group.into_iter().enumerate() {
        let (request, room) = match request {
            Ok(request) => request,
            // The stream broke off: nothing comes after this.
            Err(status) => {
                let ours = refusal::of_library(status.code());
                answers.push(Err(ours.map_or(status, Status::from)));
                break;
            }
        };
        let submission = room
            .map(|room| held.merge(room))
            .and_then(|()| convert::raw(request, left))
            .and_then(|raw| raw.into_submission(caller.tenant(), now, trace.clone()));
        match submission {
            Ok(submission) => {
                good.push(submission);
                places.push(place);
                answers.push(refused(Refusal::kafka_is_behind()));
            }
            Err(refusal) => answers.push(refused(refusal)),
        }
    }
    let (some, why) = caller.spend_some(good.len());
    good.truncate(some);
    let sent = match good.is_empty() {
        true => Ok(Vec::new()),
        false => door.intake.submit_all(good, held).await,
    };
    let mut sent = sent.unwrap_or_else(|refusal| vec![Err(refusal); some]);
    if let Some(why) = why {
        sent.resize_with(places.len(), || Err(why.clone()));
    }
    for (place, answer) in places.into_iter().zip(sent) {
        if let Some(slot) = answers.get_mut(place) {
            *slot = match answer {
                Ok(id) => Ok(Answer::TaskId(id.to_string())),
                Err(refusal) => refused(refusal),
            };
        }
    }
    answers
}
