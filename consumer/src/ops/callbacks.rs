//! `consumer callbacks`: what was posted and how that ended, sending again, secrets, and targets that had enough.

use anyhow::bail;
use clap::{Args, Subcommand};
use millrace_schemas::TaskId;
use millrace_settings::{DatabaseArgs, Format, OutputArgs, TelemetryArgs, exit, operator};
use millrace_store::callbacks::{self, Shown, Tried, Which};
use millrace_store::{Database, Purpose, callback_secrets};
use sqlx::PgConnection;

use super::print::{or_dash, rows};
use crate::callbacks::{check_secret, mint_secret};
use crate::exit_code::{Refusal, WithCode};
use crate::options::ByArgs;

/// `consumer callbacks`. Needs no Kafka.
#[derive(Debug, Args)]
pub struct CallbacksArgs {
    #[command(subcommand)]
    command: CallbacksCommand,
}

#[derive(Debug, Subcommand)]
enum CallbacksCommand {
    /// List callbacks, newest first, with how the last attempt at each ended; with --task, how all of them did
    List {
        /// Of this tenant only
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        /// Of this task only
        #[arg(long, value_name = "ID")]
        task: Option<TaskId>,
        /// With this outcome only
        #[arg(long, value_name = "OUTCOME", value_parser = ["pending", "delivered", "given_up", "disabled"])]
        outcome: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=100_000))]
        limit: i64,
        #[command(flatten)]
        common: Common,
    },
    /// Send again at once: the callback of a task, or all of a tenant that were given up
    Resend {
        /// The callback of this task, if it ended, or failed and waits for another attempt
        #[arg(
            long,
            value_name = "ID",
            conflicts_with = "tenant",
            required_unless_present = "tenant"
        )]
        task: Option<TaskId>,
        /// All of this tenant that were given up, or whose target had enough
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Make, list and revoke the secrets that callbacks are signed with
    Secret {
        #[command(subcommand)]
        command: SecretCommand,
    },
    /// Send to a target again that answered 410
    Enable {
        /// Whose callbacks
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// The target, as it stood in the tasks
        target: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    /// Make a secret and print it: callbacks are signed with it from now on, and with those before it
    Create {
        /// Whose callbacks it signs
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// Its name
        #[arg(long, value_name = "NAME", default_value = "default")]
        id: String,
        /// Use this secret: whsec_ and 24 to 64 bytes in base64
        #[arg(
            long,
            value_name = "SECRET",
            env = "MILLRACE_CALLBACK_SECRET",
            hide_env_values = true
        )]
        secret: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// List secrets, without their bytes
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Revoke a secret: nothing is signed with it any more
    Revoke {
        /// Whose
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// Its name
        #[arg(long, value_name = "NAME")]
        id: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    by: ByArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Common {
    async fn connect(&self) -> anyhow::Result<PgConnection> {
        let url = self.database.url().with_code(exit::USAGE)?;
        let database = Database::new(url, &self.database.schema).with_code(exit::USAGE)?;
        Ok(database.connect(Purpose::Operations).await?)
    }

    fn by(&self) -> String {
        self.by.by.clone().unwrap_or_else(operator)
    }
}

impl CallbacksArgs {
    /// The flags for logs.
    #[must_use]
    pub const fn telemetry(&self) -> &TelemetryArgs {
        match &self.command {
            CallbacksCommand::List { common, .. }
            | CallbacksCommand::Resend { common, .. }
            | CallbacksCommand::Enable { common, .. } => &common.telemetry,
            CallbacksCommand::Secret { command } => match command {
                SecretCommand::Create { common, .. }
                | SecretCommand::List { common }
                | SecretCommand::Revoke { common, .. } => &common.telemetry,
            },
        }
    }
}

/// Runs the command; exit code 1 when there was nothing to do.
///
/// # Errors
/// When a setting is wrong or the database does not answer.
pub async fn run(args: &CallbacksArgs) -> anyhow::Result<u8> {
    match &args.command {
        CallbacksCommand::List {
            tenant,
            task,
            outcome,
            limit,
            common,
        } => {
            let mut connection = common.connect().await?;
            let (tenant, outcome) = (tenant.as_deref(), outcome.as_deref());
            let found = callbacks::latest(&mut connection, tenant, *task, outcome, *limit).await?;
            let Some(task) = *task else {
                rows(common.output.format, &COLUMNS, &found, cells)?;
                return Ok(exit::DONE);
            };
            let tries = callbacks::tries(&mut connection, task).await?;
            with_tries(common.output.format, found, tries)?;
            Ok(exit::DONE)
        }
        CallbacksCommand::Resend {
            task,
            tenant,
            common,
        } => {
            let which = match (task, tenant) {
                (Some(task), _) => Which::Task(*task),
                (None, Some(tenant)) => Which::GivenUpOf(tenant),
                (None, None) => return Err(Refusal::usage("give --task or --tenant").into()),
            };
            let mut connection = common.connect().await?;
            let count = callbacks::send_again(&mut connection, &which, &common.by()).await?;
            println!("{count} to be sent again");
            Ok(if count == 0 {
                exit::REJECTED
            } else {
                exit::DONE
            })
        }
        CallbacksCommand::Enable {
            tenant,
            target,
            common,
        } => {
            let mut connection = common.connect().await?;
            if !callback_secrets::enable(&mut connection, tenant, target, &common.by()).await? {
                bail!("callbacks of tenant {tenant} to {target} are not disabled");
            }
            println!(
                "enabled; `consumer callbacks resend --tenant {tenant}` sends what was held back"
            );
            Ok(exit::DONE)
        }
        CallbacksCommand::Secret { command } => secret(command).await,
    }
}

async fn secret(command: &SecretCommand) -> anyhow::Result<u8> {
    match command {
        SecretCommand::Create {
            tenant,
            id,
            secret,
            common,
        } => {
            let secret = secret.clone().unwrap_or_else(mint_secret);
            check_secret(&secret).with_code(exit::USAGE)?;
            let mut connection = common.connect().await?;
            callback_secrets::create(&mut connection, tenant, id, &secret, &common.by()).await?;
            println!("{secret}");
        }
        SecretCommand::List { common } => {
            let found = callback_secrets::all(&mut common.connect().await?).await?;
            rows(
                common.output.format,
                &["tenant", "id", "created", "revoked"],
                &found,
                |one| {
                    vec![
                        one.tenant.clone(),
                        one.id.clone(),
                        one.created_at.clone(),
                        or_dash(one.revoked_at.clone()),
                    ]
                },
            )?;
        }
        SecretCommand::Revoke { tenant, id, common } => {
            let mut connection = common.connect().await?;
            if !callback_secrets::revoke(&mut connection, tenant, id, &common.by()).await? {
                bail!("tenant {tenant} has no secret {id} that is not revoked");
            }
            println!("revoked {id} of {tenant}");
        }
    }
    Ok(exit::DONE)
}

/// A callback with all attempts at it, as JSON tells it.
#[derive(serde::Serialize)]
struct WithTries {
    #[serde(flatten)]
    callback: Shown,
    tries: Vec<Tried>,
}

/// Prints a task's callbacks with all attempts: in each as JSON, in a table of their own for people.
fn with_tries(format: Format, found: Vec<Shown>, tries: Vec<Tried>) -> anyhow::Result<()> {
    if format == Format::Table {
        rows(format, &COLUMNS, &found, cells)?;
        let runs: Vec<i16> = found.iter().map(|one| one.run).collect();
        let tries: Vec<Tried> = tries
            .into_iter()
            .filter(|one| runs.contains(&one.run))
            .collect();
        if !tries.is_empty() {
            println!();
            let columns = ["run", "attempt", "at", "answer", "took ms", "error"];
            rows(format, &columns, &tries, tried_cells)?;
        }
        return Ok(());
    }
    let found: Vec<WithTries> = found
        .into_iter()
        .map(|callback| {
            let its = tries.iter().filter(|one| one.run == callback.run);
            let tries = its.cloned().collect();
            WithTries { callback, tries }
        })
        .collect();
    rows(format, &[], &found, |_| Vec::new())
}

const COLUMNS: [&str; 9] = [
    "task", "run", "tenant", "outcome", "attempts", "due", "answer", "target", "error",
];

fn tried_cells(one: &Tried) -> Vec<String> {
    vec![
        one.run.to_string(),
        one.attempt.to_string(),
        one.at.clone(),
        or_dash(one.status_code),
        one.took_ms.to_string(),
        or_dash(one.error.clone()),
    ]
}

fn cells(one: &Shown) -> Vec<String> {
    vec![
        one.task_id.clone(),
        one.run.to_string(),
        one.tenant.clone(),
        one.outcome.clone(),
        one.attempts.to_string(),
        or_dash(one.due_at.clone()),
        or_dash(one.status_code),
        one.target.clone(),
        or_dash(one.error.clone()),
    ]
}
