//! The measured claims, in one run on one machine: `make bench`.
//!
//! It starts a private Postgres and Apache Kafka, measures part after part with the release binaries
//! that lie beside it, prints a table and writes `target/bench/report.json`. A part whose counts are
//! not exact ends the run: a wrong answer has no speed.

mod backlog;
mod claims;
mod copy;
mod cpu;
mod door;
mod drain;
mod emit;
mod latency;
mod machine;
mod machinery;
mod measurements;
mod options;
mod pipeline;
mod produce;
mod program;
mod report;
mod rows;
mod servers;
mod tables;
mod work;
mod worker;

#[cfg(test)]
mod report_test;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;

use crate::backlog::{Backlog, Keys};
use crate::copy::EncodedRows;
use crate::machine::Machine;
use crate::measurements::Measurements;
use crate::options::{Options, Part};
use crate::pipeline::Load;
use crate::report::Report;
use crate::rows::TASK_TYPE;
use crate::servers::{PARTITIONS, Servers};
use crate::worker::Handler;

const PLAIN: &str = "bench_plain";
const KEYED: &str = "bench_keyed";
const KEYLESS: &str = "bench_keyless";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut servers = Servers::start().await?;
    let mut measured = Measurements {
        events: options.events,
        ..Measurements::default()
    };
    measure_copy(&options, &servers, &mut measured).await?;
    measure_machinery(&options, &mut measured).await?;
    let kafka_is_needed = [
        Part::Emit,
        Part::Drain,
        Part::Pipeline,
        Part::Dedup,
        Part::Latency,
        Part::LanesPipeline,
        Part::LanesWork,
        Part::DoorLoads,
        Part::DoorResults,
    ];
    if kafka_is_needed.into_iter().any(|part| options.wants(part)) {
        tell("starting Apache Kafka");
        servers.start_kafka().await?;
        measure_backlog(&options, &servers, &mut measured).await?;
        measure_dedup(&options, &servers, &mut measured).await?;
        measure_keyless(&options, &servers, &mut measured).await?;
        measure_work(&options, &servers, &mut measured).await?;
        measure_latency(&options, &servers, &mut measured).await?;
        measure_door(&options, &servers, &mut measured).await?;
    }
    let machine = Machine::describe(&servers).await?;
    let report = Report::new(&machine, &measured);
    let path = report_path(&options)?;
    report.write(&path)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}\nwritten to {}", report.table()?, path.display())?;
    Ok(())
}

/// Bare COPY; its first round counts for nothing, since Postgres then makes the files of its log. A checkpoint
/// lets all later measurements use them again, as on a server that has been up for a while.
async fn measure_copy(
    options: &Options,
    servers: &Servers,
    measured: &mut Measurements,
) -> anyhow::Result<()> {
    let url = servers.url();
    let rows = Arc::new(EncodedRows::encoded(options.events, PLAIN));
    measured.row_bytes = Some(rows.mean_row_bytes());
    tell("warming up Postgres");
    copy::run(&url, "copy_warm_up", &rows, 2).await?;
    servers.checkpoint().await?;
    if !options.wants(Part::Copy) {
        return Ok(());
    }
    for round in 0..options.rounds {
        tell(&format!("bare COPY, round {}", round + 1));
        let took = copy::run(&url, &format!("copy_one_{round}"), &rows, 1).await?;
        measured.copy_seconds.push(took.as_secs_f64());
        let took = copy::run(&url, &format!("copy_two_{round}"), &rows, 2).await?;
        measured.copy2_seconds.push(took.as_secs_f64());
    }
    Ok(())
}

/// Lanes, ledger and outcome without I/O.
async fn measure_machinery(options: &Options, measured: &mut Measurements) -> anyhow::Result<()> {
    if !options.wants(Part::LanesCore) {
        return Ok(());
    }
    let backlog = Arc::new(Backlog::encoded(options.events, Keys::Ordering));
    for round in 0..options.rounds {
        tell(&format!("lanes without I/O, round {}", round + 1));
        let lanes = &mut measured.lanes;
        let took = machinery::alone(Arc::clone(&backlog)).await?;
        lanes.core_seconds.push(took.as_secs_f64());
        let took = machinery::with_executor(Arc::clone(&backlog)).await?;
        lanes.executor_seconds.push(took.as_secs_f64());
    }
    Ok(())
}

/// What needs events with ordering keys alone: produce and emit, the drain, the pipeline.
async fn measure_backlog(
    options: &Options,
    servers: &Servers,
    measured: &mut Measurements,
) -> anyhow::Result<()> {
    let parts = [Part::Emit, Part::Drain, Part::Pipeline, Part::LanesPipeline];
    if !parts.into_iter().any(|part| options.wants(part)) {
        return Ok(());
    }
    tell("making the backlog");
    let backlog = Arc::new(Backlog::encoded(options.events, Keys::Ordering));
    measured.event_bytes = Some(backlog.mean_value_bytes());
    if options.wants(Part::Emit) {
        measure_emit(options, servers, &backlog, measured).await?;
    }
    fill(servers, PLAIN, &backlog).await?;
    drop(backlog);
    if options.wants(Part::Drain) {
        for round in 0..options.rounds {
            tell(&format!("raw drain, round {}", round + 1));
            let took = drain::run(servers.topic(PLAIN)?, options.events).await?;
            measured.drain_seconds.push(took.as_secs_f64());
        }
    }
    let load = |handler| Load {
        topic: PLAIN,
        events: options.events,
        repeats: 0,
        handler,
    };
    // In turns, so that what changes on the machine meanwhile falls on all of them.
    for round in 0..options.rounds {
        if options.wants(Part::Pipeline) {
            tell(&format!("pipeline, round {}", round + 1));
            let load = load(Handler::Record);
            let run = pipeline::run(servers, &format!("pipeline_{round}"), load).await?;
            measured.pipeline.push(run);
        }
        if options.wants(Part::LanesPipeline) {
            tell(&format!(
                "pipeline with an empty handler, round {}",
                round + 1
            ));
            let load_empty = load(Handler::Empty(TASK_TYPE));
            let run = pipeline::run(servers, &format!("empty_{round}"), load_empty).await?;
            measured.lanes.empty.push(run);
            tell(&format!("pipeline with an echo, round {}", round + 1));
            let load_echo = load(Handler::Echo(TASK_TYPE));
            let run = pipeline::run(servers, &format!("echo_{round}"), load_echo).await?;
            measured.lanes.echo.push(run);
        }
    }
    Ok(servers.kafka()?.delete_topic(PLAIN).await?)
}

async fn measure_emit(
    options: &Options,
    servers: &Servers,
    backlog: &Arc<Backlog>,
    measured: &mut Measurements,
) -> anyhow::Result<()> {
    let kafka = servers.kafka()?;
    let lines = emit::Lines::write(options.events)?;
    // The first round warms up the broker's compiler and counts for nothing.
    for round in 0..=options.rounds {
        tell(&format!("produce and emit, round {round}"));
        let name = format!("bench_produce_{round}");
        kafka.create_topic(&name, PARTITIONS, &[]).await?;
        tokio::task::spawn_blocking(nix::unistd::sync).await?;
        let took = produce::run_apart(servers.topic(&name)?, Arc::clone(backlog)).await?;
        kafka.delete_topic(&name).await?;
        let name = format!("bench_emit_{round}");
        kafka.create_topic(&name, PARTITIONS, &[]).await?;
        tokio::task::spawn_blocking(nix::unistd::sync).await?;
        let emitted = emit::run(&servers.topic(&name)?, &lines).await?;
        kafka.delete_topic(&name).await?;
        if round > 0 {
            measured.produce_seconds.push(took.as_secs_f64());
            measured.emit.push(emitted);
        }
    }
    Ok(())
}

async fn measure_dedup(
    options: &Options,
    servers: &Servers,
    measured: &mut Measurements,
) -> anyhow::Result<()> {
    if !options.wants(Part::Dedup) && !options.wants(Part::LanesPipeline) {
        return Ok(());
    }
    let backlog = Arc::new(Backlog::encoded(options.events, Keys::Deduplication));
    measured.dedup_event_bytes = Some(backlog.mean_value_bytes());
    fill(servers, KEYED, &backlog).await?;
    drop(backlog);
    let load = |handler| Load {
        topic: KEYED,
        events: options.events,
        repeats: rows::repeats(options.events),
        handler,
    };
    for round in 0..options.rounds {
        if options.wants(Part::Dedup) {
            tell(&format!("pipeline with dedup keys, round {}", round + 1));
            let load = load(Handler::Record);
            let run = pipeline::run(servers, &format!("dedup_{round}"), load).await?;
            measured.dedup.push(run);
        }
        if options.wants(Part::LanesPipeline) {
            tell(&format!(
                "empty handler with dedup keys, round {}",
                round + 1
            ));
            let load = load(Handler::Empty(TASK_TYPE));
            let run = pipeline::run(servers, &format!("empty_dedup_{round}"), load).await?;
            measured.lanes.dedup.push(run);
        }
    }
    Ok(servers.kafka()?.delete_topic(KEYED).await?)
}

/// The empty handler on events without keys: no task waits for another one.
async fn measure_keyless(
    options: &Options,
    servers: &Servers,
    measured: &mut Measurements,
) -> anyhow::Result<()> {
    if !options.wants(Part::LanesPipeline) {
        return Ok(());
    }
    let backlog = Arc::new(Backlog::encoded(options.events, Keys::None));
    fill(servers, KEYLESS, &backlog).await?;
    drop(backlog);
    let load = Load {
        topic: KEYLESS,
        events: options.events,
        repeats: 0,
        handler: Handler::Empty(TASK_TYPE),
    };
    for round in 0..options.rounds {
        tell(&format!("empty handler without keys, round {}", round + 1));
        let run = pipeline::run(servers, &format!("keyless_{round}"), load).await?;
        measured.lanes.keyless.push(run);
    }
    Ok(servers.kafka()?.delete_topic(KEYLESS).await?)
}

async fn measure_work(
    options: &Options,
    servers: &Servers,
    measured: &mut Measurements,
) -> anyhow::Result<()> {
    if !options.wants(Part::LanesWork) {
        return Ok(());
    }
    for case in work::CASES {
        for round in 0..options.rounds {
            tell(&format!(
                "work under {} keys, round {}",
                case.keys,
                round + 1
            ));
            let name = format!("work_{}_{round}", case.keys);
            let worked = work::run(servers, &name, case).await?;
            measured.lanes.work.push(worked);
        }
    }
    Ok(())
}

async fn measure_latency(
    options: &Options,
    servers: &Servers,
    measured: &mut Measurements,
) -> anyhow::Result<()> {
    if options.wants(Part::Latency) {
        tell("latency");
        let pace = latency::Pace {
            rate: options.latency_rate,
            seconds: options.latency_seconds,
        };
        measured.latency = Some(latency::run(servers, "bench_latency", pace).await?);
    }
    Ok(())
}

async fn measure_door(
    options: &Options,
    servers: &Servers,
    measured: &mut Measurements,
) -> anyhow::Result<()> {
    let plan = door::Plan {
        connections: options.door_connections.into(),
        seconds: options.door_seconds,
        events: options.events,
    };
    if options.wants(Part::DoorLoads) {
        measured.door_loads = Some(door::loads(servers, plan, tell).await?);
    }
    if options.wants(Part::DoorResults) {
        measured.door_results = Some(door::results(servers, plan, tell).await?);
    }
    Ok(())
}

async fn fill(servers: &Servers, topic: &str, backlog: &Arc<Backlog>) -> anyhow::Result<()> {
    let kafka = servers.kafka()?;
    kafka.create_topic(topic, PARTITIONS, &[]).await?;
    produce::run_apart(servers.topic(topic)?, Arc::clone(backlog)).await?;
    Ok(())
}

/// `bench/report.json` in the target folder that this program was built into.
fn report_path(options: &Options) -> anyhow::Result<PathBuf> {
    if let Some(path) = &options.report {
        return Ok(path.clone());
    }
    let program = std::env::current_exe()?;
    let target = program
        .parent()
        .and_then(|profile| profile.parent())
        .context("this program lies in no target folder")?;
    let name = if options.is_partial() {
        "report-partial.json"
    } else {
        "report.json"
    };
    Ok(target.join("bench").join(name))
}

/// A line of progress.
fn tell(what: &str) {
    // Whoever closed standard error does not want to know.
    let _ = writeln!(std::io::stderr(), "bench: {what}");
}
