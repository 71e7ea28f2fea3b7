//! The command line of `consumer dead-letters`.

use std::str::FromStr;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use millrace_schemas::TaskId;
use millrace_settings::{DatabaseArgs, FramingArgs, GroupArgs, OutputArgs, TelemetryArgs};
use millrace_store::Reason;
use millrace_store::letters::Filter;

/// `consumer dead-letters`.
#[derive(Debug, Args)]
pub struct DeadLettersArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DeadLettersCommand,
}

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// Which there are, newest first.
    List(ListArgs),
    /// All that was kept of one record: error, headers, bytes, what it decodes to, and its history.
    Show(ShowArgs),
    /// Send the tasks to work again: the failed results are withdrawn, the tasks run once more.
    Redrive(RedriveArgs),
    /// Give letters up, with a reason. They stay in the table and in the books.
    Discard(DiscardArgs),
}

impl DeadLettersArgs {
    /// How to log.
    #[must_use]
    pub const fn telemetry(&self) -> &TelemetryArgs {
        match &self.command {
            DeadLettersCommand::List(args) => &args.tables.telemetry,
            DeadLettersCommand::Show(args) => &args.tables.telemetry,
            DeadLettersCommand::Redrive(args) => &args.tables.telemetry,
            DeadLettersCommand::Discard(args) => &args.tables.telemetry,
        }
    }
}

/// Where the letters are. No broker is asked.
#[derive(Debug, Args)]
pub struct TablesArgs {
    /// The group.
    #[command(flatten)]
    pub group: GroupArgs,
    /// The topic of the tasks.
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

/// Which letters. Several values of one flag mean any of them, several flags all of them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which letters")]
pub struct FilterArgs {
    /// Of this task type. May be given more than once.
    #[arg(long = "type", value_name = "TYPE")]
    pub task_type: Vec<String>,
    /// For this reason. May be given more than once.
    #[arg(long, value_name = "REASON", value_parser = reason)]
    pub reason: Vec<Reason>,
    /// Set aside at least so long ago.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub older_than: Option<Duration>,
    /// Set aside at most so long ago.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub newer_than: Option<Duration>,
    /// Of this tenant. May be given more than once.
    #[arg(long, value_name = "TENANT")]
    pub tenant: Vec<String>,
    /// Whose record has this key. May be given more than once.
    #[arg(long, value_name = "KEY")]
    pub key: Vec<String>,
    /// Of this partition. May be given more than once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Vec<i32>,
    /// Of this task. May be given more than once.
    #[arg(long, value_name = "ID")]
    pub task_id: Vec<TaskId>,
}

impl FilterArgs {
    /// As the store takes it.
    #[must_use]
    pub fn filter(&self, closed_too: bool) -> Filter {
        Filter {
            partitions: self.partition.clone(),
            task_types: self.task_type.clone(),
            reasons: self.reason.clone(),
            tenants: self.tenant.clone(),
            keys: self.key.clone(),
            task_ids: self.task_id.clone(),
            older_than: self.older_than,
            newer_than: self.newer_than,
            closed_too,
        }
    }
}

/// Which letters something is done to.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which letters")]
pub struct ChoiceArgs {
    /// The filter.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Every open letter. Needed when no filter is given.
    #[arg(long)]
    pub all: bool,
    /// At most so many letters, in the order of partitions and offsets.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Say what would happen, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `consumer dead-letters list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Where.
    #[command(flatten)]
    pub tables: TablesArgs,
    /// Which.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Also those that were redriven or discarded.
    #[arg(long)]
    pub all: bool,
    /// At most so many letters, the newest first.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
}

/// `consumer dead-letters show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A record's place, `partition:offset`, or a task's id.
    #[arg(value_name = "PARTITION:OFFSET|ID")]
    pub which: Which,
    /// Where.
    #[command(flatten)]
    pub tables: TablesArgs,
    /// How events may be framed.
    #[command(flatten)]
    pub framing: FramingArgs,
}

/// `consumer dead-letters redrive`.
#[derive(Debug, Args)]
pub struct RedriveArgs {
    /// Where.
    #[command(flatten)]
    pub tables: TablesArgs,
    /// Which.
    #[command(flatten)]
    pub choice: ChoiceArgs,
    /// How events may be framed.
    #[command(flatten)]
    pub framing: FramingArgs,
    /// At most so many letters a second, such as 50 or 50/s.
    #[arg(long, value_name = "N", value_parser = rate)]
    pub rate: Option<f64>,
    /// A task that was redriven so often is left alone, and named.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(i16).range(1..))]
    pub max_redrives: i16,
    /// Why; kept in the log of operations.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub because: Option<String>,
    /// Who does it; without it the user and the machine.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub by: Option<String>,
}

/// `consumer dead-letters discard`.
#[derive(Debug, Args)]
pub struct DiscardArgs {
    /// Where.
    #[command(flatten)]
    pub tables: TablesArgs,
    /// Which.
    #[command(flatten)]
    pub choice: ChoiceArgs,
    /// Why; kept with each letter and in the log of operations.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub because: String,
    /// Who does it; without it the user and the machine.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub by: Option<String>,
}

/// What `show` is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The record at this offset of this partition.
    Place(i32, i64),
    /// The task.
    Task(TaskId),
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((partition, offset)) = text.split_once(':')
            && let (Ok(partition), Ok(offset)) = (partition.parse(), offset.parse())
        {
            return Ok(Self::Place(partition, offset));
        }
        text.parse()
            .map(Self::Task)
            .map_err(|_| "expected a place, such as 3:1207, or a task's id".to_owned())
    }
}

fn reason(text: &str) -> Result<Reason, String> {
    Reason::ALL
        .into_iter()
        .find(|reason| reason.as_str() == text)
        .ok_or_else(|| {
            let words: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
            format!("expected one of {}", words.join(", "))
        })
}

fn rate(text: &str) -> Result<f64, String> {
    match text.strip_suffix("/s").unwrap_or(text).parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("expected a number above 0, such as 50 or 50/s".to_owned()),
    }
}
