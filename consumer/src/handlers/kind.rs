//! The kinds of handlers behind one face: what the executor does to begin an attempt of a type.
//!
//! A kind takes the payload from the context and answers with an [`AttemptEnd`]; the types of input and output
//! end here. Everything in this file may run a handler's own code, so the executor calls it guarded.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

use millrace_store::Output;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::attempt::AttemptEnd;
use super::batch::Gather;
use super::context::Context;
use super::handler::Handler;
use super::json;
use super::task_error::TaskError;

/// The rest of an attempt.
pub(super) type Rest = Pin<Box<dyn Future<Output = AttemptEnd> + Send>>;

/// How tasks of a type are worked on.
pub(super) enum Kind {
    /// On the async threads.
    Async(Box<dyn Begin>),
    /// On threads that may block.
    Blocking(Arc<dyn Block>),
    /// Many at once, on the async threads.
    Batch(Box<dyn Gather>),
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Async(_) => "Async",
            Self::Blocking(_) => "Blocking",
            Self::Batch(_) => "Batch",
        })
    }
}

/// Begins an attempt; the future does not run until it is polled.
pub(super) trait Begin: Send + Sync {
    fn begin(&self, context: Context) -> Result<Rest, AttemptEnd>;
}

/// Makes a whole attempt on the calling thread.
pub(super) trait Block: Send + Sync {
    fn run(&self, context: Context) -> AttemptEnd;
}

/// A [`Handler`]; shared, since an attempt borrows it and may outlive the call.
pub(super) struct Typed<H>(pub(super) Arc<H>);

impl<H: Handler> Begin for Typed<H> {
    fn begin(&self, context: Context) -> Result<Rest, AttemptEnd> {
        let input = json::input(context.0.payload())?;
        let handler = Arc::clone(&self.0);
        Ok(Box::pin(async move {
            match handler.run(input, context).await {
                Ok(value) => json::output(&value),
                Err(error) => error.into(),
            }
        }))
    }
}

/// The payload of a task, as it came. Its media type is [`Context::content_type`].
#[derive(Clone)]
pub struct Payload(Context);

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.0.payload()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

/// A function of bytes.
pub(super) struct Raw<F>(pub(super) F);

impl<F, Answer, E> Begin for Raw<F>
where
    F: Fn(Payload, Context) -> Answer + Send + Sync,
    Answer: Future<Output = Result<Output, E>> + Send + 'static,
    E: Into<TaskError>,
{
    fn begin(&self, context: Context) -> Result<Rest, AttemptEnd> {
        let answer = (self.0)(Payload(context.clone()), context);
        Ok(Box::pin(async move {
            match answer.await {
                Ok(output) => AttemptEnd::Success(output),
                Err(error) => error.into().into(),
            }
        }))
    }
}

/// A function that blocks its thread.
pub(super) struct Blocking<F, I> {
    function: F,
    input: PhantomData<fn() -> I>,
}

impl<F, I> Blocking<F, I> {
    pub(super) const fn new(function: F) -> Self {
        Self {
            function,
            input: PhantomData,
        }
    }
}

impl<F, I, O, E> Block for Blocking<F, I>
where
    F: Fn(I, Context) -> Result<O, E> + Send + Sync,
    I: DeserializeOwned,
    O: Serialize,
    E: Into<TaskError>,
{
    fn run(&self, context: Context) -> AttemptEnd {
        let input = match json::input(context.0.payload()) {
            Ok(input) => input,
            Err(end) => return end,
        };
        match (self.function)(input, context) {
            Ok(value) => json::output(&value),
            Err(error) => error.into().into(),
        }
    }
}
