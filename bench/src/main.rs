//! The measured claims, in one run on one machine: `make bench`.
//!
//! It starts a private Postgres and Apache Kafka, measures part after part with the release binaries
//! that lie beside it, prints a table and writes `target/bench/report.json`. A part whose counts are
//! not exact ends the run: a wrong answer has no speed.

mod backlog;
mod copy;
mod cpu;
mod drain;
mod emit;
mod latency;
mod machine;
mod measurements;
mod options;
mod pipeline;
mod produce;
mod program;
mod report;
mod rows;
mod servers;
mod tables;
mod worker;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;

use crate::backlog::Backlog;
use crate::copy::EncodedRows;
use crate::machine::Machine;
use crate::measurements::Measurements;
use crate::options::{Options, Part};
use crate::pipeline::Load;
use crate::report::Report;
use crate::servers::{PARTITIONS, Servers};

const PLAIN: &str = "bench_plain";
const KEYED: &str = "bench_keyed";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut servers = Servers::start().await?;
    let mut measured = Measurements {
        events: options.events,
        ..Measurements::default()
    };
    measure_copy(&options, &servers, &mut measured).await?;
    let kafka_is_needed = [
        Part::Emit,
        Part::Drain,
        Part::Pipeline,
        Part::Dedup,
        Part::Latency,
    ];
    if kafka_is_needed.into_iter().any(|part| options.wants(part)) {
        tell("starting Apache Kafka");
        servers.start_kafka().await?;
        measure_backlog(&options, &servers, &mut measured).await?;
        measure_dedup(&options, &servers, &mut measured).await?;
        measure_latency(&options, &servers, &mut measured).await?;
    }
    let machine = Machine::describe(&servers).await?;
    let report = Report::new(&machine, &measured);
    let path = report_path(&options)?;
    report.write(&path)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}\nwritten to {}", report.table()?, path.display())?;
    Ok(())
}

/// Bare COPY; its first round counts for nothing, since Postgres then makes the files of its log that
/// all later measurements use again.
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

/// What needs events without deduplication keys: produce and emit, the drain, the pipeline.
async fn measure_backlog(
    options: &Options,
    servers: &Servers,
    measured: &mut Measurements,
) -> anyhow::Result<()> {
    if ![Part::Emit, Part::Drain, Part::Pipeline]
        .into_iter()
        .any(|part| options.wants(part))
    {
        return Ok(());
    }
    tell("making the backlog");
    let backlog = Arc::new(Backlog::encoded(options.events, false));
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
    if options.wants(Part::Pipeline) {
        let load = Load {
            topic: PLAIN,
            events: options.events,
            repeats: 0,
        };
        for round in 0..options.rounds {
            tell(&format!("pipeline, round {}", round + 1));
            let run = pipeline::run(servers, &format!("pipeline_{round}"), load).await?;
            measured.pipeline.push(run);
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
    if !options.wants(Part::Dedup) {
        return Ok(());
    }
    let backlog = Arc::new(Backlog::encoded(options.events, true));
    measured.dedup_event_bytes = Some(backlog.mean_value_bytes());
    fill(servers, KEYED, &backlog).await?;
    drop(backlog);
    let load = Load {
        topic: KEYED,
        events: options.events,
        repeats: rows::repeats(options.events),
    };
    for round in 0..options.rounds {
        tell(&format!("pipeline with dedup keys, round {}", round + 1));
        let run = pipeline::run(servers, &format!("dedup_{round}"), load).await?;
        measured.dedup.push(run);
    }
    Ok(servers.kafka()?.delete_topic(KEYED).await?)
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
