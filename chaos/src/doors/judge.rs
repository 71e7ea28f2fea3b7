//! Holds what callers were told against the topic and the tables.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use uuid::Uuid;

use super::caller::Told;
use crate::checker::topic;
use crate::error::ChaosError;
use crate::place::Place;
use crate::round::PARTITIONS;
use crate::servers::Servers;

/// Everything that is not as promised.
pub(super) async fn violations(
    servers: &Servers,
    place: &Place,
    told: &Told,
) -> Result<Vec<String>, ChaosError> {
    let mut violations = told.violations.clone();
    let (bootstrap, name) = (servers.bootstrap().to_owned(), place.name.clone());
    let read = tokio::task::spawn_blocking(move || topic::read(&bootstrap, &name, PARTITIONS));
    let log = read
        .await
        .map_err(std::io::Error::other)
        .map_err(ChaosError::io("read the topic"))??;
    // Names of all tasks in the log, with the ids that each has there.
    let mut in_log: BTreeMap<String, BTreeSet<Uuid>> = BTreeMap::new();
    for record in log {
        let Some(event) = record.event else {
            violations.push(format!(
                "partition {} offset {} is no event",
                record.partition, record.offset
            ));
            continue;
        };
        let payload: Option<Value> = serde_json::from_slice(&event.payload).ok();
        let name = payload.as_ref().and_then(|p| p.get("name")?.as_str());
        match name {
            Some(name) => _ = in_log.entry(name.to_owned()).or_default().insert(event.id),
            None => violations.push(format!("{} has another payload", event.id)),
        }
    }
    for (name, ids) in &in_log {
        // Without an idempotency key nothing is handed over twice, and with one it stays one task.
        if ids.len() > 1 {
            violations.push(format!("{name} is in the log as {ids:?}"));
        }
    }
    for (key, ids) in &told.by_key {
        if ids.len() > 1 {
            violations.push(format!("key {key} was answered with {ids:?}"));
        }
        if let Some(written) = in_log.get(key)
            && written != ids
        {
            violations.push(format!(
                "key {key} was answered with {ids:?}, and the log has {written:?}"
            ));
        }
    }
    let mut connection = super::ask(servers, place).await?;
    let rows: Vec<(Uuid, String, i64)> = sqlx::query_as(
        "SELECT task_id, min(status)::text, count(*) FROM task_results GROUP BY task_id",
    )
    .fetch_all(&mut connection)
    .await?;
    let rows: BTreeMap<Uuid, (String, i64)> = rows
        .into_iter()
        .map(|(id, status, count)| (id, (status, count)))
        .collect();
    for (id, name) in &told.accepted {
        if !in_log.get(name).is_some_and(|ids| ids.contains(id)) {
            violations.push(format!("{name} ({id}) was accepted and is not in the log"));
        }
        match rows.get(id) {
            Some((status, 1)) if status == "success" => {}
            found => violations.push(format!("{name} ({id}) was accepted and has {found:?}")),
        }
    }
    Ok(violations)
}
