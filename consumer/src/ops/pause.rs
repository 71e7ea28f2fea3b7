//! `consumer pause` and `consumer resume`: nothing of a type or a tenant is started, until somebody says so.
//!
//! Both only write a row; running workers hear of it and obey. `resume --partition` lets a partition go on
//! that stopped because most of its records did not decode.

use millrace_settings::{DatabaseArgs, Format, exit};
use millrace_store::pauses::{self, Pause, Scope};
use millrace_store::{Database, Purpose, allowances};

use super::place::Place;
use super::print::{or_dash, rows};
use crate::exit_code::{Refusal, WithCode};
use crate::options::{PauseArgs, ResumeArgs, ScopeArgs};

/// What a command did.
#[derive(Debug, serde::Serialize)]
struct Done<'a> {
    scope: Scope,
    name: &'a str,
    paused: bool,
    /// Whether it was otherwise before.
    changed: bool,
}

/// Pauses, or lists the pauses in force.
///
/// # Errors
/// When a setting is wrong or the database does not answer.
pub async fn pause(args: &PauseArgs) -> anyhow::Result<u8> {
    let mut connection = database(&args.database)?
        .connect(Purpose::Operations)
        .await?;
    let Some((scope, name)) = named(&args.scope) else {
        print_pauses(args.output.format, &pauses::all(&mut connection).await?)?;
        return Ok(exit::DONE);
    };
    let (by, reason) = (operator(args.by.by.as_deref()), args.reason.as_deref());
    let changed = pauses::set(&mut connection, scope, name, &by, reason).await?;
    let done = Done {
        scope,
        name,
        paused: true,
        changed,
    };
    print_done(args.output.format, &done)
}

/// Lifts a pause, or lets a partition go on.
///
/// # Errors
/// When a setting is wrong or the database does not answer; for a partition without an offset also when the
/// brokers do not.
pub async fn resume(args: &ResumeArgs) -> anyhow::Result<u8> {
    let by = operator(args.by.by.as_deref());
    if let Some(partition) = args.partition {
        return resume_partition(args, partition, &by).await;
    }
    let Some((scope, name)) = named(&args.scope) else {
        return Err(Refusal::usage("give --type, --tenant or --partition").into());
    };
    let mut connection = database(&args.place.database)?
        .connect(Purpose::Operations)
        .await?;
    let changed = pauses::clear(&mut connection, scope, name, &by).await?;
    let done = Done {
        scope,
        name,
        paused: false,
        changed,
    };
    print_done(args.place.output.format, &done)
}

async fn resume_partition(args: &ResumeArgs, partition: i32, by: &str) -> anyhow::Result<u8> {
    let place = Place::open(&args.place)?;
    let until = match args.until {
        Some(until) => until,
        None => {
            let bounds = place.bounds(&[partition]).await?;
            let end = bounds.get(&partition).map(|bounds| bounds.end.0);
            end.ok_or_else(|| Refusal::usage(format!("the topic has no partition {partition}")))?
        }
    };
    let mut connection = place.claims.database.connect(Purpose::Operations).await?;
    let allowed =
        allowances::allow(&mut connection, place.consumer(), partition, until, by).await?;
    if !allowed {
        return Err(Refusal::usage(format!(
            "partition {partition} was never claimed by group {} on topic {}",
            place.consumer().group,
            place.consumer().topic
        ))
        .into());
    }
    let done = serde_json::json!({ "partition": partition, "until_offset": until });
    rows(
        args.place.output.format,
        &["partition", "until_offset"],
        &[done],
        |_| vec![partition.to_string(), until.to_string()],
    )?;
    Ok(exit::DONE)
}

fn database(args: &DatabaseArgs) -> Result<Database, Refusal> {
    Database::new(args.url().with_code(exit::USAGE)?, &args.schema).with_code(exit::USAGE)
}

fn named(args: &ScopeArgs) -> Option<(Scope, &str)> {
    let of_type = args
        .task_type
        .as_deref()
        .map(|name| (Scope::TaskType, name));
    of_type.or_else(|| args.tenant.as_deref().map(|name| (Scope::Tenant, name)))
}

fn operator(given: Option<&str>) -> String {
    given.map_or_else(millrace_settings::operator, str::to_owned)
}

fn print_done(format: Format, done: &Done<'_>) -> anyhow::Result<u8> {
    let columns = ["scope", "name", "state", "changed"];
    rows(format, &columns, std::slice::from_ref(done), |done| {
        let state = if done.paused { "paused" } else { "running" };
        vec![
            done.scope.as_str().to_owned(),
            done.name.to_owned(),
            state.to_owned(),
            if done.changed { "yes" } else { "no" }.to_owned(),
        ]
    })?;
    Ok(exit::DONE)
}

fn print_pauses(format: Format, pauses: &[Pause]) -> anyhow::Result<()> {
    let columns = ["scope", "name", "since", "by", "reason"];
    rows(format, &columns, pauses, |pause| {
        vec![
            pause.scope.as_str().to_owned(),
            pause.name.clone(),
            pause.since.clone(),
            pause.by.clone(),
            or_dash(pause.reason.clone()),
        ]
    })
}
