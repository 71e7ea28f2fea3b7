//! Which tasks of a flush are another task again, by deduplication key.
//!
//! The first task of a key that is settled owns it for the window; the same key with the same content is
//! a duplicate, with other content a conflict. A key's own row is never its duplicate, so that a flush
//! that is repeated after a lost answer, or a log that is read again, finds the same as before.

use std::collections::HashMap;

use millrace_schemas::{Day, Fingerprint, TaskId};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::copy::{CopyIn, DEDUP_COLUMNS, Status};
use crate::days::Daily;
use crate::rows::uuid_of;
use crate::trouble::Trouble;

/// A task that carries a deduplication key, in the order in which the flush settles tasks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keyed {
    pub hash: [u8; 16],
    pub task_id: TaskId,
    pub fingerprint: Fingerprint,
    /// Whether somebody may ask for this task's result by its own id.
    pub reply: bool,
}

/// What the deduplication key says about a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It owns its key.
    First,
    /// The owner of the key is this same work; its status, if the caller asked for it.
    DuplicateOf(TaskId, Status),
    /// The owner of the key is other work.
    ConflictWith(TaskId),
}

/// How new keys are written: plainly, or so that keys that are there already stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writing {
    Copy,
    Merge,
}

/// The owner of a key.
#[derive(Debug, Clone, Copy)]
struct Owner {
    task_id: TaskId,
    fingerprint: Fingerprint,
}

/// Decides every task's standing and writes the keys that are new, in this transaction.
pub(crate) async fn settle(
    connection: &mut PgConnection,
    tasks: &[Keyed],
    today: Day,
    from: Day,
    writing: Writing,
) -> Result<Vec<Standing>, Trouble> {
    let mut firsts: HashMap<[u8; 16], Owner> = HashMap::with_capacity(tasks.len());
    for task in tasks {
        firsts.entry(task.hash).or_insert(Owner {
            task_id: task.task_id,
            fingerprint: task.fingerprint,
        });
    }
    // Sorted: two writers that meet on keys then wait for each other in one direction only.
    let mut hashes: Vec<[u8; 16]> = firsts.keys().copied().collect();
    hashes.sort_unstable();
    if writing == Writing::Merge {
        merge(connection, &hashes, &firsts, today).await?;
    }
    let known = owners(connection, &hashes, from, today).await?;
    if writing == Writing::Copy {
        copy_new(connection, &hashes, &firsts, &known, today).await?;
    }
    firsts.extend(known);
    let mut standings = Vec::with_capacity(tasks.len());
    for task in tasks {
        standings.push(match firsts.get(&task.hash) {
            None => Standing::First,
            Some(owner) if owner.task_id == task.task_id => Standing::First,
            Some(owner) if owner.fingerprint == task.fingerprint => {
                let status = if task.reply {
                    status_of(connection, owner.task_id).await?
                } else {
                    Status::Success
                };
                Standing::DuplicateOf(owner.task_id, status)
            }
            Some(owner) => Standing::ConflictWith(owner.task_id),
        });
    }
    Ok(standings)
}

/// Owners within the window, one index look-up a key and day. The oldest owner of a key wins.
async fn owners(
    connection: &mut PgConnection,
    hashes: &[[u8; 16]],
    from: Day,
    today: Day,
) -> Result<HashMap<[u8; 16], Owner>, Trouble> {
    let mut known = HashMap::new();
    let wanted: Vec<Uuid> = hashes.iter().map(|hash| Uuid::from_bytes(*hash)).collect();
    let rows = sqlx::query(
        "SELECT d.hash, d.task_id, d.fingerprint FROM task_dedup d \
         WHERE d.day >= DATE '1970-01-01' + $1 AND d.day <= DATE '1970-01-01' + $2 AND d.hash = ANY($3) ORDER BY d.day DESC",
    )
    .bind(from.days_since_epoch())
    .bind(today.plus(1).days_since_epoch())
    .bind(&wanted)
    .fetch_all(connection)
    .await?;
    for row in rows {
        let (hash, task_id, fingerprint): (Uuid, Uuid, Uuid) = (
            row.try_get("hash")?,
            row.try_get("task_id")?,
            row.try_get("fingerprint")?,
        );
        if let Ok(task_id) = TaskId::from_bytes(task_id.into_bytes()) {
            known.insert(
                hash.into_bytes(),
                Owner {
                    task_id,
                    fingerprint: Fingerprint(fingerprint.into_bytes()),
                },
            );
        }
    }
    Ok(known)
}

async fn copy_new(
    connection: &mut PgConnection,
    hashes: &[[u8; 16]],
    firsts: &HashMap<[u8; 16], Owner>,
    known: &HashMap<[u8; 16], Owner>,
    today: Day,
) -> Result<(), Trouble> {
    let new = hashes.iter().filter(|hash| !known.contains_key(*hash));
    let mut copy: Option<CopyIn<'_>> = None;
    let mut connection = Some(connection);
    for hash in new {
        let Some(owner) = firsts.get(hash) else {
            continue;
        };
        if copy.is_none()
            && let Some(connection) = connection.take()
        {
            copy = Some(
                CopyIn::begin(connection, &Daily::Dedup.table_of(today), DEDUP_COLUMNS).await?,
            );
        }
        if let Some(copy) = &mut copy {
            copy.buffer()
                .dedup(hash, owner.task_id, owner.fingerprint, today);
            copy.drain().await?;
        }
    }
    if let Some(copy) = copy {
        copy.finish().await?;
    }
    Ok(())
}

async fn merge(
    connection: &mut PgConnection,
    hashes: &[[u8; 16]],
    firsts: &HashMap<[u8; 16], Owner>,
    today: Day,
) -> Result<(), Trouble> {
    let owners: Vec<(&[u8; 16], &Owner)> = hashes
        .iter()
        .filter_map(|hash| firsts.get(hash).map(|owner| (hash, owner)))
        .collect();
    let wanted: Vec<Uuid> = owners
        .iter()
        .map(|(hash, _)| Uuid::from_bytes(**hash))
        .collect();
    let ids: Vec<Uuid> = owners
        .iter()
        .map(|(_, owner)| uuid_of(owner.task_id))
        .collect();
    let fingerprints: Vec<Uuid> = owners
        .iter()
        .map(|(_, owner)| Uuid::from_bytes(owner.fingerprint.0))
        .collect();
    sqlx::query(
        "INSERT INTO task_dedup (hash, task_id, fingerprint, day) \
         SELECT n.hash, n.task_id, n.fingerprint, DATE '1970-01-01' + $4 \
         FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS n(hash, task_id, fingerprint) ON CONFLICT DO NOTHING",
    )
    .bind(&wanted)
    .bind(&ids)
    .bind(&fingerprints)
    .bind(today.days_since_epoch())
    .execute(connection)
    .await?;
    Ok(())
}

/// How the owner of a key ended. Within this flush it has no row yet and will be a success; an owner whose
/// row went with its day counts as one, too, since only successes and failures are ever written and a
/// failure's letter stays.
async fn status_of(connection: &mut PgConnection, owner: TaskId) -> Result<Status, Trouble> {
    let status: Option<String> = sqlx::query_scalar(
        "SELECT status::text FROM task_results WHERE day = DATE '1970-01-01' + $1 AND task_id = $2",
    )
    .bind(owner.birth_day().days_since_epoch())
    .bind(uuid_of(owner))
    .fetch_optional(connection)
    .await?;
    Ok(if status.as_deref() == Some("failed") {
        Status::Failed
    } else {
        Status::Success
    })
}
