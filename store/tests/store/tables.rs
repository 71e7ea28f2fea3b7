//! What a history leaves in the tables.

use std::collections::BTreeMap;

use millrace_schemas::TaskId;
use sqlx::Row;
use uuid::Uuid;

use crate::log_model::Settled;
use crate::world::World;

/// What a backup holds.
pub const TABLES: [&str; 7] = [
    "partition_progress",
    "position_history",
    "task_results",
    "task_dedup",
    "dead_letters",
    "parked_tasks",
    "parked_keys",
];

/// What is there, to be compared with what the log says.
pub async fn in_the_tables(world: &World) -> Settled {
    let mut connection = world.operations().await;
    let id = |uuid: Uuid| TaskId::try_from(uuid).unwrap();
    let rows =
        sqlx::query("SELECT task_id, \"offset\", status::text, duplicate_of FROM task_results")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    let rows: BTreeMap<_, _> = rows
        .iter()
        .map(|row| {
            let first: Option<Uuid> = row.get(3);
            (id(row.get(0)), (row.get(1), row.get(2), first.map(id)))
        })
        .collect();
    let letters: Vec<(i64, String)> = sqlx::query_as("SELECT \"offset\", reason FROM dead_letters")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let owners: Vec<Uuid> = sqlx::query_scalar("SELECT task_id FROM task_dedup ORDER BY task_id")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    Settled {
        outcomes: Vec::new(),
        rows,
        letters: letters.into_iter().collect(),
        owners: owners.into_iter().map(id).collect(),
    }
}

/// Keys whose depth is not the number of their tasks.
pub const WRONG_DEPTHS: &str = "SELECT count(*) FROM parked_keys k FULL JOIN \
     (SELECT key_hash, count(*) AS depth FROM parked_tasks WHERE kind <> 'delayed' GROUP BY key_hash) t USING (key_hash) \
     WHERE k.depth IS DISTINCT FROM t.depth";
