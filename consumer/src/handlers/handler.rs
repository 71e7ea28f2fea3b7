//! What can be registered for a task type: a [`Handler`], or a function that is as good as one.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::Context;
use super::task_error::TaskError;

/// Work on tasks of one type, with input and output as JSON.
///
/// For handlers that hold something: a client, a pool, settings. A plain async function of (input, context),
/// or of the input alone, is a handler as well.
///
/// ```
/// use millrace_consumer::{Context, Handler, TaskError};
///
/// struct Greeter { greeting: String }
///
/// impl Handler for Greeter {
///     type Input = String;
///     type Output = String;
///
///     async fn run(&self, name: String, context: Context) -> Result<String, TaskError> {
///         Ok(format!("{} {name}, says {}", self.greeting, context.tenant()))
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// What the task's payload is read as. A payload that does not fit is a permanent failure.
    type Input: DeserializeOwned + Send + 'static;
    /// The task's result.
    type Output: Serialize;

    /// Makes one attempt. It may be dropped at any await, and called again with the same task.
    fn run(
        &self,
        input: Self::Input,
        context: Context,
    ) -> impl Future<Output = Result<Self::Output, TaskError>> + Send;
}

/// Whatever can be made a [`Handler`]. `Marker` only tells the ways apart and is inferred.
pub trait IntoHandler<Marker> {
    /// What it becomes.
    type Handler: Handler;

    /// Makes it a handler.
    fn into_handler(self) -> Self::Handler;
}

/// A function as a handler.
#[derive(Debug)]
pub struct FunctionHandler<F, Signature> {
    function: F,
    signature: PhantomData<fn() -> Signature>,
}

impl<F, Signature> FunctionHandler<F, Signature> {
    const fn new(function: F) -> Self {
        Self {
            function,
            signature: PhantomData,
        }
    }
}

/// Marks what is a [`Handler`] already.
#[derive(Debug)]
pub struct ByTrait;

impl<H: Handler> IntoHandler<ByTrait> for H {
    type Handler = H;

    fn into_handler(self) -> H {
        self
    }
}

/// Marks functions of input and context.
pub type ByContext<I, O, E> = fn(I, Context) -> Result<O, E>;

impl<F, Answer, I, O, E> Handler for FunctionHandler<F, ByContext<I, O, E>>
where
    F: Fn(I, Context) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<O, E>> + Send,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + 'static,
    E: Into<TaskError> + 'static,
{
    type Input = I;
    type Output = O;

    async fn run(&self, input: I, context: Context) -> Result<O, TaskError> {
        (self.function)(input, context).await.map_err(Into::into)
    }
}

impl<F, Answer, I, O, E> IntoHandler<ByContext<I, O, E>> for F
where
    F: Fn(I, Context) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<O, E>> + Send,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + 'static,
    E: Into<TaskError> + 'static,
{
    type Handler = FunctionHandler<F, ByContext<I, O, E>>;

    fn into_handler(self) -> Self::Handler {
        FunctionHandler::new(self)
    }
}

/// Marks functions of the input alone.
pub type ByInput<I, O, E> = fn(I) -> Result<O, E>;

impl<F, Answer, I, O, E> Handler for FunctionHandler<F, ByInput<I, O, E>>
where
    F: Fn(I) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<O, E>> + Send,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + 'static,
    E: Into<TaskError> + 'static,
{
    type Input = I;
    type Output = O;

    async fn run(&self, input: I, _context: Context) -> Result<O, TaskError> {
        (self.function)(input).await.map_err(Into::into)
    }
}

impl<F, Answer, I, O, E> IntoHandler<ByInput<I, O, E>> for F
where
    F: Fn(I) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<O, E>> + Send,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + 'static,
    E: Into<TaskError> + 'static,
{
    type Handler = FunctionHandler<F, ByInput<I, O, E>>;

    fn into_handler(self) -> Self::Handler {
        FunctionHandler::new(self)
    }
}
