//! Reading dead letters: chosen by a filter, counted, paged, and one by one with all that was kept.
//!
//! A choice is made at one moment: letters that come later are not in it, however long the work on it
//! takes, so a redriven task that fails again is not met twice by the same command.

mod selection;

use chrono::{DateTime, Utc};
use millrace_schemas::TaskId;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::position::Consumer;
use crate::trouble::Trouble;

pub use self::selection::{Filter, Selection};
use self::selection::{bound, selected};

/// Which letter: a record's place, and the run that ended there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterPlace {
    /// The partition.
    pub partition: i32,
    /// The book with which the record's log began.
    pub log_book: i32,
    /// The record's offset in that log.
    pub offset: i64,
    /// 0, and one more with each redrive.
    pub run: i16,
}

/// A letter without its bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter {
    /// Which one.
    pub place: LetterPlace,
    /// The task's id, from the event or from a header.
    pub task_id: Option<TaskId>,
    /// The tenant, from the event or from a header.
    pub tenant: Option<String>,
    /// The type, where the event told it.
    pub task_type: Option<String>,
    /// One of [`Reason`](crate::Reason)'s words.
    pub reason: String,
    /// What exactly was wrong.
    pub error: String,
    /// Attempts that were made in this run.
    pub attempts: i16,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's time in Kafka.
    pub record_time: Option<DateTime<Utc>>,
    /// When it was set aside.
    pub created_at: DateTime<Utc>,
    /// When and by whom it was sent to work again.
    pub redriven: Option<(DateTime<Utc>, Option<String>)>,
    /// When, by whom and why it was given up.
    pub discarded: Option<(DateTime<Utc>, Option<String>, Option<String>)>,
    /// Length of the record's value, in bytes.
    pub bytes: i64,
}

impl Letter {
    /// Whether nobody has decided on it yet.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.redriven.is_none() && self.discarded.is_none()
    }
}

/// A letter with all that was kept of its record.
#[derive(Debug, Clone, PartialEq)]
pub struct WholeLetter {
    /// What is told of it.
    pub letter: Letter,
    /// The record's headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The record's value, as it came.
    pub value: Vec<u8>,
}

/// How many letters share a reason and a type.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Kind {
    /// The reason.
    pub reason: String,
    /// The task type, where it is known.
    pub task_type: Option<String>,
    /// How many.
    pub letters: i64,
}

macro_rules! columns {
    () => {
        "d.partition, d.log_book, d.\"offset\", d.run, d.task_id, d.tenant, d.task_type, d.reason, d.error, d.attempts, \
         d.record_key, d.record_time, d.created_at, d.redriven_at, d.redriven_by, d.discarded_at, d.discarded_by, \
         d.discard_reason, length(d.record_value)::bigint AS bytes"
    };
}

/// The latest of the chosen letters, newest first, at most `most`.
///
/// # Errors
/// When the database cannot be read.
pub async fn list(
    connection: &mut PgConnection,
    consumer: &Consumer,
    selection: &Selection,
    most: i64,
) -> Result<Vec<Letter>, Trouble> {
    let query = sqlx::query(concat!(
        "SELECT ",
        columns!(),
        " FROM dead_letters d WHERE ",
        selected!(),
        " ORDER BY d.created_at DESC, d.partition, d.log_book DESC, d.\"offset\" DESC, d.run DESC LIMIT $12"
    ));
    let rows = bound(query, consumer, selection)
        .bind(most)
        .fetch_all(connection)
        .await?;
    Ok(rows.iter().map(letter).collect::<Result<_, _>>()?)
}

/// How many letters are chosen, by reason and type, the most frequent first.
///
/// # Errors
/// When the database cannot be read.
pub async fn kinds(
    connection: &mut PgConnection,
    consumer: &Consumer,
    selection: &Selection,
) -> Result<Vec<Kind>, Trouble> {
    let query = sqlx::query(concat!(
        "SELECT d.reason, d.task_type, count(*) AS letters FROM dead_letters d WHERE ",
        selected!(),
        " GROUP BY d.reason, d.task_type ORDER BY letters DESC, d.reason, d.task_type"
    ));
    let rows = bound(query, consumer, selection)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Kind {
                reason: row.try_get("reason")?,
                task_type: row.try_get("task_type")?,
                letters: row.try_get("letters")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(Trouble::from)
}

/// The next chosen letters behind `after`, in the order of their places, at most `most`.
///
/// # Errors
/// When the database cannot be read.
pub async fn page(
    connection: &mut PgConnection,
    consumer: &Consumer,
    selection: &Selection,
    after: Option<LetterPlace>,
    most: i64,
) -> Result<Vec<Letter>, Trouble> {
    let after = after.unwrap_or(LetterPlace {
        partition: -1,
        log_book: 0,
        offset: 0,
        run: 0,
    });
    let query = sqlx::query(concat!(
        "SELECT ",
        columns!(),
        " FROM dead_letters d WHERE ",
        selected!(),
        " AND (d.partition, d.log_book, d.\"offset\", d.run) > ($12::int, $13::int, $14::bigint, $15::smallint) \
         ORDER BY d.partition, d.log_book, d.\"offset\", d.run LIMIT $16"
    ));
    let rows = bound(query, consumer, selection)
        .bind(after.partition)
        .bind(after.log_book)
        .bind(after.offset)
        .bind(after.run)
        .bind(most)
        .fetch_all(connection)
        .await?;
    Ok(rows.iter().map(letter).collect::<Result<_, _>>()?)
}

/// The letters at these places, whole, in the order of their places; those that are not there are left out.
///
/// # Errors
/// When the database cannot be read.
pub async fn whole(
    connection: &mut PgConnection,
    consumer: &Consumer,
    places: &[LetterPlace],
) -> Result<Vec<WholeLetter>, Trouble> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        columns!(),
        ", d.headers::text AS headers, d.record_value \
         FROM unnest($3::int[], $4::int[], $5::bigint[], $6::smallint[]) AS k(partition, log_book, \"offset\", run) \
         JOIN dead_letters d ON d.partition = k.partition AND d.log_book = k.log_book AND d.\"offset\" = k.\"offset\" \
           AND d.run = k.run \
         WHERE d.group_id = $1 AND d.topic = $2 ORDER BY d.partition, d.log_book, d.\"offset\", d.run"
    ))
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(places.iter().map(|place| place.partition).collect::<Vec<_>>())
    .bind(places.iter().map(|place| place.log_book).collect::<Vec<_>>())
    .bind(places.iter().map(|place| place.offset).collect::<Vec<_>>())
    .bind(places.iter().map(|place| place.run).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let headers: String = row.try_get("headers")?;
            Ok(WholeLetter {
                letter: letter(row)?,
                headers: headers_of(&headers),
                value: row.try_get("record_value")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(Trouble::from)
}

/// Every letter of a record, whichever log it was in, the latest log and run last.
///
/// # Errors
/// When the database cannot be read.
pub async fn at(
    connection: &mut PgConnection,
    consumer: &Consumer,
    partition: i32,
    offset: i64,
) -> Result<Vec<Letter>, Trouble> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        columns!(),
        " FROM dead_letters d WHERE d.group_id = $1 AND d.topic = $2 AND d.partition = $3 AND d.\"offset\" = $4 \
         ORDER BY d.log_book, d.run"
    ))
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .bind(offset)
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(letter).collect::<Result<_, _>>()?)
}

/// Where a task waits that was sent to work again.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Waiting {
    /// Why it waits.
    pub kind: String,
    /// Its run.
    pub run: i16,
    /// Attempts of this run that ended without success.
    pub attempts: i16,
    /// Since when.
    pub parked_at: DateTime<Utc>,
}

/// The parked task at a record's place, if there is one.
///
/// # Errors
/// When the database cannot be read.
pub async fn waiting(
    connection: &mut PgConnection,
    consumer: &Consumer,
    place: LetterPlace,
) -> Result<Option<Waiting>, Trouble> {
    let row = sqlx::query(
        "SELECT kind::text AS kind, run, attempts, parked_at FROM parked_tasks \
         WHERE group_id = $1 AND topic = $2 AND partition = $3 AND log_book = $4 AND \"offset\" = $5",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(place.partition)
    .bind(place.log_book)
    .bind(place.offset)
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Waiting {
        kind: row.try_get("kind")?,
        run: row.try_get("run")?,
        attempts: row.try_get("attempts")?,
        parked_at: row.try_get("parked_at")?,
    }))
}

fn letter(row: &PgRow) -> Result<Letter, sqlx::Error> {
    let task_id: Option<Uuid> = row.try_get("task_id")?;
    let redriven_at: Option<DateTime<Utc>> = row.try_get("redriven_at")?;
    let redriven_by: Option<String> = row.try_get("redriven_by")?;
    let discarded_at: Option<DateTime<Utc>> = row.try_get("discarded_at")?;
    let discarded_by: Option<String> = row.try_get("discarded_by")?;
    let discard_reason: Option<String> = row.try_get("discard_reason")?;
    Ok(Letter {
        place: LetterPlace {
            partition: row.try_get("partition")?,
            log_book: row.try_get("log_book")?,
            offset: row.try_get("offset")?,
            run: row.try_get("run")?,
        },
        task_id: task_id.and_then(|id| TaskId::try_from(id).ok()),
        tenant: row.try_get("tenant")?,
        task_type: row.try_get("task_type")?,
        reason: row.try_get("reason")?,
        error: row.try_get("error")?,
        attempts: row.try_get("attempts")?,
        key: row.try_get("record_key")?,
        record_time: row.try_get("record_time")?,
        created_at: row.try_get("created_at")?,
        redriven: redriven_at.map(|at| (at, redriven_by)),
        discarded: discarded_at.map(|at| (at, discarded_by, discard_reason)),
        bytes: row.try_get("bytes")?,
    })
}

/// Headers out of the table's JSON: an object of arrays, a name with each of its values in order.
fn headers_of(text: &str) -> Vec<(String, Vec<u8>)> {
    let Ok(serde_json::Value::Object(names)) = serde_json::from_str(text) else {
        return Vec::new();
    };
    let mut headers = Vec::with_capacity(names.len());
    for (name, values) in names {
        if let serde_json::Value::Array(values) = values {
            for value in values {
                if let serde_json::Value::String(value) = value {
                    headers.push((name.clone(), value.into_bytes()));
                }
            }
        }
    }
    headers
}
