//! What the tables know of a task before it is started: settled already, a repeat, or behind a parked one.
//!
//! A worker asks so that no handler runs knowingly for what is done or for a duplicate. The answer may be old
//! when it is used: the flush stays the judge. It decides by the same rules as the flush, so that a task that
//! is called a repeat here is found to be one there.

use std::collections::{HashMap, HashSet};

use millrace_schemas::{Fingerprint, TaskId};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::books::Outcome;
use crate::days::{self, Retention};
use crate::position::{self, Consumer};
use crate::present::{Occupant, Present, State, placed};
use crate::trouble::Trouble;

/// A task about which is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// The partition.
    pub partition: i32,
    /// The book with which its log began.
    pub log_book: i32,
    /// Its offset.
    pub offset: i64,
    /// Its id.
    pub task_id: TaskId,
    /// Whether its offset may be settled already: below the highest offset ever settled.
    pub settled_before: bool,
    /// Its deduplication key and what it asks for, where it has a key.
    pub dedup: Option<([u8; 16], Fingerprint)>,
    /// Whom it waits with, where somebody may be parked.
    pub key_hash: Option<[u8; 16]>,
}

/// Whose a deduplication key, or an id, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A task that asks for the same: the one asked about is a repeat. Of an id that another record has, only
    /// the flush can tell whether the content is the same.
    Same(TaskId),
    /// A task that asks for something else: a conflict.
    Other(TaskId),
}

/// What is known of a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// How its offset was settled before; asked only with `settled_before`. A duplicate that left no row is
    /// not found here, but by its owner.
    pub settled: Option<Outcome>,
    /// The task before it that has its key or its id.
    pub owner: Option<Owner>,
    /// Tasks that are parked with its key, those for later not counted.
    pub parked: u32,
}

/// Answers the questions, in order. One statement for each kind of question, however many tasks.
///
/// # Errors
/// When the database cannot be read.
pub async fn ask(
    connection: &mut PgConnection,
    consumer: &Consumer,
    retention: Retention,
    questions: &[Question],
) -> Result<Vec<Known>, Trouble> {
    let owners = owners(connection, retention, questions).await?;
    let owner = |question: &Question| Some(owners.get(&question.dedup?.0)?.0);
    let mut present = Present::remembering(false);
    let wanted: HashSet<TaskId> = questions
        .iter()
        .flat_map(|question| {
            let own = question.settled_before || owner(question).is_some();
            own.then_some(question.task_id)
                .into_iter()
                .chain(owner(question))
        })
        .collect();
    present
        .look_up_rows(connection, consumer, wanted.into_iter())
        .await?;
    let ids: HashSet<TaskId> = questions
        .iter()
        .flat_map(|question| std::iter::once(question.task_id).chain(owner(question)))
        .collect();
    present
        .look_up_parked(connection, consumer, ids.into_iter(), None)
        .await?;
    let before = settled_before(connection, consumer, questions).await?;
    let logs = if owners.is_empty() && present.is_empty() {
        HashMap::new()
    } else {
        let partitions = questions.iter().map(|question| question.partition);
        position::log_books(connection, consumer, partitions).await?
    };
    let own = |question: &Question| {
        let open = logs.get(&question.partition).copied();
        let is_open = open.is_none_or(|open| open == question.log_book);
        (question.partition, placed(question.offset, is_open))
    };
    let depths = depths(connection, consumer, questions).await?;
    Ok(questions
        .iter()
        .map(|question| Known {
            settled: settled(question, own(question), &before, &present),
            owner: owner_of(question, own(question), &owners, &present),
            parked: question
                .key_hash
                .and_then(|hash| depths.get(&(question.partition, hash)).copied())
                .unwrap_or(0),
        })
        .collect())
}

type Place = (i32, i32, i64);

const fn place(question: &Question) -> Place {
    (question.partition, question.log_book, question.offset)
}

/// Letters and parked tasks at the places of those that may be settled.
#[derive(Default)]
struct Before {
    letters: HashSet<Place>,
    parked: HashSet<Place>,
}

async fn settled_before(
    connection: &mut PgConnection,
    consumer: &Consumer,
    questions: &[Question],
) -> Result<Before, Trouble> {
    let asked: Vec<Place> = questions
        .iter()
        .filter(|question| question.settled_before)
        .map(place)
        .collect();
    if asked.is_empty() {
        return Ok(Before::default());
    }
    let rows = sqlx::query(
        "WITH f AS (SELECT DISTINCT * FROM unnest($3::int[], $4::int[], $5::bigint[]) AS f(partition, log_book, o)) \
         SELECT f.partition, f.log_book, f.o, \
           EXISTS (SELECT FROM parked_tasks t WHERE t.group_id = $1 AND t.topic = $2 AND t.partition = f.partition \
             AND t.log_book = f.log_book AND t.\"offset\" = f.o) AS parked, \
           EXISTS (SELECT FROM dead_letters d WHERE d.group_id = $1 AND d.topic = $2 AND d.partition = f.partition \
             AND d.log_book = f.log_book AND d.\"offset\" = f.o AND d.redriven_at IS NULL) AS letter FROM f",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(asked.iter().map(|place| place.0).collect::<Vec<_>>())
    .bind(asked.iter().map(|place| place.1).collect::<Vec<_>>())
    .bind(asked.iter().map(|place| place.2).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let mut before = Before::default();
    for row in rows {
        let place = (
            row.try_get("partition")?,
            row.try_get("log_book")?,
            row.try_get("o")?,
        );
        if row.try_get("parked")? {
            before.parked.insert(place);
        }
        if row.try_get("letter")? {
            before.letters.insert(place);
        }
    }
    Ok(before)
}

fn settled(
    question: &Question,
    own: (i32, i64),
    before: &Before,
    present: &Present,
) -> Option<Outcome> {
    if !question.settled_before {
        return None;
    }
    if before.parked.contains(&place(question)) {
        return Some(Outcome::Parked);
    }
    if before.letters.contains(&place(question)) {
        return Some(Outcome::DeadLetter);
    }
    let row = present.of(question.task_id);
    Some(row.filter(|row| row.place == Some(own))?.outcome())
}

/// The owner of each key within the window, and what it asked for; the oldest wins.
async fn owners(
    connection: &mut PgConnection,
    retention: Retention,
    questions: &[Question],
) -> Result<HashMap<[u8; 16], (TaskId, Fingerprint)>, Trouble> {
    let hashes: HashSet<Uuid> = questions
        .iter()
        .filter_map(|question| Some(Uuid::from_bytes(question.dedup?.0)))
        .collect();
    let mut owners = HashMap::with_capacity(hashes.len());
    if hashes.is_empty() {
        return Ok(owners);
    }
    let today = days::today(&mut *connection).await?;
    let rows = sqlx::query(
        "SELECT hash, task_id, fingerprint FROM task_dedup \
         WHERE hash = ANY($1) AND day >= DATE '1970-01-01' + $2 ORDER BY day",
    )
    .bind(hashes.into_iter().collect::<Vec<_>>())
    .bind(retention.dedup_from(today).days_since_epoch())
    .fetch_all(connection)
    .await?;
    for row in rows {
        let (hash, task_id, fingerprint): (Uuid, Uuid, Uuid) = (
            row.try_get("hash")?,
            row.try_get("task_id")?,
            row.try_get("fingerprint")?,
        );
        if let Ok(task_id) = TaskId::try_from(task_id) {
            let fingerprint = Fingerprint(fingerprint.into_bytes());
            owners
                .entry(hash.into_bytes())
                .or_insert((task_id, fingerprint));
        }
    }
    Ok(owners)
}

fn owner_of(
    question: &Question,
    own: (i32, i64),
    owners: &HashMap<[u8; 16], (TaskId, Fingerprint)>,
    present: &Present,
) -> Option<Owner> {
    // Only what lies before a task counts, as in the flush.
    let is_before = |row: &Occupant| row.place != Some(own) && !row.lies_behind(own);
    let id = question.task_id;
    let of_id = present.of(id);
    if of_id.is_some_and(is_before) {
        return Some(Owner::Same(id));
    }
    let of_key = question.dedup.and_then(|(hash, fingerprint)| {
        let (owner, theirs) = *owners.get(&hash)?;
        let counts = owner != id && !present.of(owner).is_some_and(|row| row.lies_behind(own));
        counts.then_some(if theirs == fingerprint {
            Owner::Same(owner)
        } else {
            Owner::Other(owner)
        })
    });
    let behind =
        |row: &&Occupant| row.lies_behind(own) && matches!(row.state, State::Settled { .. });
    of_key.or_else(|| of_id.filter(behind).map(|_| Owner::Same(id)))
}

async fn depths(
    connection: &mut PgConnection,
    consumer: &Consumer,
    questions: &[Question],
) -> Result<HashMap<(i32, [u8; 16]), u32>, Trouble> {
    let keys: HashSet<(i32, [u8; 16])> = questions
        .iter()
        .filter_map(|question| Some((question.partition, question.key_hash?)))
        .collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(i32, Uuid, i32)> = sqlx::query_as(
        "SELECT k.partition, k.key_hash, k.depth \
         FROM unnest($3::int[], $4::uuid[]) AS f(partition, key_hash) JOIN parked_keys k USING (partition, key_hash) \
         WHERE k.group_id = $1 AND k.topic = $2",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(keys.iter().map(|key| key.0).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| Uuid::from_bytes(key.1)).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(partition, hash, depth)| {
            let depth = u32::try_from(depth).unwrap_or(0);
            ((partition, hash.into_bytes()), depth)
        })
        .collect())
}
