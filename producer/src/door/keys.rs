//! `producer keys` and `producer limits`: who may call the front doors, and how much each tenant may ask for.

use std::io::{self, Write};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use millrace_schemas::limits::NAME_BYTES;
use millrace_settings::{DatabaseArgs, Format, OutputArgs, exit, operator};
use millrace_store::api_keys::{self, ApiKey, Scope, TenantLimits};
use millrace_store::{Database, Purpose};
use serde_json::json;

use super::gate::mint_key;

/// Make, list and revoke the API keys of the front doors
#[derive(Args, Clone, Debug)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum KeysCommand {
    /// Make a key and print it, once: it is kept as a hash only
    Create {
        /// On whose behalf the key calls
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// What it may be used for: submit, read, cancel, admin
        #[arg(long, value_name = "SCOPE,…", value_delimiter = ',', default_value = "submit,read,cancel", value_parser = scope)]
        scopes: Vec<Scope>,
        /// What is to be remembered about it
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// List the keys, without their secrets
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Revoke a key; front doors refuse it within a second as a rule, and within 30 s in any case
    Revoke {
        /// The key's id: the part between `mr_` and the next underscore
        id: String,
        #[command(flatten)]
        common: Common,
    },
}

/// Show and set what single tenants may ask of each front door
#[derive(Args, Clone, Debug)]
pub struct LimitsArgs {
    #[command(subcommand)]
    command: LimitsCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum LimitsCommand {
    /// Show the tenants that have limits of their own
    Show {
        #[command(flatten)]
        common: Common,
    },
    /// Set a tenant's limits; what is left out is as the front door's flags say
    Set {
        /// Whose
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// Tasks in a second, in the long run
        #[arg(long, value_name = "N")]
        rate: Option<f32>,
        /// Tasks at once after a quiet time
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        burst: Option<i32>,
        /// Requests open at a time
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        in_flight: Option<i32>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args, Clone, Debug)]
struct Common {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// Who does it; kept with what was done
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

impl Common {
    async fn connect(&self) -> anyhow::Result<sqlx::PgConnection> {
        let database = Database::new(self.database.url()?, self.database.schema.as_ref())?;
        Ok(database.connect(Purpose::Operations).await?)
    }

    fn by(&self) -> String {
        self.by.clone().unwrap_or_else(operator)
    }

    fn print(
        &self,
        json: &serde_json::Value,
        table: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        let text = match self.output.format {
            Format::Json => json.to_string(),
            Format::Table => table(),
        };
        writeln!(io::stdout(), "{}", text.trim_end()).context("cannot write to standard output")
    }
}

fn scope(word: &str) -> Result<Scope, String> {
    Scope::of(word).ok_or_else(|| "expected submit, read, cancel or admin".to_owned())
}

/// Runs `producer keys`; the exit code.
///
/// # Errors
/// A wrong setting, or the database does not answer.
pub async fn run_keys(args: &KeysArgs) -> anyhow::Result<u8> {
    match &args.command {
        KeysCommand::Create {
            tenant,
            scopes,
            note,
            common,
        } => {
            ensure!(
                !tenant.is_empty() && tenant.len() <= NAME_BYTES && !tenant.contains('\0'),
                "--tenant: expected 1 to {NAME_BYTES} bytes"
            );
            let mut scopes = scopes.clone();
            scopes.sort_unstable();
            scopes.dedup();
            let (id, whole) = mint_key();
            let key = ApiKey {
                hash: *blake3::hash(whole.as_bytes()).as_bytes(),
                id,
                tenant: tenant.clone(),
                scopes,
                note: note.clone(),
                created_at: String::new(),
                revoked_at: None,
            };
            api_keys::create(&mut common.connect().await?, &key, &common.by()).await?;
            let json =
                json!({"id": key.id, "key": whole, "tenant": key.tenant, "scopes": key.scopes});
            common.print(&json, || whole.clone())?;
        }
        KeysCommand::List { common } => {
            let access = api_keys::access(&mut common.connect().await?).await?;
            common.print(&json!(access.keys), || {
                let mut text = format!(
                    "{:<12}  {:<20}  {:<26}  {:<20}  {:<20}  note\n",
                    "id", "tenant", "scopes", "created", "revoked"
                );
                for key in &access.keys {
                    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
                    text.push_str(&format!(
                        "{:<12}  {:<20}  {:<26}  {:<20}  {:<20}  {}\n",
                        key.id,
                        key.tenant,
                        scopes.join(","),
                        key.created_at,
                        key.revoked_at.as_deref().unwrap_or("-"),
                        key.note.as_deref().unwrap_or("-"),
                    ));
                }
                text
            })?;
        }
        KeysCommand::Revoke { id, common } => {
            if !api_keys::revoke(&mut common.connect().await?, id, &common.by()).await? {
                bail!("there is no key {id} that is not revoked: `producer keys list` shows them");
            }
            common.print(&json!({"revoked": id}), || format!("revoked {id}"))?;
        }
    }
    Ok(exit::DONE)
}

/// Runs `producer limits`; the exit code.
///
/// # Errors
/// A wrong setting, or the database does not answer.
pub async fn run_limits(args: &LimitsArgs) -> anyhow::Result<u8> {
    match &args.command {
        LimitsCommand::Show { common } => {
            let access = api_keys::access(&mut common.connect().await?).await?;
            common.print(&json!(access.limits), || {
                let mut text = format!(
                    "{:<20}  {:>12}  {:>8}  {:>9}\n",
                    "tenant", "tasks/s", "burst", "in flight"
                );
                for limits in &access.limits {
                    let shown = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
                    text.push_str(&format!(
                        "{:<20}  {:>12}  {:>8}  {:>9}\n",
                        limits.tenant,
                        shown(limits.tasks_per_second.map(|n| n.to_string())),
                        shown(limits.burst.map(|n| n.to_string())),
                        shown(limits.in_flight.map(|n| n.to_string())),
                    ));
                }
                text
            })?;
        }
        LimitsCommand::Set {
            tenant,
            rate,
            burst,
            in_flight,
            common,
        } => {
            ensure!(
                rate.is_none_or(|rate| rate.is_finite() && rate > 0.0),
                "--rate: expected a number above 0"
            );
            let limits = TenantLimits {
                tenant: tenant.clone(),
                tasks_per_second: *rate,
                burst: *burst,
                in_flight: *in_flight,
            };
            api_keys::limit(&mut common.connect().await?, &limits, &common.by()).await?;
            common.print(&json!(limits), || format!("set the limits of {tenant}"))?;
        }
    }
    Ok(exit::DONE)
}
