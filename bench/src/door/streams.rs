//! As many submits as can be by gRPC: each connection holds one stream, with some tasks on their way at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::stream;
use millrace_producer::v1::SubmitRequest;
use millrace_producer::v1::submit_stream_response::Answer;
use millrace_producer::v1::tasks_client::TasksClient;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

const WARM_UP: Duration = Duration::from_secs(3);
/// Tasks of a stream that wait for their answers.
const ON_THEIR_WAY: usize = 16;

/// Sends until the time is over; returns tasks accepted in a second.
///
/// # Errors
/// When a task is refused, or a stream ends early.
pub async fn run(
    address: SocketAddr,
    tasks: Arc<[SubmitRequest]>,
    connections: usize,
    seconds: u32,
) -> anyhow::Result<f64> {
    let from = Instant::now() + WARM_UP;
    let until = from + Duration::from_secs(u64::from(seconds));
    let mut streams = JoinSet::new();
    for number in 0..connections {
        streams.spawn(one(address, Arc::clone(&tasks), number, from, until));
    }
    let mut accepted = 0;
    while let Some(counted) = streams.join_next().await {
        accepted += counted??;
    }
    Ok(accepted as f64 / f64::from(seconds))
}

/// One stream: a task goes out for each answer that comes in.
async fn one(
    address: SocketAddr,
    tasks: Arc<[SubmitRequest]>,
    number: usize,
    from: Instant,
    until: Instant,
) -> anyhow::Result<usize> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let mut client = TasksClient::new(endpoint.connect().await?);
    let (sender, receiver) = mpsc::channel(ON_THEIR_WAY);
    let outgoing = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|task| (task, receiver))
    });
    let mut turn = number;
    let mut next = || {
        turn += 1;
        tasks.get(turn % tasks.len()).cloned().context("no tasks")
    };
    for _ in 0..ON_THEIR_WAY {
        sender.send(next()?).await?;
    }
    let mut answers = client.submit_stream(outgoing).await?.into_inner();
    let mut counted = 0;
    let mut sender = Some(sender);
    while let Some(answer) = answers.message().await? {
        match answer.answer {
            Some(Answer::TaskId(_)) => {}
            Some(Answer::Problem(problem)) => bail!("refused: {} {}", problem.kind, problem.detail),
            None => bail!("an empty answer"),
        }
        let now = Instant::now();
        counted += usize::from(now >= from && now < until);
        match &sender {
            Some(open) if now < until => open.send(next()?).await?,
            _ => sender = None,
        }
    }
    Ok(counted)
}

/// A task as this service takes it.
#[must_use]
pub fn request(task_type: &str, key: &str, payload: Bytes) -> SubmitRequest {
    SubmitRequest {
        r#type: task_type.to_owned(),
        key: key.to_owned(),
        payload: payload.into(),
        ..SubmitRequest::default()
    }
}
