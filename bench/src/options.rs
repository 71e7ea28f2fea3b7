//! The command line of `bench`. Without flags it measures everything, as `make bench` does.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures what Millrace claims, against what it is measured against.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
pub struct Options {
    /// Measure only these; the report then goes to report-partial.json
    #[arg(long, value_delimiter = ',', value_name = "PART,...")]
    pub only: Vec<Part>,

    /// Events in a backlog, and rows of the bare COPY
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(1_000..=20_000_000))]
    pub events: u64,

    /// Rounds of each measurement of throughput; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,

    /// Seconds of the measurement of latency
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub latency_seconds: u32,

    /// Events per second while latency is measured
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub latency_rate: u32,

    /// Connections that submit to the front door at once
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub door_connections: u16,

    /// Seconds of each measurement of the front door
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub door_seconds: u32,

    /// Where the report goes, instead of bench/report.json in the build's target folder
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// A part of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Bare binary COPY, over one connection and over two.
    Copy,
    /// `producer emit` beside a bare produce loop.
    Emit,
    /// Raw drain of a topic.
    Drain,
    /// One worker on a backlog.
    Pipeline,
    /// The same, with deduplication keys.
    Dedup,
    /// From submit to committed result.
    Latency,
    /// Lanes, ledger and outcome without I/O, on one processor.
    LanesCore,
    /// One worker with handlers that do nothing, on the pipeline's backlogs.
    LanesPipeline,
    /// Tasks of a few milliseconds' work in one partition.
    LanesWork,
    /// Both parts of the front door.
    Door,
    /// Callers that submit as much as the front door takes.
    DoorLoads,
    /// Callers that wait for results.
    DoorResults,
}

impl Options {
    /// Whether this part is to be measured.
    pub fn wants(&self, part: Part) -> bool {
        let whole = match part {
            Part::DoorLoads | Part::DoorResults => Part::Door,
            part => part,
        };
        self.only.is_empty() || self.only.contains(&part) || self.only.contains(&whole)
    }

    /// Whether something is left out that the claims need.
    pub fn is_partial(&self) -> bool {
        !self.only.is_empty()
    }
}
