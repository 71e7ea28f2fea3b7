//! Readers of answers: what is large, and what is a stream, is written as fast as it is read; who reads nothing for
//! a while loses the connection, and gives back what was held for them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::following::SLOWEST_READER;
use super::memory::Held;

/// Bytes of one piece: so much may be between a body and its reader without being counted.
const PIECE_BYTES: usize = 16 * 1024;
/// An answer beyond so many bytes is large.
const LARGE_BYTES: u64 = 64 * 1024;
/// How often readers are looked after.
const LOOK: Duration = Duration::from_secs(5);

/// Marks an answer whose reader is looked after.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    _held: Option<Arc<Held>>,
}

impl Watched {
    /// A stream: it holds nothing in advance.
    pub(crate) const STREAM: Self = Self { _held: None };

    /// An answer that takes memory until it was read.
    pub(crate) fn holding(held: Held) -> Self {
        Self {
            _held: Some(Arc::new(held)),
        }
    }
}

/// Looks after the reader of an answer that is marked; `cut` ends its connection.
pub(crate) fn look_after(mut response: Response<Body>, cut: &CancellationToken) -> Response<Body> {
    let marked = response.extensions_mut().remove::<Watched>();
    // So is who reads any other answer that does not fit into what a connection holds.
    let is_large = response.body().size_hint().lower() > LARGE_BYTES;
    let Some(watched) = marked.or(is_large.then_some(Watched::STREAM)) else {
        return response;
    };
    let began = Instant::now();
    let taken = Arc::new(AtomicU64::new(IDLE));
    let gone = CancellationToken::new();
    tokio::spawn(look(began, taken.clone(), gone.clone(), cut.clone()));
    response.map(|body| {
        Body::new(Read {
            body,
            rest: Bytes::new(),
            began,
            handed: taken,
            _gone: gone.drop_guard(),
            _watched: watched,
        })
    })
}

/// Nothing waits for the reader.
const IDLE: u64 = u64::MAX;

/// Cuts the connection once a piece has waited for its reader for too long.
async fn look(
    began: Instant,
    handed: Arc<AtomicU64>,
    gone: CancellationToken,
    cut: CancellationToken,
) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = gone.cancelled() => return,
            () = cut.cancelled() => return,
            _ = looks.tick() => {}
        }
        let at = handed.load(Ordering::Relaxed);
        if at != IDLE && began.elapsed() > Duration::from_millis(at) + SLOWEST_READER {
            tracing::debug!("a reader took nothing for {} s", SLOWEST_READER.as_secs());
            cut.cancel();
            return;
        }
    }
}

/// A body in pieces. Whoever writes it asks for the next piece once the reader has room for it.
struct Read {
    body: Body,
    rest: Bytes,
    began: Instant,
    /// When the last piece was handed out, in ms since the beginning.
    handed: Arc<AtomicU64>,
    _gone: DropGuard,
    _watched: Watched,
}

impl http_body::Body for Read {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        this.handed.store(IDLE, Ordering::Relaxed);
        if this.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(data) => this.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
        let now = u64::try_from(this.began.elapsed().as_millis()).unwrap_or(IDLE);
        this.handed.store(now, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
