//! The command line of `consumer`.
//!
//! Everything that can be set is a flag with an environment variable, checked once at start. Flags that
//! both binaries share come from `millrace-settings`.

use std::net::SocketAddr;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand};
use millrace_schemas::TaskId;
use millrace_settings::{
    DatabaseArgs, FramingArgs, GroupArgs, KafkaArgs, OutputArgs, TelemetryArgs,
};
use millrace_store::days::Retention;

use crate::handlers::PolicyArgs;
use crate::ops::callbacks::CallbacksArgs;
use crate::ops::dead_letters::args::DeadLettersArgs;
use crate::source::claims::Start;

mod pausing;

pub use pausing::{ByArgs, CancelArgs, PauseArgs, ResumeArgs, ScopeArgs};

/// Millrace's consumer: runs tasks from Kafka and keeps their results in Postgres, each exactly once.
#[derive(Debug, Parser)]
#[command(name = "consumer", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join the group and work: every event becomes a row of task_results.
    Run(RunArgs),
    /// Create or update the tables; publish the event schemas that this release knows.
    Migrate(MigrateArgs),
    /// Prove for each partition that every offset is accounted for. Exit code 1 when it does not add up.
    Audit(AuditArgs),
    /// Who holds which partition, where it stands and how far it is behind.
    Status(PlaceArgs),
    /// Look at positions, or move them by hand.
    Position(PositionArgs),
    /// Look at dead letters, send their tasks to work again, or give them up.
    DeadLetters(DeadLettersArgs),
    /// All that is known of one task.
    Task(TaskArgs),
    /// Start nothing of a task type or a tenant any more; without arguments, list what is paused.
    Pause(PauseArgs),
    /// Start a paused type or tenant again, or let a partition go on whose records do not decode.
    Resume(ResumeArgs),
    /// Ask for a task to be cancelled. What is done stays as it is.
    Cancel(CancelArgs),
    /// What was posted to whoever submitted tasks: list, send again, secrets, targets
    Callbacks(CallbacksArgs),
    /// Ask a running worker whether it lives: for container health checks. Exit code 0 when it does.
    Healthcheck(HealthcheckArgs),
}

/// Where the log and the tables are.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// The group.
    #[command(flatten)]
    pub group: GroupArgs,
    /// Postgres.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Logging.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How long rows are kept.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Retention")]
pub struct RetentionArgs {
    /// Days that a result is kept after the day on which its task was submitted. Must be longer than the
    /// topic's own retention, which is checked at start.
    #[arg(long, env = "MILLRACE_RESULT_DAYS", value_name = "DAYS", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(1..=400))]
    pub result_days: u32,
    /// Days that a deduplication key is remembered.
    #[arg(long, env = "MILLRACE_DEDUP_DAYS", value_name = "DAYS", default_value_t = 7,
          value_parser = clap::value_parser!(u32).range(1..=400))]
    pub dedup_days: u32,
}

impl From<RetentionArgs> for Retention {
    fn from(args: RetentionArgs) -> Self {
        Self {
            result_days: args.result_days,
            dedup_days: args.dedup_days,
        }
    }
}

/// `consumer run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Where to work.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// How events may be framed.
    #[command(flatten)]
    pub framing: FramingArgs,
    /// How long rows are kept.
    #[command(flatten)]
    pub retention: RetentionArgs,
    /// How handlers are run.
    #[command(flatten)]
    pub policies: PolicyArgs,
    /// End, with exit code 0, when partitions were assigned and all of them are read to the end and
    /// written for so long. For scripts.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub exit_when_idle: Option<std::time::Duration>,
    /// Connections that write, each with a flush in the air. A partition belongs to one of them.
    #[arg(long, env = "MILLRACE_WRITERS", value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub writers: u16,
    /// Where a partition begins that this group has never worked on.
    #[arg(long, env = "MILLRACE_START", value_enum, default_value = "earliest")]
    pub start: Start,
    /// Topic that dead letters are copied to; without it the tasks' topic with `.dlq` behind its name. It is never
    /// created by this program; while it is missing, the copies wait.
    #[arg(long, env = "MILLRACE_DLQ_TOPIC", value_name = "NAME")]
    pub dlq_topic: Option<String>,
    /// Let callbacks go to private and loopback addresses, too. For development, or where the network is yours.
    #[arg(long, env = "MILLRACE_CALLBACKS_ALLOW_PRIVATE", value_parser = BoolishValueParser::new())]
    pub callbacks_allow_private: bool,
    /// What the waits between attempts at a callback are multiplied by: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h,
    /// 20 h, 24 h.
    #[arg(long, env = "MILLRACE_CALLBACKS_SCALE", value_name = "FACTOR", default_value_t = 1.0, value_parser = scale)]
    pub callbacks_scale: f64,
    /// Most events held in memory between Kafka and Postgres; beyond it the worker reads no further.
    #[arg(long, env = "MILLRACE_MAX_IN_FLIGHT", value_name = "EVENTS", default_value_t = 60_000,
          value_parser = clap::value_parser!(u64).range(100..))]
    pub max_in_flight: u64,
    /// Most bytes of events held in memory between Kafka and Postgres, in MiB.
    #[arg(long, env = "MILLRACE_MAX_IN_FLIGHT_MIB", value_name = "MIB", default_value_t = 32,
          value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub max_in_flight_mib: u64,
    /// Most tasks whose handlers run at once in this worker.
    #[arg(long, env = "MILLRACE_CONCURRENCY", value_name = "TASKS", default_value_t = 1_024,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub concurrency: u32,
    /// Most tasks of one partition that wait in Postgres; beyond it the partition is read no further until
    /// there are fewer.
    #[arg(long, env = "MILLRACE_MAX_PARKED", value_name = "TASKS", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub max_parked: u32,
    /// End the worker when a partition has not moved on for so long although nothing is known to hold it up, so
    /// that another worker takes it.
    #[arg(long, env = "MILLRACE_STUCK_AFTER", value_name = "DURATION", default_value = "10m",
          value_parser = humantime::parse_duration)]
    pub stuck_after: std::time::Duration,
    /// How long a shutdown may take to write what was taken. What is not written by then is read again.
    #[arg(long, env = "MILLRACE_SHUTDOWN_DEADLINE", value_name = "DURATION", default_value = "25s",
          value_parser = humantime::parse_duration)]
    pub shutdown_deadline: std::time::Duration,
}

/// `consumer migrate`. Needs no Kafka.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Postgres.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// How long rows are kept.
    #[command(flatten)]
    pub retention: RetentionArgs,
    /// Logging.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// `consumer audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Where to look.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// How events may be framed.
    #[command(flatten)]
    pub framing: FramingArgs,
    /// Read the log again and look up how each of its records ended.
    #[arg(long)]
    pub deep: bool,
    /// With --deep: only this partition. May be given more than once.
    #[arg(long, value_name = "N", requires = "deep")]
    pub partition: Vec<i32>,
    /// With --deep: from this offset on.
    #[arg(long, value_name = "OFFSET", requires = "deep")]
    pub from: Option<i64>,
    /// With --deep: up to this offset, not included.
    #[arg(long, value_name = "OFFSET", requires = "deep")]
    pub to: Option<i64>,
}

/// `consumer position`.
#[derive(Debug, Args)]
pub struct PositionArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PositionCommand,
}

/// What can be done with positions.
#[derive(Debug, Subcommand)]
pub enum PositionCommand {
    /// Positions beside the log, why a partition stands still, and former moves.
    Show(PlaceArgs),
    /// Move positions by hand. The old book is closed, what is skipped is booked as lost.
    Set(PositionSetArgs),
}

/// `consumer position set`.
#[derive(Debug, Args)]
pub struct PositionSetArgs {
    /// Where.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// A partition's number, or `all`. May be given more than once.
    #[arg(long, value_name = "N|all", required = true, value_parser = parse_chosen)]
    pub partition: Vec<Chosen>,
    /// `earliest`, `latest`, an offset, `+N` and `-N` from where it stands, a time such as
    /// 2026-11-21T10:00:00Z, or how long ago, such as -2h. By time it goes to the first record from then on.
    #[arg(long, value_name = "TARGET", allow_hyphen_values = true, value_parser = parse_target)]
    pub to: Target,
    /// Why; kept with the closed book.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub reason: String,
    /// Take back all that became of the records from the target on, results included, so that they run
    /// again. The target must not lie ahead of the position.
    #[arg(long)]
    pub withdraw: bool,
    /// Who.
    #[command(flatten)]
    pub by: ByArgs,
    /// Say what would happen, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Which partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// Every partition of the topic.
    All,
    /// This one.
    One(i32),
}

fn parse_chosen(text: &str) -> Result<Chosen, String> {
    match text.parse() {
        _ if text == "all" => Ok(Chosen::All),
        Ok(number) if number >= 0 => Ok(Chosen::One(number)),
        _ => Err("expected a partition's number, or `all`".to_owned()),
    }
}

/// Where a position goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The log's start.
    Earliest,
    /// The log's end.
    Latest,
    /// This offset.
    At(i64),
    /// So far from where it stands.
    By(i64),
    /// The first record from this time on, in milliseconds since the Unix epoch.
    Time(i64),
    /// The first record of the last so much time.
    Ago(std::time::Duration),
}

fn parse_target(text: &str) -> Result<Target, String> {
    match text {
        "earliest" => return Ok(Target::Earliest),
        "latest" => return Ok(Target::Latest),
        _ => {}
    }
    let relative = text.starts_with(['+', '-']);
    if let Ok(number) = text.parse() {
        return Ok(match relative {
            true => Target::By(number),
            false => Target::At(number),
        });
    }
    if let Some(span) = text.strip_prefix('-')
        && let Ok(ago) = humantime::parse_duration(span)
    {
        return Ok(Target::Ago(ago));
    }
    chrono::DateTime::parse_from_rfc3339(text)
        .map(|time| Target::Time(time.timestamp_millis()))
        .map_err(|_| {
            "expected `earliest`, `latest`, an offset, +N, -N, a time such as 2026-11-21T10:00:00Z, or how long ago, such \
             as -2h"
                .to_owned()
        })
}

/// `consumer task`.
#[derive(Debug, Args)]
pub struct TaskArgs {
    /// The task's id.
    #[arg(value_name = "ID")]
    pub id: TaskId,
    /// The group.
    #[command(flatten)]
    pub group: GroupArgs,
    /// The topic of the task.
    #[arg(
        long,
        env = "MILLRACE_TOPIC",
        value_name = "NAME",
        default_value = "tasks"
    )]
    pub topic: String,
    /// Postgres.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Logging.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
    /// How results are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `consumer healthcheck`.
#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// Where the worker listens.
    #[arg(
        long,
        env = "MILLRACE_METRICS_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9464"
    )]
    pub metrics_listen: SocketAddr,
}

fn scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if (0.000_001..=100.0).contains(&scale) => Ok(scale),
        _ => Err("expected a number from 0.000001 to 100".to_owned()),
    }
}
