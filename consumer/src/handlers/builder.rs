//! A worker of one's own: handlers by name, then run.
//!
//! Mistakes in the registrations are kept until the worker is prepared, so that the calls chain; they end the
//! program with exit code 2 before it joins a group.

use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use millrace_settings::LogFormat;
use millrace_store::Output;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::batch::{Batch, Batching};
use super::context::Context;
use super::handler::IntoHandler;
use super::kind::{Blocking, Kind, Payload, Raw, Typed};
use super::policies::Policies;
use super::registry::{Registered, Registry, RegistryError, Unknown};
use super::task_error::TaskError;
use crate::engine::Policy;
use crate::exit_code::{self, Refusal};
use crate::options::RunArgs;

/// A worker: which handler works on which task type, and where.
///
/// It runs as `consumer run` does, with the same flags, environment, metrics and exit codes.
///
/// ```no_run
/// use millrace_consumer::{TaskError, Worker};
///
/// async fn double(number: i64) -> Result<i64, TaskError> {
///     number.checked_mul(2).ok_or(TaskError::permanent("too large"))
/// }
///
/// fn main() -> std::process::ExitCode {
///     Worker::from_args().register("math.double", double).run()
/// }
/// ```
pub struct Worker {
    args: RunArgs,
    types: Vec<Registered>,
    unknown: Unknown,
    wrong: Option<RegistryError>,
}

/// What a worker works with, checked.
#[derive(Debug)]
pub struct Prepared {
    /// Who works on what.
    pub registry: Arc<Registry>,
    /// How it is tried.
    pub policies: Policies,
}

impl Prepared {
    /// The stock worker's: no handlers, and the payload of every task is its result.
    ///
    /// # Errors
    /// When the policy file cannot be read or names a type.
    pub fn stock(args: &RunArgs) -> Result<Self, Refusal> {
        Self::new(Vec::new(), Unknown::Record, args)
    }

    fn new(types: Vec<Registered>, unknown: Unknown, args: &RunArgs) -> Result<Self, Refusal> {
        let registry = Registry::new(types, unknown)
            .map(Arc::new)
            .map_err(|error| Refusal::usage(error.to_string()))?;
        let policies = Policies::load(Arc::clone(&registry), args.policies.policies.clone())
            .map_err(|error| Refusal::usage(error.to_string()))?;
        Ok(Self { registry, policies })
    }
}

/// Runs tasks from Kafka and keeps their results in Postgres, each exactly once.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    #[command(flatten)]
    run: RunArgs,
}

impl Worker {
    /// A worker with the flags of `consumer run`, read from the program's command line and environment.
    /// Answers `--help` and `--version`, and ends the program with exit code 2 when a flag is wrong.
    #[must_use]
    pub fn from_args() -> Self {
        Self::new(Flags::parse().run)
    }

    /// A worker for programs with a command line of their own, of which [`RunArgs`] is a part.
    #[must_use]
    pub const fn new(args: RunArgs) -> Self {
        Self {
            args,
            types: Vec::new(),
            unknown: Unknown::DeadLetter,
            wrong: None,
        }
    }

    /// Registers an async function of (input, context) or of the input, or a
    /// [`Handler`](super::Handler), for tasks whose payload is JSON. The result is JSON, too.
    #[must_use]
    pub fn register<Marker>(self, task_type: &str, handler: impl IntoHandler<Marker>) -> Self {
        let handler = Arc::new(handler.into_handler());
        self.add(task_type, Kind::Async(Box::new(Typed(handler))))
    }

    /// Registers an async function that takes the payload as it came and answers with bytes and their media
    /// type.
    #[must_use]
    pub fn register_raw<F, Answer, E>(self, task_type: &str, handler: F) -> Self
    where
        F: Fn(Payload, Context) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Result<Output, E>> + Send + 'static,
        E: Into<TaskError> + 'static,
    {
        self.add(task_type, Kind::Async(Box::new(Raw(handler))))
    }

    /// Registers an async function that gets many tasks at once and answers for each, in their order.
    ///
    /// Each task of a batch has an attempt, a cancellation and a retry of its own; the batch is dropped only
    /// when none of its tasks is wanted any more. When the function panics, or its answers do not match the
    /// tasks in number, every task of the batch has failed an attempt; from its third attempt on a task is
    /// handed over alone, so that it cannot use up the attempts of others.
    #[must_use]
    pub fn register_batch<F, Answer, I, O>(
        mut self,
        task_type: &str,
        batching: Batching,
        handler: F,
    ) -> Self
    where
        F: Fn(Vec<(I, Context)>) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Vec<Result<O, TaskError>>> + Send + 'static,
        I: DeserializeOwned + Send + 'static,
        O: Serialize + 'static,
    {
        if batching.size == 0 {
            self.wrong.get_or_insert_with(|| RegistryError::EmptyBatch {
                name: task_type.to_owned(),
            });
        }
        self.add(
            task_type,
            Kind::Batch(Box::new(Batch::new(handler, batching))),
        )
    }

    /// Registers a function that blocks its thread or computes for long. It runs on a thread for such
    /// work and cannot be stopped from outside: let it look at [`Context::is_cancelled`] or
    /// [`Context::checkpoint`] now and then.
    #[must_use]
    pub fn register_blocking<F, I, O, E>(self, task_type: &str, handler: F) -> Self
    where
        F: Fn(I, Context) -> Result<O, E> + Send + Sync + 'static,
        I: DeserializeOwned + 'static,
        O: Serialize + 'static,
        E: Into<TaskError> + 'static,
    {
        self.add(task_type, Kind::Blocking(Arc::new(Blocking::new(handler))))
    }

    /// Gives the handler that was registered last its policy: order, attempts, backoff, timeouts, limits. The
    /// policy file (`--policies`) is laid over it.
    #[must_use]
    pub fn with(mut self, policy: Policy) -> Self {
        match self.types.last_mut() {
            Some(last) => last.policy = Some(policy),
            None => self.wrong = self.wrong.or(Some(RegistryError::PolicyForNobody)),
        }
        self
    }

    /// Says what becomes of tasks of other types: dead letters, unless told otherwise.
    #[must_use]
    pub const fn unknown(mut self, unknown: Unknown) -> Self {
        self.unknown = unknown;
        self
    }

    /// Works until a signal, or the end that the flags name; then says how it went by the exit code.
    ///
    /// Handlers run on a tokio runtime of the worker's own. To be called from a plain `main`: a program that
    /// has a runtime already cannot block one of its threads for this.
    #[must_use]
    pub fn run(self) -> ExitCode {
        match self.work() {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::from(exit_code::of(&error))
            }
        }
    }

    /// Checks the registrations and reads the policy file, without running anything.
    ///
    /// # Errors
    /// The first thing that is wrong, as a usage error.
    pub fn prepare(self) -> Result<(RunArgs, Prepared), Refusal> {
        if let Some(wrong) = self.wrong {
            return Err(Refusal::usage(wrong.to_string()));
        }
        let prepared = Prepared::new(self.types, self.unknown, &self.args)?;
        Ok((self.args, prepared))
    }

    fn work(self) -> anyhow::Result<u8> {
        let (args, prepared) = self.prepare()?;
        let telemetry = &args.place.telemetry;
        let format = match telemetry.log_format {
            LogFormat::Text => millrace_telemetry::LogFormat::Text,
            LogFormat::Json => millrace_telemetry::LogFormat::Json,
        };
        millrace_telemetry::logging::init(telemetry.log.as_deref(), format)
            .map_err(|error| Refusal::usage(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let code = runtime.block_on(crate::worker::run(&args, prepared));
        // A question to a broker that is away must not hold up the end.
        runtime.shutdown_background();
        code.map_err(exit_code::explained)
    }

    fn add(mut self, task_type: &str, kind: Kind) -> Self {
        self.types.push(Registered {
            name: task_type.into(),
            kind,
            policy: None,
        });
        self
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let types: Vec<&str> = self.types.iter().map(|t| &*t.name).collect();
        f.debug_struct("Worker")
            .field("types", &types)
            .field("unknown", &self.unknown)
            .finish_non_exhaustive()
    }
}
