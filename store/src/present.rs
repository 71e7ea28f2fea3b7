//! What the tables hold already for the records of a flush: rows by id, letters by offset.
//!
//! Looked up only where rows may be there, that is, when the log is read again or a COPY met a row. It then
//! also takes in what the flush itself decides, so that an id that comes twice in one flush is seen, too.

use std::collections::{BTreeMap, HashMap, HashSet};

use millrace_schemas::{Fingerprint, TaskId};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::copy::Status;
use crate::position::Consumer;
use crate::rows::uuid_of;
use crate::trouble::Trouble;

/// The row that an id has.
#[derive(Debug, Clone)]
pub(crate) struct Occupant {
    pub tenant: Box<str>,
    pub fingerprint: Fingerprint,
    /// Partition and offset, when the record lies in our topic.
    pub place: Option<(i32, i64)>,
    pub status: Status,
    pub duplicate_of: Option<TaskId>,
}

impl Occupant {
    /// Whether it is the row of a later record of the same partition.
    pub(crate) fn lies_behind(&self, (partition, offset): (i32, i64)) -> bool {
        self.place
            .is_some_and(|place| place.0 == partition && place.1 > offset)
    }
}

/// Rows and letters that are there.
#[derive(Debug, Default)]
pub(crate) struct Present {
    rows: HashMap<TaskId, Occupant>,
    letters: HashSet<(i32, i64)>,
    /// Whether ids of this flush are remembered. Plain batches need not: the primary key finds a repeat.
    remembers: bool,
}

impl Present {
    pub(crate) fn remembering(remembers: bool) -> Self {
        Self {
            remembers,
            ..Self::default()
        }
    }

    pub(crate) fn of(&self, id: TaskId) -> Option<&Occupant> {
        self.rows.get(&id)
    }

    pub(crate) fn has_letter(&self, place: (i32, i64)) -> bool {
        self.letters.contains(&place)
    }

    /// Takes in a row that this flush will write, unless the id has one.
    pub(crate) fn occupy(&mut self, id: TaskId, occupant: impl FnOnce() -> Occupant) {
        if self.remembers {
            self.rows.entry(id).or_insert_with(occupant);
        }
    }

    /// Looks up the rows of these ids: one statement a day, by primary key.
    pub(crate) async fn look_up_rows(
        &mut self,
        connection: &mut PgConnection,
        consumer: &Consumer,
        ids: impl Iterator<Item = TaskId>,
    ) -> Result<(), Trouble> {
        let mut by_day: BTreeMap<i32, Vec<Uuid>> = BTreeMap::new();
        for id in ids {
            let day = by_day.entry(id.birth_day().days_since_epoch());
            day.or_default().push(uuid_of(id));
        }
        for (day, mut ids) in by_day {
            ids.sort_unstable();
            ids.dedup();
            let rows = sqlx::query(
                "SELECT task_id, tenant, fingerprint, topic, partition, \"offset\", status::text AS status, duplicate_of \
                 FROM task_results WHERE day = DATE '1970-01-01' + $1 AND task_id = ANY($2)",
            )
            .bind(day)
            .bind(&ids)
            .fetch_all(&mut *connection)
            .await?;
            for row in rows {
                let id: Uuid = row.try_get("task_id")?;
                let Ok(id) = TaskId::try_from(id) else {
                    continue;
                };
                let fingerprint: Uuid = row.try_get("fingerprint")?;
                let topic: &str = row.try_get("topic")?;
                let place = (row.try_get("partition")?, row.try_get("offset")?);
                let status: &str = row.try_get("status")?;
                let duplicate_of: Option<Uuid> = row.try_get("duplicate_of")?;
                let tenant: &str = row.try_get("tenant")?;
                self.rows.insert(
                    id,
                    Occupant {
                        tenant: tenant.into(),
                        fingerprint: Fingerprint(fingerprint.into_bytes()),
                        place: (topic == consumer.topic).then_some(place),
                        status: if status == Status::Failed.as_str() {
                            Status::Failed
                        } else {
                            Status::Success
                        },
                        duplicate_of: duplicate_of.and_then(|first| TaskId::try_from(first).ok()),
                    },
                );
            }
        }
        Ok(())
    }

    /// Looks up the letters of one partition in a range of offsets, both ends included: a range of the key.
    pub(crate) async fn look_up_letters(
        &mut self,
        connection: &mut PgConnection,
        consumer: &Consumer,
        partition: i32,
        log_book: i32,
        range: (i64, i64),
    ) -> Result<(), Trouble> {
        let offsets: Vec<i64> = sqlx::query_scalar(
            "SELECT \"offset\" FROM dead_letters WHERE group_id = $1 AND topic = $2 AND partition = $3 \
             AND log_book = $4 AND \"offset\" BETWEEN $5 AND $6",
        )
        .bind(&consumer.group)
        .bind(&consumer.topic)
        .bind(partition)
        .bind(log_book)
        .bind(range.0)
        .bind(range.1)
        .fetch_all(connection)
        .await?;
        self.letters
            .extend(offsets.into_iter().map(|offset| (partition, offset)));
        Ok(())
    }
}
