//! The body of a call as it comes in: bounded in the memory that it takes until its messages are read, and in the
//! time that a message may take to arrive.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf as _, Bytes};
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use crate::door::memory::Held;
use crate::door::refusal::{Kind, Refusal};

/// Bytes before a message: whether it is packed, and how long it is.
const PREFIX_BYTES: usize = 5;

/// A call's body.
pub(super) struct Incoming {
    body: Body,
    held: Held,
    messages: Messages,
    patience: Duration,
    /// Whether the call is one message: then it is over once the body is.
    single: bool,
    /// Bytes of a message, and of all that comes of a single one.
    most: usize,
    came: usize,
    /// Until when the message that has begun has to be whole.
    until: Option<Pin<Box<Sleep>>>,
}

/// Where in the messages a body is.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; PREFIX_BYTES],
    prefix_seen: usize,
    /// Bytes of the message that are still to come.
    missing: usize,
    /// Bytes of it that have come, its prefix included.
    seen: usize,
}

impl Messages {
    /// Takes in what has come, and says whether a message ended in it.
    fn take(&mut self, mut data: &[u8]) -> bool {
        let mut ended = false;
        while data.has_remaining() {
            if self.prefix_seen < PREFIX_BYTES {
                let (slot, byte) = (self.prefix.get_mut(self.prefix_seen), data.get_u8());
                if let Some(slot) = slot {
                    *slot = byte;
                }
                self.prefix_seen += 1;
                self.seen += 1;
                let [_, length @ ..] = self.prefix;
                self.missing = u32::from_be_bytes(length) as usize;
            } else {
                let some = data.len().min(self.missing);
                data.advance(some);
                self.missing -= some;
                self.seen += some;
            }
            if self.prefix_seen == PREFIX_BYTES && self.missing == 0 {
                *self = Self::default();
                ended = true;
            }
        }
        ended
    }
}

impl Incoming {
    pub(super) fn new(
        body: Body,
        held: Held,
        patience: Duration,
        single: bool,
        most: usize,
    ) -> Self {
        Self {
            body,
            held,
            single,
            most,
            came: 0,
            messages: Messages::default(),
            patience,
            // A call that never sends its message is one that never ends it.
            until: Some(Box::pin(sleep(patience))),
        }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        // Whoever asks for more has taken the messages that were whole; of a single one, only to wait for the end.
        if !this.single {
            this.held.shrink_to(this.messages.seen);
        }
        let frame = match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => {
                return Poll::Ready(Some(Err(Status::cancelled(error.to_string()))));
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                let late = this
                    .until
                    .as_mut()
                    .is_some_and(|until| until.as_mut().poll(context).is_ready());
                if !late {
                    return Poll::Pending;
                }
                this.until = None;
                let why = format!("the message did not arrive within {:?}", this.patience);
                let refusal = Refusal::new(Kind::BadRequest, why);
                return Poll::Ready(Some(Err(refusal.into())));
            }
        };
        if let Some(data) = frame.data_ref() {
            if let Err(refusal) = this.held.grow(data.len()) {
                return Poll::Ready(Some(Err(refusal.into())));
            }
            let ended = this.messages.take(data);
            this.came = match this.single {
                true => this.came.saturating_add(data.len()),
                false => this.messages.seen,
            };
            if this.came > this.most {
                let why = "more came than a message may hold";
                let refusal = Refusal::new(Kind::TooLarge, why);
                return Poll::Ready(Some(Err(refusal.into())));
            }
            if this.single {
                // The whole of it has its time, the end included.
            } else if this.messages.seen == 0 {
                this.until = None;
            } else if ended || this.until.is_none() {
                this.until = Some(Box::pin(sleep(this.patience)));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let mut text = Vec::new();
        for length in [0_u32, 3, 300] {
            text.push(0);
            text.extend_from_slice(&length.to_be_bytes());
            text.extend(std::iter::repeat_n(7, length as usize));
        }
        for size in 1..text.len() {
            let mut messages = Messages::default();
            let mut ends = 0;
            for piece in text.chunks(size) {
                ends += usize::from(messages.take(piece));
            }
            assert_eq!(messages.seen, 0, "pieces of {size}: it ends at an end");
            assert!((1..=3).contains(&ends));
        }
        let mut messages = Messages::default();
        assert!(!messages.take(&[0, 0, 0, 0, 9, 1, 2]));
        assert_eq!((messages.seen, messages.missing), (7, 7));
    }
}
