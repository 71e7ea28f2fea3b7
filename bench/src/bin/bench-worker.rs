//! A worker whose handlers do next to nothing, or nothing but wait: what is left is the machinery around them.
//!
//! It is a worker of one's own like any other, on the consumer's public API, with the flags of `consumer run`.
//! With `--handler work` it prints at its end how many attempts it made and how long they took inside the
//! handler, so that the rest of the time can be told from it.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use millrace_consumer::{Context, Output, Payload, RunArgs, TaskError, Worker};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A worker for measurements.
#[derive(Debug, Parser)]
#[command(name = "bench-worker", version)]
struct Flags {
    /// What is done with a task
    #[arg(long, value_enum)]
    handler: Handling,
    /// For tasks of which type
    #[arg(long, value_name = "NAME")]
    task_type: String,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Handling {
    /// Nothing: the payload is read as JSON, the result is null.
    Empty,
    /// The result is the payload, as the stock worker's is.
    Echo,
    /// Wait for as many microseconds as the payload says.
    Work,
}

/// What was spent inside the handler.
#[derive(Debug, Default)]
struct Inside {
    attempts: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Inside {
    fn add(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// Leaves its payload as the bytes that came, as the stock handler does: only the machinery is measured.
async fn empty(_: Payload, _: Context) -> Result<Output, TaskError> {
    Ok(Output {
        content_type: "application/json".into(),
        body: Box::from(*b"null"),
    })
}

async fn echo(payload: Payload, context: Context) -> Result<Output, TaskError> {
    Ok(Output {
        content_type: context.content_type().to_owned().into(),
        body: (*payload).into(),
    })
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let inside = Arc::new(Inside::default());
    let task_type = flags.task_type.as_str();
    let worker = Worker::new(flags.run);
    let code = match flags.handler {
        Handling::Empty => worker.register_raw(task_type, empty),
        Handling::Echo => worker.register_raw(task_type, echo),
        Handling::Work => {
            let inside = Arc::clone(&inside);
            worker.register(task_type, move |micros: u64| {
                let inside = Arc::clone(&inside);
                async move {
                    let began = Instant::now();
                    tokio::time::sleep(Duration::from_micros(micros)).await;
                    inside.add(began.elapsed());
                    Ok::<(), TaskError>(())
                }
            })
        }
    }
    .run();
    if flags.handler == Handling::Work {
        let spent = serde_json::json!({
            "attempts": inside.attempts.load(Ordering::Relaxed),
            "seconds": inside.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9,
        });
        // Whoever closed standard output does not want to know.
        let _ = writeln!(std::io::stdout(), "{spent}");
    }
    code
}
