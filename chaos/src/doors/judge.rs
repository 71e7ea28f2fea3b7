//! Holds what callers were told against the topic and the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::told::Told;
use crate::checker::topic;
use crate::error::ChaosError;
use crate::place::Place;
use crate::round::PARTITIONS;
use crate::servers::{Servers, connect};

/// What the topic and the tables hold.
#[derive(Debug)]
pub(super) struct Evidence {
    /// Tasks in the log.
    pub in_log: usize,
    /// Of these, those that nobody was told the acceptance of.
    pub unpromised: usize,
    /// What is not as promised.
    pub violations: Vec<String>,
}

/// Tasks of the log, as it has them.
#[derive(Default)]
struct Log {
    /// Each id with its payload.
    tasks: BTreeMap<Uuid, Value>,
    /// The ids of each name.
    names: BTreeMap<String, BTreeSet<Uuid>>,
}

/// How a task ended.
#[derive(Debug)]
struct Row {
    status: String,
    completed_at: DateTime<Utc>,
    count: i64,
}

/// Judges. The tasks of the log that nobody waits for may take until `patience` is over to end.
pub(super) async fn judge(
    servers: &Servers,
    place: &Place,
    told: &Told,
    patience: Duration,
) -> Result<Evidence, ChaosError> {
    let mut violations = Vec::new();
    let log = read(servers, place, &mut violations).await?;
    for (name, ids) in &log.names {
        // Without an idempotency key nothing is handed over twice, and with one it stays one task.
        if ids.len() > 1 {
            violations.push(format!("{name} is in the log as {ids:?}"));
        }
    }
    for (key, ids) in &told.by_key {
        if log.names.get(key) != Some(ids) {
            let found = log.names.get(key);
            violations.push(format!(
                "key {key} was answered with {ids:?}, and the log has {found:?}"
            ));
        }
    }
    for name in &told.not_taken {
        if let Some(ids) = log.names.get(name) {
            violations.push(format!(
                "{name} was refused as not taken, and the log has {ids:?}"
            ));
        }
    }
    let rows = rows(servers, place, &log, patience).await?;
    for (id, task) in &told.accepted {
        let name = &task.name;
        if log.tasks.get(id) != Some(&task.payload()) {
            let found = log.tasks.get(id);
            violations.push(format!(
                "{name} ({id}) was accepted, and the log has {found:?} of it"
            ));
        }
        if let (Some(row), Some(run_at)) = (rows.get(id), task.run_at)
            && row.completed_at < run_at
        {
            let ended = row.completed_at;
            violations.push(format!("{name} ({id}) ended at {ended}, before {run_at}"));
        }
    }
    let all: BTreeSet<&Uuid> = log.tasks.keys().chain(told.accepted.keys()).collect();
    for id in all {
        match rows.get(id) {
            Some(row) if row.count == 1 && row.status == "success" => {}
            found => violations.push(format!("{id} has {found:?} instead of one success")),
        }
    }
    for id in rows.keys().filter(|id| !log.tasks.contains_key(id)) {
        violations.push(format!("{id} has a result and is not in the log"));
    }
    let is_unpromised = |id: &&Uuid| !told.accepted.contains_key(id);
    Ok(Evidence {
        in_log: log.tasks.len(),
        unpromised: log.tasks.keys().filter(is_unpromised).count(),
        violations,
    })
}

async fn read(
    servers: &Servers,
    place: &Place,
    violations: &mut Vec<String>,
) -> Result<Log, ChaosError> {
    let (bootstrap, name) = (servers.bootstrap().to_owned(), place.name.clone());
    let read = tokio::task::spawn_blocking(move || topic::read(&bootstrap, &name, PARTITIONS));
    let records = read
        .await
        .map_err(std::io::Error::other)
        .map_err(ChaosError::io("read the topic"))??;
    let mut log = Log::default();
    for record in records {
        let (partition, offset) = (record.partition, record.offset);
        let Some(event) = record.event else {
            violations.push(format!("partition {partition} offset {offset} is no event"));
            continue;
        };
        let payload: Value = serde_json::from_slice(&event.payload).unwrap_or_default();
        let name = payload.get("name").and_then(Value::as_str);
        let id = event.id;
        match name {
            Some(name) => _ = log.names.entry(name.to_owned()).or_default().insert(id),
            None => violations.push(format!("{id} has another payload: {payload}")),
        }
        // A front door's death may put a task into the log twice, as it is.
        if let Some(before) = log.tasks.insert(id, payload.clone())
            && before != payload
        {
            violations.push(format!("{id} is in the log as {before} and as {payload}"));
        }
    }
    Ok(log)
}

/// How tasks ended, once all of the log have.
async fn rows(
    servers: &Servers,
    place: &Place,
    log: &Log,
    patience: Duration,
) -> Result<BTreeMap<Uuid, Row>, ChaosError> {
    let mut connection = connect(servers.database_url(), &place.schema()).await?;
    let deadline = Instant::now() + patience;
    loop {
        let rows = rows_now(&mut connection).await?;
        if log.tasks.keys().all(|id| rows.contains_key(id)) || Instant::now() >= deadline {
            return Ok(rows);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn rows_now(connection: &mut PgConnection) -> Result<BTreeMap<Uuid, Row>, ChaosError> {
    let rows: Vec<(Uuid, String, DateTime<Utc>, i64)> = sqlx::query_as(
        "SELECT task_id, string_agg(status::text, ', '), min(completed_at), count(*) \
         FROM task_results GROUP BY task_id",
    )
    .fetch_all(connection)
    .await?;
    let rows = rows.into_iter().map(|(id, status, completed_at, count)| {
        let row = Row {
            status,
            completed_at,
            count,
        };
        (id, row)
    });
    Ok(rows.collect())
}
