//! A stream of tasks, one in each line (NDJSON): handed over as the lines come, and answered by a line for each.
//!
//! What has come and is not handed over counts among the memory for bodies; a line has the bounds of a body with one
//! task, in bytes and in time.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use millrace_store::api_keys::Scope;

use crate::door::body;
use crate::door::following::SLOWEST_READER;
use crate::door::gate::Caller;
use crate::door::intake::TraceContext;
use crate::door::memory::Held;
use crate::door::refusal::{Kind, Refusal};
use crate::door::state::Door;

use super::many::{hand_over, line, parse};
use super::request::drain;

/// Lines of a stream that are handed over together at most.
const LINES_AT_ONCE: usize = 500;
/// Answers that may wait for a client that reads slowly.
const ANSWERS_WAITING: usize = 1;

/// Hands over what comes as `sent`, and answers as it goes on. `counted` is kept until the stream has ended.
pub(super) fn answered(
    door: Arc<Door>,
    caller: Caller,
    trace: Arc<TraceContext>,
    sent: Body,
    counted: impl Send + 'static,
) -> Body {
    let (answers, receiver) = mpsc::channel::<Bytes>(ANSWERS_WAITING);
    let lines = Lines {
        held: door.bodies.nothing(),
        pending: BytesMut::new(),
        door,
        caller,
        trace,
        answers,
    };
    tokio::spawn(async move {
        lines.run(sent).await;
        drop(counted);
    });
    Body::from_stream(stream::unfold(receiver, async |mut receiver| {
        let line = receiver.recv().await?;
        Some((Ok::<_, Infallible>(line), receiver))
    }))
}

/// A stream of lines on its way in.
struct Lines {
    door: Arc<Door>,
    caller: Caller,
    trace: Arc<TraceContext>,
    /// What has arrived and is not handed over yet, and the memory that it takes.
    pending: BytesMut,
    held: Held,
    answers: mpsc::Sender<Bytes>,
}

/// The stream ends before its lines do: nobody reads the answers, or the last one said why.
struct Ended;

impl Lines {
    async fn run(mut self, mut sent: Body) {
        if let Err(refusal) = self.read(&mut sent).await
            && self.answer(line(Err(refusal))).await.is_ok()
        {
            drain(sent).await;
        }
    }

    /// Reads to the end of the stream, or until it makes no sense to go on. An error is the last answer.
    async fn read(&mut self, sent: &mut Body) -> Result<(), Refusal> {
        let patience = self.door.bounds.body_patience;
        let mut line_began = Instant::now();
        loop {
            // A line that never ends is no better than one that never comes.
            let until = match self.pending.is_empty() {
                true => Instant::now() + patience,
                false => line_began + patience,
            };
            let frame = tokio::select! {
                frame = timeout_at(until, sent.frame()) => frame,
                () = self.door.closing.cancelled() => return Err(Refusal::closes()),
            };
            let frame = match frame {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => break,
                Ok(Some(Err(_))) => return Ok(()),
                Err(_) => {
                    let why = format!(
                        "no whole line came for {} s: the stream ends here",
                        patience.as_secs()
                    );
                    return Err(Refusal::new(Kind::BadRequest, why));
                }
            };
            if let Ok(data) = frame.into_data() {
                self.held.grow(data.len())?;
                if self.pending.is_empty() || data.contains(&b'\n') {
                    line_began = Instant::now();
                }
                self.pending.extend_from_slice(&data);
            }
            if self.hand_over_whole_lines().await?.is_err() {
                return Ok(());
            }
        }
        // The last line needs no end.
        if !self.pending.is_empty() {
            self.pending.extend_from_slice(b"\n");
            let _ = self.hand_over_whole_lines().await?;
        }
        Ok(())
    }

    async fn hand_over_whole_lines(&mut self) -> Result<Result<(), Ended>, Refusal> {
        let mut handed_over = false;
        while let Some(end) = memchr::memrchr(b'\n', &self.pending) {
            handed_over = true;
            let whole = self.pending.split_to(end + 1).freeze();
            for some in lines_of(&whole).chunks(LINES_AT_ONCE) {
                self.door.gate.still(&self.caller, Scope::Submit)?;
                let answers = self.hand_over(some).await;
                if self.answer(answers).await.is_err() {
                    return Ok(Err(Ended));
                }
            }
        }
        if self.pending.len() > self.door.bounds.body_bytes {
            return Err(body::too_large(self.door.bounds.body_bytes));
        }
        // What longer lines took is not kept for the next.
        if handed_over {
            self.pending = BytesMut::from(&self.pending[..]);
        }
        self.held.shrink_to(self.pending.len());
        Ok(Ok(()))
    }

    async fn hand_over(&self, lines: &[&[u8]]) -> Bytes {
        let (some, why) = self.caller.spend_some(lines.len());
        let texts = lines.iter().take(some).copied();
        let parsed = parse(&self.door, &self.caller, &self.trace, texts);
        // The stream holds the memory of its lines itself.
        let done = hand_over(&self.door, parsed, self.door.bodies.nothing()).await;
        let mut done = done.unwrap_or_else(|refusal| vec![Err(refusal); some]);
        if let Some(why) = why {
            done.resize_with(lines.len(), || Err(why.clone()));
        }
        let mut text = Vec::with_capacity(done.len() * 80);
        for answer in done {
            text.extend_from_slice(&line(answer));
        }
        text.into()
    }

    async fn answer(&self, text: Bytes) -> Result<(), Ended> {
        match timeout(SLOWEST_READER, self.answers.send(text)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Ended),
        }
    }
}

/// The lines of a text that hold anything.
fn lines_of(text: &[u8]) -> Vec<&[u8]> {
    text.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .collect()
}
