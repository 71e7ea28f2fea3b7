//! What the tables hold already for the records of a flush: rows and parked tasks by id, letters and parked
//! tasks by offset.
//!
//! Looked up only where something may be there: the log is read again, a COPY met a row, keys meet, or no
//! primary key would find a repeat. It then also takes in what the flush itself decides, so that an id that
//! comes twice in one flush is seen, too.

use std::collections::{BTreeMap, HashMap, HashSet};

use millrace_schemas::{Decoders, Fingerprint, TaskId};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::books::Outcome;
use crate::copy::Status;
use crate::position::Consumer;
use crate::rows::{ParkKind, uuid_of};
use crate::trouble::Trouble;

/// An offset as results keep it: one of a log that is no longer read counts down from -1, since the log that
/// is read now has a record of its own there.
pub(crate) const fn placed(offset: i64, in_open_log: bool) -> i64 {
    if in_open_log { offset } else { -1 - offset }
}

/// The task that an id has.
#[derive(Debug, Clone)]
pub(crate) struct Occupant {
    pub tenant: Box<str>,
    pub fingerprint: Fingerprint,
    /// Partition and offset as results keep it, when the record lies in our topic.
    pub place: Option<(i32, i64)>,
    pub state: State,
}

/// How it stands with the task that an id has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It has a row in the table of results.
    Settled {
        status: Status,
        duplicate_of: Option<TaskId>,
    },
    /// It is parked.
    Parked {
        /// Its time, in microseconds since the Unix epoch, when it is for later.
        delayed_until: Option<i64>,
        /// With which key it waits.
        key_hash: [u8; 16],
    },
}

impl Occupant {
    /// Whether it is that of a later record of the same partition.
    pub(crate) fn lies_behind(&self, (partition, offset): (i32, i64)) -> bool {
        self.place
            .is_some_and(|place| place.0 == partition && place.1 > offset)
    }

    /// The status of its row; `None` while it is parked.
    pub(crate) const fn status(&self) -> Option<Status> {
        match self.state {
            State::Settled { status, .. } => Some(status),
            State::Parked { .. } => None,
        }
    }

    /// How its own offset ended.
    pub(crate) const fn outcome(&self) -> Outcome {
        match self.state {
            State::Parked { .. } => Outcome::Parked,
            State::Settled {
                duplicate_of: Some(_),
                ..
            } => Outcome::Duplicate,
            State::Settled {
                status: Status::Failed,
                ..
            } => Outcome::DeadLetter,
            State::Settled { .. } => Outcome::Result,
        }
    }
}

/// What is there.
#[derive(Debug, Default)]
pub(crate) struct Present {
    by_id: HashMap<TaskId, Occupant>,
    letters: HashSet<(i32, i64)>,
    parked: HashSet<(i32, i64)>,
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
        self.by_id.get(&id)
    }

    /// Whether nothing is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(crate) fn has_letter(&self, place: (i32, i64)) -> bool {
        self.letters.contains(&place)
    }

    /// Whether the record at this place of the open log is parked.
    pub(crate) fn is_parked(&self, place: (i32, i64)) -> bool {
        self.parked.contains(&place)
    }

    /// Takes in what this flush will write, unless the id has a row, or is parked by another record.
    pub(crate) fn occupy(&mut self, id: TaskId, occupant: impl FnOnce() -> Occupant) {
        if !self.remembers {
            return;
        }
        let occupant = occupant();
        match self.by_id.get(&id) {
            Some(other) if other.status().is_some() || other.place != occupant.place => {}
            _ => {
                self.by_id.insert(id, occupant);
            }
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
                let duplicate_of: Option<Uuid> = row.try_get("duplicate_of")?;
                let tenant: &str = row.try_get("tenant")?;
                self.by_id.insert(
                    id,
                    Occupant {
                        tenant: tenant.into(),
                        fingerprint: Fingerprint(fingerprint.into_bytes()),
                        place: (topic == consumer.topic).then_some(place),
                        state: State::Settled {
                            status: Status::of(row.try_get("status")?),
                            duplicate_of: duplicate_of
                                .and_then(|first| TaskId::try_from(first).ok()),
                        },
                    },
                );
            }
        }
        Ok(())
    }

    /// Looks up which of these ids are parked, those without a row; of several with one id the first.
    pub(crate) async fn look_up_parked(
        &mut self,
        connection: &mut PgConnection,
        consumer: &Consumer,
        ids: impl Iterator<Item = TaskId>,
        decoders: Option<&Decoders>,
    ) -> Result<(), Trouble> {
        let mut ids: Vec<Uuid> = ids
            .filter(|id| !self.by_id.contains_key(id))
            .map(uuid_of)
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        ids.sort_unstable();
        ids.dedup();
        // The latest seq is met first, so that dead versions of the partition's row cost nothing.
        let rows = sqlx::query(
            "SELECT t.task_id, t.tenant, t.partition, t.\"offset\", \
               t.log_book = (SELECT p.log_book FROM partition_progress p WHERE p.group_id = t.group_id AND p.topic = t.topic \
                 AND p.partition = t.partition ORDER BY p.seq DESC LIMIT 1) AS open, \
               t.kind::text AS kind, t.key_hash, (extract(epoch FROM t.due_at) * 1000000)::bigint AS due, \
               CASE WHEN $4 THEN t.record_value END AS record_value \
             FROM parked_tasks t WHERE t.group_id || '' = $1 AND t.topic || '' = $2 AND t.task_id = ANY($3) \
             ORDER BY t.partition, t.log_book, t.\"offset\"",
        )
        .bind(&consumer.group)
        .bind(&consumer.topic)
        .bind(&ids)
        .bind(decoders.is_some())
        .fetch_all(connection)
        .await?;
        for row in rows {
            let id: Uuid = row.try_get("task_id")?;
            let Ok(id) = TaskId::try_from(id) else {
                continue;
            };
            let value: Option<&[u8]> = row.try_get("record_value")?;
            let decoded = decoders
                .zip(value)
                .and_then(|(decoders, value)| decoders.decode(value).ok());
            let open: Option<bool> = row.try_get("open")?;
            let offset = placed(row.try_get("offset")?, open.unwrap_or(true));
            let tenant: &str = row.try_get("tenant")?;
            let kind: &str = row.try_get("kind")?;
            let key_hash: Uuid = row.try_get("key_hash")?;
            let due: Option<i64> = row.try_get("due")?;
            self.by_id.entry(id).or_insert_with(|| Occupant {
                tenant: tenant.into(),
                fingerprint: decoded
                    .map_or(Fingerprint([0; 16]), |event| event.event().fingerprint()),
                place: row
                    .try_get("partition")
                    .ok()
                    .map(|partition| (partition, offset)),
                state: State::Parked {
                    delayed_until: due.filter(|_| kind == ParkKind::Delayed.as_str()),
                    key_hash: *key_hash.as_bytes(),
                },
            });
        }
        Ok(())
    }

    /// Looks up the letters and the parked tasks of one partition in a range of offsets, both ends included: a
    /// range of each key. A letter that was sent to work again is none any more.
    pub(crate) async fn look_up_places(
        &mut self,
        connection: &mut PgConnection,
        consumer: &Consumer,
        partition: i32,
        log_book: i32,
        range: (i64, i64),
    ) -> Result<(), Trouble> {
        let found: Vec<(bool, i64)> = sqlx::query_as(
            "SELECT false, \"offset\" FROM dead_letters WHERE group_id = $1 AND topic = $2 AND partition = $3 \
               AND log_book = $4 AND \"offset\" BETWEEN $5 AND $6 AND redriven_at IS NULL \
             UNION ALL \
             SELECT true, \"offset\" FROM parked_tasks WHERE group_id = $1 AND topic = $2 AND partition = $3 \
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
        for (parked, offset) in found {
            let places = if parked {
                &mut self.parked
            } else {
                &mut self.letters
            };
            places.insert((partition, offset));
        }
        Ok(())
    }
}
