//! A panic of a handler is the end of its attempt and of nothing else.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::attempt::AttemptEnd;
use millrace_store::storable;

use super::task_error::ERROR_BYTES;

/// What somebody else's code panicked with.
#[derive(Debug)]
pub(super) struct Panic(String);

impl Panic {
    fn new(payload: &(dyn Any + Send)) -> Self {
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("without a message");
        Self(storable(
            &format!("the handler panicked: {message}"),
            ERROR_BYTES,
        ))
    }
}

impl From<Panic> for AttemptEnd {
    fn from(panic: Panic) -> Self {
        Self::Panicked { error: panic.0 }
    }
}

/// Calls somebody else's code.
///
/// State that a panic leaves half changed is the handler's own: the worker shares none with it.
pub(super) fn call<T>(code: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| Panic::new(&*payload))
}

/// A future of somebody else's. It is dropped as soon as it has ended, and a panic while it is dropped is one
/// of its own.
pub(super) struct Caught<F>(Option<F>);

impl<F> Caught<F> {
    pub(super) const fn new(future: F) -> Self {
        Self(Some(future))
    }
}

impl<F: Future + Unpin> Future for Caught<F> {
    type Output = Result<F::Output, Panic>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = &mut self.0;
        let polled = call(|| match future.as_mut() {
            Some(inner) => {
                let polled = Pin::new(inner).poll(cx);
                if polled.is_ready() {
                    *future = None;
                }
                polled
            }
            // Polled again after its end, which nobody does.
            None => Poll::Pending,
        });
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => {
                // What was half done may panic again while it is dropped; one message is enough.
                let _ = call(|| drop(self.0.take()));
                Poll::Ready(Err(panic))
            }
        }
    }
}
