//! Which task owns a deduplication key.
//!
//! The first task of a key that is settled owns it for the window; the same key with the same content is
//! a duplicate, with other content a conflict. A key's own task is never its duplicate, so that a flush
//! that is repeated after a lost answer, or a log that is read again, finds the same as before.

use std::collections::HashMap;

use millrace_schemas::{Day, Fingerprint, TaskId};
use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;

use crate::copy::{CopyIn, DEDUP_COLUMNS};
use crate::days::Daily;
use crate::trouble::Trouble;

/// What a deduplication key says about a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It owns its key.
    First,
    /// The owner of the key is the same work.
    DuplicateOf(TaskId),
    /// The owner of the key is other work.
    ConflictWith(TaskId),
}

/// The owner of a key.
#[derive(Debug, Clone, Copy)]
struct Owner {
    task_id: TaskId,
    fingerprint: Fingerprint,
    /// Whether this flush makes it the owner.
    new: bool,
}

/// The days in which a key may be found, oldest first.
///
/// Keys are written on the current day alone, so a day before yesterday whose table is empty stays empty:
/// it is found out once a day and connection, and not looked into with every flush. Yesterday's table may
/// still get keys of a flush that began before midnight.
#[derive(Debug, Default)]
pub(crate) struct KeyDays {
    window: Option<(Day, Day)>,
    days: Vec<Day>,
}

impl KeyDays {
    /// The days of the window that may hold keys.
    pub(crate) async fn within(
        &mut self,
        connection: &mut PgConnection,
        from: Day,
        today: Day,
    ) -> Result<&[Day], Trouble> {
        if self.window != Some((from, today)) {
            let mut days = Vec::new();
            let mut day = from;
            while day <= today.plus(1) {
                let written_now = day == today || day.plus(1) == today;
                if written_now || holds_keys(connection, day).await? {
                    days.push(day);
                }
                day = day.plus(1);
            }
            *self = Self {
                window: Some((from, today)),
                days,
            };
        }
        Ok(&self.days)
    }
}

async fn holds_keys(connection: &mut PgConnection, day: Day) -> Result<bool, Trouble> {
    let table = Daily::Dedup.table_of(day);
    let statement = format!("SELECT EXISTS (SELECT FROM {table})");
    Ok(sqlx::query_scalar(AssertSqlSafe(statement))
        .persistent(false)
        .fetch_one(connection)
        .await?)
}

/// The owners of the keys in a flush: those that the table knows, and those that this flush adds.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    by_hash: HashMap<[u8; 16], Owner>,
}

impl Owners {
    /// Looks up the owners in these days, each in its own table by the index on the key. The oldest owner wins.
    pub(crate) async fn look_up(
        connection: &mut PgConnection,
        hashes: &[[u8; 16]],
        days: &[Day],
    ) -> Result<Self, Trouble> {
        let mut owners = Self {
            by_hash: HashMap::with_capacity(hashes.len()),
        };
        let wanted: Vec<Uuid> = hashes.iter().map(|hash| Uuid::from_bytes(*hash)).collect();
        for day in days {
            let table = Daily::Dedup.table_of(*day);
            let rows = sqlx::query(AssertSqlSafe(format!(
                "SELECT hash, task_id, fingerprint FROM {table} WHERE hash = ANY($1)"
            )))
            .bind(&wanted)
            .fetch_all(&mut *connection)
            .await?;
            for row in rows {
                let (hash, task_id, fingerprint): (Uuid, Uuid, Uuid) = (
                    row.try_get("hash")?,
                    row.try_get("task_id")?,
                    row.try_get("fingerprint")?,
                );
                if let Ok(task_id) = TaskId::try_from(task_id) {
                    let owner = Owner {
                        task_id,
                        fingerprint: Fingerprint(fingerprint.into_bytes()),
                        new: false,
                    };
                    owners.by_hash.entry(hash.into_bytes()).or_insert(owner);
                }
            }
        }
        Ok(owners)
    }

    /// The task that owns this key, if any does.
    pub(crate) fn owner(&self, hash: &[u8; 16]) -> Option<TaskId> {
        self.by_hash.get(hash).map(|owner| owner.task_id)
    }

    /// Where a task stands.
    pub(crate) fn standing(
        &self,
        hash: &[u8; 16],
        task_id: TaskId,
        fingerprint: Fingerprint,
    ) -> Standing {
        match self.by_hash.get(hash) {
            None => Standing::First,
            Some(owner) if owner.task_id == task_id => Standing::First,
            Some(owner) if owner.fingerprint == fingerprint => Standing::DuplicateOf(owner.task_id),
            Some(owner) => Standing::ConflictWith(owner.task_id),
        }
    }

    /// Makes the task the owner of a key that has none.
    pub(crate) fn own(&mut self, hash: [u8; 16], task_id: TaskId, fingerprint: Fingerprint) {
        self.by_hash.entry(hash).or_insert(Owner {
            task_id,
            fingerprint,
            new: true,
        });
    }

    /// Writes the new owners. Sorted, so that two writers that meet on keys wait in one direction only.
    pub(crate) async fn write_new(
        &self,
        connection: &mut PgConnection,
        today: Day,
    ) -> Result<(), Trouble> {
        let mut new: Vec<(&[u8; 16], &Owner)> =
            self.by_hash.iter().filter(|(_, owner)| owner.new).collect();
        if new.is_empty() {
            return Ok(());
        }
        new.sort_unstable_by_key(|(hash, _)| *hash);
        let table = Daily::Dedup.table_of(today);
        let mut copy = CopyIn::begin(connection, &table, DEDUP_COLUMNS).await?;
        for (hash, owner) in new {
            let buffer = copy.buffer();
            buffer.dedup(hash, owner.task_id, owner.fingerprint, today);
            copy.drain().await?;
        }
        copy.finish().await?;
        Ok(())
    }
}
