//! The command lines of `consumer pause`, `resume` and `cancel`.

use clap::Args;
use millrace_schemas::TaskId;
use millrace_settings::{DatabaseArgs, GroupArgs, OutputArgs, TelemetryArgs};

use super::PlaceArgs;

/// Who gives the command.
#[derive(Debug, Args)]
pub struct ByArgs {
    /// Who does this; kept with what was done. By default user@host.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub by: Option<String>,
}

/// A type's or a tenant's name.
#[derive(Debug, Args)]
#[group(id = "scope", multiple = false)]
pub struct ScopeArgs {
    /// All tasks of this type.
    #[arg(long = "type", value_name = "TYPE")]
    pub task_type: Option<String>,
    /// All tasks of this tenant.
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
}

/// `consumer pause`. Needs no Kafka.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// Of what nothing is started any more; without it, the pauses in force are listed.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Why; shown with the pause.
    #[arg(long, value_name = "TEXT", requires = "scope")]
    pub reason: Option<String>,
    /// Who.
    #[command(flatten)]
    pub by: ByArgs,
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

/// `consumer resume`. Asks the brokers only for a partition without --until.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(false).args(["task_type", "tenant", "partition"]))]
pub struct ResumeArgs {
    /// What is started again.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// A partition that stopped because most of its records did not decode goes on, up to the end that its
    /// log has now; what does not decode until then becomes a dead letter.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// With --partition: up to this offset instead, not included.
    #[arg(long, value_name = "OFFSET", requires = "partition", conflicts_with_all = ["task_type", "tenant"],
          value_parser = clap::value_parser!(i64).range(0..))]
    pub until: Option<i64>,
    /// Who.
    #[command(flatten)]
    pub by: ByArgs,
    /// Where.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// `consumer cancel`. Needs no Kafka.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The task's id.
    #[arg(value_name = "ID")]
    pub id: TaskId,
    /// Who.
    #[command(flatten)]
    pub by: ByArgs,
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
