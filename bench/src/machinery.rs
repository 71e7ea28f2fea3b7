//! The machinery without I/O, on one processor: what the owner of a partition does for a task between Kafka and
//! Postgres.
//!
//! Each record is decoded, opened in the ledger, made a task, put into its key's lane, started, ended with an
//! outcome, planned into a flush, settled and passed by the frontier: the same calls, on the same types, in the
//! same order as in a worker. Once nothing stands between start and end; once the real executor runs an empty
//! async handler. All threads of it are bound to one processor.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use millrace_consumer::engine::{
    LaneKey, Laned as _, Lanes, Ledger, Offset, Outcome, Placed, Spot,
};
use millrace_consumer::handlers::{
    AttemptEnd, Completions, Executor, ExecutorOptions, FencingToken, Place, Signal, Spans, Task,
    TypeIndex,
};
use millrace_consumer::work::attempts::{Attempt, Attempts, Offer};
use millrace_consumer::work::job::Job;
use millrace_consumer::{Context, Payload, RunArgs, TaskError, Worker};
use millrace_schemas::{Decoders, headers};
use millrace_store::{Ending, Headers, Output, Settling};
use millrace_telemetry::LogFormat;
use millrace_telemetry::logging::{self, LoggingError};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::backlog::{Backlog, Record};
use crate::rows::{TASK_TYPE, TENANT};

/// Most records taken in before what is there is started, as in a worker.
const TURN: usize = 500;
/// Most attempts at once, a worker's default.
const IN_FLIGHT: usize = 1_024;
/// Most tasks in lanes at once.
const IN_MEMORY: usize = 10_000;
/// Records in a flush.
const FLUSH: usize = 10_000;
const PARTITION: i32 = 0;
const LOG_BOOK: i32 = 1;
const TYPE: TypeIndex = TypeIndex(0);

/// All records through the machinery, with nothing between start and end.
///
/// # Errors
/// When the machinery is misused, or the books do not come out even.
pub async fn alone(backlog: Arc<Backlog>) -> anyhow::Result<Duration> {
    on_one_processor(move || {
        let mut bench = Bench::new();
        let mut ready: VecDeque<LaneKey> = VecDeque::new();
        let mut records = backlog.records().peekable();
        let began = Instant::now();
        while records.peek().is_some() {
            for record in records.by_ref().take(TURN) {
                ready.extend(bench.take(&record)?);
            }
            while let Some(lane) = ready.pop_front() {
                let (_, spot, _) = bench.start(lane).context("a lane without a task")?;
                ready.extend(bench.end(lane, spot, nothing())?);
            }
            bench.flush_when(FLUSH)?;
        }
        bench.flush_when(0)?;
        let took = began.elapsed();
        bench.check(backlog.len())?;
        Ok(took)
    })
    .await
}

/// The same, with the executor calling an empty async handler for each task.
///
/// # Errors
/// As [`alone`], and when an attempt does not succeed.
pub async fn with_executor(backlog: Arc<Backlog>) -> anyhow::Result<Duration> {
    on_one_processor(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let (attempts, completions) = attempts()?;
        runtime.block_on(run_attempts(&backlog, attempts, completions))
    })
    .await
}

async fn run_attempts(
    backlog: &Backlog,
    mut attempts: Attempts,
    mut completions: Completions,
) -> anyhow::Result<Duration> {
    let mut bench = Bench::new();
    let mut records = backlog.records().peekable();
    let began = Instant::now();
    while records.peek().is_some() || bench.lanes.tasks() > 0 {
        if bench.lanes.tasks() < IN_MEMORY {
            for record in records.by_ref().take(TURN) {
                if let Some(lane) = bench.take(&record)? {
                    attempts.offer(TYPE, offer(lane));
                }
            }
        }
        let now = Instant::now();
        let mut orders = Vec::new();
        while let Some((_, offer)) = attempts.next(|_| None) {
            let started = bench.start(offer.lane);
            let (task, spot, attempt) = started.context("a lane without a task")?;
            orders.push(attempts.begin(task, attempt, attempt_at(offer, spot, now)));
        }
        attempts.start(orders);
        for finished in completions.recv().await {
            let attempt = attempts.end(finished.ticket);
            let attempt = attempt.context("an answer that nobody waits for")?;
            let AttemptEnd::Success(output) = finished.end else {
                bail!("an attempt failed: {:?}", finished.end);
            };
            let lane = attempt.offer.lane;
            if let Some(lane) = bench.end(lane, attempt.spot, output)? {
                attempts.offer(TYPE, offer(lane));
            }
        }
        bench.flush_when(FLUSH)?;
    }
    bench.flush_when(0)?;
    let took = began.elapsed();
    bench.check(backlog.len())?;
    Ok(took)
}

/// One partition, as a worker holds it.
struct Bench {
    decoders: Decoders,
    tenant: Arc<str>,
    ledger: Ledger,
    lanes: Lanes<Job>,
    batch: VecDeque<Settling>,
    now: Instant,
    booked: i64,
}

impl Bench {
    fn new() -> Self {
        Self {
            decoders: Decoders::new(),
            tenant: TENANT.into(),
            ledger: Ledger::new(Offset(0), u64::MAX),
            lanes: Lanes::default(),
            batch: VecDeque::new(),
            now: Instant::now(),
            booked: 0,
        }
    }

    /// Takes in a record; its lane, if that may start now.
    fn take(&mut self, record: &Record<'_>) -> anyhow::Result<Option<LaneKey>> {
        let decoded = self.decoders.decode(record.value)?;
        let event = decoded.event();
        let offset = self.ledger.expected();
        let timestamp_ms = i64::try_from(event.task_id.born_ms())?;
        self.ledger.open(offset, timestamp_ms)?;
        let spot = Spot {
            log_book: LOG_BOOK,
            offset: offset.0,
        };
        let key = event.lane_hash();
        let lane = key.map_or(LaneKey::Alone(spot), LaneKey::Key);
        let job = Job {
            task: Arc::new(Task {
                place: Place {
                    partition: PARTITION,
                    log_book: LOG_BOOK,
                    offset: offset.0,
                },
                task_id: event.task_id,
                task_type: TYPE,
                tenant: Arc::clone(&self.tenant),
                run: 0,
                fencing: FencingToken {
                    partition: PARTITION,
                    seq: 1,
                },
                value: record.value.into(),
                spans: Spans::of(record.value, &decoded),
                headers: headers_of(record),
                deadline_micros: event.deadline,
            }),
            parked: None,
            woken: false,
            key_hash: key.unwrap_or(*event.task_id.as_bytes()),
            attempts: 0,
            age: Duration::ZERO,
            wakes: 0,
            timestamp_ms,
            submitted_at: event.submitted_at,
            dedup: event.dedup_hash().map(|hash| hash.0),
            error: None,
        };
        match self.lanes.push(lane, job, true, self.now) {
            Placed::Next => Ok(Some(lane)),
            Placed::Waits => Ok(None),
            Placed::Full(_) => bail!("a lane was full"),
        }
    }

    /// Starts the first task of a lane.
    fn start(&mut self, lane: LaneKey) -> Option<(Arc<Task>, Spot, u16)> {
        let job = self.lanes.start(lane)?;
        Some((Arc::clone(&job.task), job.spot(), job.attempts + 1))
    }

    /// Ends a task; its lane, if the next one of it may start.
    fn end(
        &mut self,
        lane: LaneKey,
        spot: Spot,
        output: Output,
    ) -> anyhow::Result<Option<LaneKey>> {
        let removed = self.lanes.finish(lane, spot);
        let (mut job, next) = removed.context("a task that did not begin")?;
        job.attempts += 1;
        self.batch
            .push_back(job.settling(Ending::Output(Box::new(output))));
        Ok(next.then_some(lane))
    }

    /// Settles what has ended, once there is as much of it, as if its flush had landed.
    fn flush_when(&mut self, most: usize) -> anyhow::Result<()> {
        if self.batch.len() < most {
            return Ok(());
        }
        let mut records: Vec<Settling> = self.batch.drain(..).collect();
        records.sort_unstable_by_key(|record| record.offset);
        let offsets: Vec<Offset> = records.iter().map(|record| Offset(record.offset)).collect();
        let plan = self.ledger.plan(&offsets)?;
        for offset in offsets {
            self.ledger.settle(offset, Outcome::Result)?;
        }
        self.booked += self.ledger.advance_to(plan.next_offset)?.counts.results;
        Ok(())
    }

    fn check(&self, expected: usize) -> anyhow::Result<()> {
        let expected = i64::try_from(expected)?;
        ensure!(
            self.booked == expected && self.ledger.frontier().0 == expected,
            "{} of {expected} tasks were booked",
            self.booked
        );
        Ok(())
    }
}

/// The headers that a record has in Kafka.
fn headers_of(record: &Record<'_>) -> Headers {
    let task_id = record.task_id.to_string();
    let all = [
        (headers::TASK_ID, task_id.as_bytes()),
        (headers::TENANT, TENANT.as_bytes()),
        (headers::REPLY, b"false".as_slice()),
    ];
    Headers::collect(all.into_iter())
}

/// What a handler gives that returns `()`.
fn nothing() -> Output {
    Output {
        content_type: "application/json".into(),
        body: b"null".as_slice().into(),
    }
}

const fn offer(lane: LaneKey) -> Offer {
    Offer {
        partition: PARTITION,
        token: 1,
        lane,
    }
}

fn attempt_at(offer: Offer, spot: Spot, now: Instant) -> Attempt {
    Attempt {
        offer,
        spot,
        task_type: TYPE,
        signal: Signal::new(),
        started: now,
        timeout: None,
        deadline_micros: None,
        long_after: Some(Duration::from_secs(10)),
        asked: None,
        is_void: false,
        careful: false,
        reported: false,
        progress: None,
        progress_is_new: false,
    }
}

/// The flags of a worker that never runs: only its registrations are used.
#[derive(Debug, Parser)]
struct Flags {
    #[command(flatten)]
    run: RunArgs,
}

/// Leaves its payload as the bytes that came, as the stock handler does: only the machinery is measured.
async fn empty(_: Payload, _: Context) -> Result<Output, TaskError> {
    Ok(Output {
        content_type: "application/json".into(),
        body: Box::from(*b"null"),
    })
}

/// The spans of attempts are made as in a worker, whose log is on; what else this program does is not logged.
const LOGGED: &str = "error,millrace::attempt=info";

fn attempts() -> anyhow::Result<(Attempts, Completions)> {
    match logging::init(Some(LOGGED), LogFormat::Text) {
        // By an earlier round.
        Ok(()) | Err(LoggingError::AlreadySet(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = Flags::try_parse_from(["bench"])?;
    let worker = Worker::new(flags.run).register_raw(TASK_TYPE, empty);
    let (_, prepared) = worker.prepare()?;
    let options = ExecutorOptions::new("bench");
    let (executor, completions, _) =
        Executor::new(prepared.registry, Decoders::new(), &options).context("the executor")?;
    Ok((Attempts::new(executor, 1, IN_FLIGHT), completions))
}

/// Runs this, and every thread that it starts, on one processor: the last one that this program may use.
async fn on_one_processor<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let bound = move || {
        let this_thread = Pid::from_raw(0);
        let allowed = sched_getaffinity(this_thread)?;
        let last = (0..CpuSet::count())
            .rev()
            .find(|processor| allowed.is_set(*processor).unwrap_or(false))
            .context("no processor to run on")?;
        let mut only = CpuSet::new();
        only.set(last)?;
        sched_setaffinity(this_thread, &only)?;
        work()
    };
    // A thread of its own, which ends with the work: a pool's thread would stay bound.
    let (answer, answered) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().spawn(move || answer.send(bound()))?;
    answered.await.context("the measurement panicked")?
}
