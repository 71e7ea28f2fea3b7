//! Keys that are due, each with its lowest tasks.
//!
//! The first task of every key comes before the second of any, so a long key does not keep the others out; and
//! of each key its lowest offsets come, in order, so nothing overtakes within it. A key whose lowest task may not
//! start yet is left alone whole. One statement: keys by the index of their time, tasks by the key's own.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{Waking, busy, claims, held, read_to, woken};
use crate::parked::{Parked, WokenKey, limit, task_columns};
use crate::position::Consumer;
use crate::trouble::Trouble;

/// Tasks of one key as they were loaded.
struct Loaded {
    /// Place of the first among all that is woken.
    place: i64,
    depth: i32,
    tasks: Vec<Parked>,
}

impl Loaded {
    fn into_key(mut self, (partition, key_hash): (i32, [u8; 16])) -> WokenKey {
        self.tasks.sort_unstable_by_key(Parked::place);
        WokenKey {
            partition,
            key_hash,
            more: usize::try_from(self.depth).is_ok_and(|depth| depth > self.tasks.len()),
            tasks: self.tasks,
        }
    }
}

/// Loads keys that are due, the longest due first, as many tasks and bytes as `most` says.
pub(super) async fn due(
    connection: &mut PgConnection,
    consumer: &Consumer,
    waking: &Waking<'_>,
    most: (usize, u64),
) -> Result<Vec<WokenKey>, Trouble> {
    let (partitions, claims) = claims(waking);
    let (busy_partitions, busy_keys) = busy(waking);
    let (most_tasks, most_bytes) = limit(most.0, most.1);
    let (books, ends) = read_to(waking);
    let all_is_read = waking.claims.iter().all(|held| held.read_to.is_none());
    let nothing_paused = waking.paused_types.is_empty() && waking.paused_tenants.is_empty();
    let may_come = if all_is_read && nothing_paused {
        "$5::text[] IS NOT NULL AND $6::text[] IS NOT NULL"
    } else {
        "(SELECT t.task_type <> ALL($5) AND t.tenant <> ALL($6) AND (t.log_book, t.\"offset\") < (h.read_book, h.read_to) \
           FROM parked_tasks t WHERE t.group_id = $1 AND t.topic = $2 \
           AND t.partition = k.partition AND t.key_hash = k.key_hash AND t.kind <> 'delayed' \
           ORDER BY t.log_book, t.\"offset\" LIMIT 1)"
    };
    // The first task of each key comes before the second of any. Each key looks at its even share of the room.
    let statement = format!(
        "WITH {held}, due AS MATERIALIZED (SELECT d.*, row_number() OVER (ORDER BY d.due_at) AS rank, count(*) OVER () AS among \
           FROM (SELECT d.*, h.read_book, h.read_to FROM held h \
             CROSS JOIN LATERAL (SELECT k.* FROM parked_keys k WHERE k.group_id = $1 AND k.topic = $2 \
             AND k.partition = h.partition AND k.due_at <= clock_timestamp() \
             AND NOT EXISTS (SELECT FROM unnest($7::int[], $10::uuid[]) AS b(partition, key_hash) \
               WHERE b.partition = k.partition AND b.key_hash = k.key_hash) \
             AND {may_come} ORDER BY k.due_at LIMIT $8) d ORDER BY d.due_at LIMIT $8) d), \
         chosen AS (SELECT d.partition, d.key_hash, d.depth, d.rank, t.* FROM due d CROSS JOIN LATERAL \
           (SELECT t.log_book, t.\"offset\" AS o, row_number() OVER (ORDER BY t.log_book, t.\"offset\") AS nth, \
               octet_length(t.record_value) + octet_length(t.headers) AS size \
             FROM parked_tasks t WHERE t.group_id = $1 AND t.topic = $2 AND t.partition = d.partition \
               AND t.key_hash = d.key_hash AND t.kind <> 'delayed' AND (t.log_book, t.\"offset\") < (d.read_book, d.read_to) \
             ORDER BY t.log_book, t.\"offset\" LIMIT greatest(1, $8 / d.among)) t), {woken}{columns}",
        held = held!("$11", "$12"),
        woken = woken!(),
        columns = task_columns!()
    );
    let rows = sqlx::query(AssertSqlSafe(statement))
        .bind(&consumer.group)
        .bind(&consumer.topic)
        .bind(&partitions)
        .bind(&claims)
        .bind(waking.paused_types)
        .bind(waking.paused_tenants)
        .bind(&busy_partitions)
        .bind(most_tasks)
        .bind(most_bytes)
        .bind(&busy_keys)
        .bind(&books)
        .bind(&ends)
        .fetch_all(connection)
        .await?;
    let mut by_key: HashMap<(i32, [u8; 16]), Loaded> = HashMap::new();
    for row in &rows {
        let Some(task) = Parked::read(row)? else {
            continue;
        };
        let (place, depth): (i64, i32) = (row.try_get("place")?, row.try_get("depth")?);
        let key = (task.partition, task.key_hash);
        let loaded = by_key.entry(key).or_insert_with(|| Loaded {
            place,
            depth,
            tasks: Vec::new(),
        });
        loaded.place = loaded.place.min(place);
        loaded.tasks.push(task);
    }
    let mut woken: Vec<(i64, WokenKey)> = by_key
        .into_iter()
        .map(|(key, loaded)| (loaded.place, loaded.into_key(key)))
        .collect();
    woken.sort_unstable_by_key(|(place, _)| *place);
    Ok(woken.into_iter().map(|(_, key)| key).collect())
}
