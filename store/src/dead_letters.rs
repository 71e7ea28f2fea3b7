//! The table of dead letters: records set aside inside the flush that settles them.
//!
//! A dead letter is written with its raw bytes and origin, and, where the task's id is usable and free,
//! with a failed result, so that whoever asks for the task hears of it.

use millrace_schemas::TaskEventRef;
use sqlx::PgConnection;

use crate::copy::Status;
use crate::position::Consumer;
use crate::rows::{DeadLetter, Settling, is_storable_ms, storable, uuid_of};
use crate::trouble::Trouble;

/// Longest error text kept, in bytes.
const ERROR_BYTES: usize = 2_000;

/// A dead letter about to be written.
pub(crate) struct Setting<'a> {
    pub partition: i32,
    /// The book with which the partition's log began: offsets of another log name other records.
    pub log_book: i32,
    pub record: &'a Settling,
    pub letter: &'a DeadLetter,
    /// The event, when the bytes decode.
    pub event: Option<TaskEventRef<'a>>,
    /// Whether a failed result goes with it, where the id is known and free.
    pub with_failed_result: bool,
}

/// Writes the letters and the failed results that go with them. A letter that is there already, from an
/// earlier reading of the same offset, stays as it is.
pub(crate) async fn write(
    connection: &mut PgConnection,
    consumer: &Consumer,
    letters: &[Setting<'_>],
) -> Result<(), Trouble> {
    for setting in letters {
        write_letter(connection, consumer, setting).await?;
        if setting.with_failed_result {
            write_failed_result(connection, consumer, setting).await?;
        }
    }
    Ok(())
}

async fn write_letter(
    connection: &mut PgConnection,
    consumer: &Consumer,
    setting: &Setting<'_>,
) -> Result<(), Trouble> {
    let Setting {
        partition,
        record,
        letter,
        event,
        log_book,
        ..
    } = setting;
    let task_id = event.map(|event| event.task_id).or(letter.task_id);
    let tenant = event
        .map(|event| event.tenant.to_owned())
        .or_else(|| letter.tenant.clone());
    let key = letter
        .key
        .as_deref()
        .or_else(|| event.as_ref().and_then(TaskEventRef::record_key));
    sqlx::query(
        "INSERT INTO dead_letters (group_id, topic, partition, log_book, \"offset\", run, task_id, tenant, task_type, reason, \
           error, attempts, record_key, record_value, headers, record_time) \
         VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8, $9, $10, $11, $12, $13, $14::text::json, to_timestamp($15::bigint / 1000.0)) \
         ON CONFLICT DO NOTHING",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(partition)
    .bind(log_book)
    .bind(record.offset)
    .bind(task_id.map(uuid_of))
    .bind(tenant.map(|tenant| storable(&tenant, 255)))
    .bind(event.map(|event| event.task_type))
    .bind(letter.reason.as_str())
    .bind(storable(&letter.error, ERROR_BYTES))
    .bind(i16::from(matches!(letter.reason, crate::rows::Reason::RowRefused)))
    .bind(key)
    .bind(record.value.as_ref())
    .bind(headers_json(&letter.headers))
    .bind(Some(record.timestamp_ms).filter(is_storable_ms))
    .execute(connection)
    .await?;
    Ok(())
}

/// Headers as a JSON object of arrays; a value that is no UTF-8 is shown with replacement characters, and
/// NUL is replaced, since `json` text could not be read back with it.
fn headers_json(headers: &[(String, Vec<u8>)]) -> String {
    let mut object = serde_json::Map::new();
    for (name, value) in headers {
        let text = storable(&String::from_utf8_lossy(value), 8_192);
        let values = object
            .entry(storable(name, 255))
            .or_insert_with(|| serde_json::Value::Array(Vec::new()));
        if let serde_json::Value::Array(values) = values {
            values.push(serde_json::Value::String(text));
        }
    }
    serde_json::Value::Object(object).to_string()
}

/// The error column of a failed result: a fixed code and a text for people, nothing of the payload.
pub(crate) fn error_json(letter: &DeadLetter) -> String {
    serde_json::json!({ "code": letter.reason.as_str(), "message": storable(&letter.error, ERROR_BYTES) }).to_string()
}

async fn write_failed_result(
    connection: &mut PgConnection,
    consumer: &Consumer,
    setting: &Setting<'_>,
) -> Result<(), Trouble> {
    let Setting {
        partition,
        record,
        letter,
        event,
        ..
    } = setting;
    let Some(task_id) = event.map(|event| event.task_id).or(letter.task_id) else {
        return Ok(());
    };
    let tenant = event
        .map(|event| event.tenant.to_owned())
        .or_else(|| letter.tenant.clone())
        .unwrap_or_default();
    let fingerprint = event.map_or([0; 16], |event| event.fingerprint().0);
    // An undecodable record's id comes from a header, that is, from a stranger: a day outside the window has
    // no table, and the letter alone must do.
    sqlx::query(
        "INSERT INTO task_results (task_id, submitted_at, completed_at, \"offset\", partition, day, status, run, attempts, \
           fingerprint, topic, tenant, task_type, key, content_type, error) \
         SELECT $1, $2, clock_timestamp(), $3, $4, born.day, $5::text::task_status, 0, 0, $6, $7, $8, $9, $10, $11, $12::text::json \
         FROM (SELECT DATE '1970-01-01' + $13 AS day) born \
         WHERE EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
           WHERE i.inhparent = 'task_results'::regclass AND NOT i.inhdetachpending \
           AND c.relname = 'task_results_' || to_char(born.day, 'YYYYMMDD')) \
         ON CONFLICT DO NOTHING",
    )
    .bind(uuid_of(task_id))
    .bind(chrono::DateTime::from_timestamp_micros(submitted_at(event.as_ref(), task_id)).unwrap_or_default())
    .bind(record.offset)
    .bind(partition)
    .bind(Status::Failed.as_str())
    .bind(uuid::Uuid::from_bytes(fingerprint))
    .bind(&consumer.topic)
    .bind(storable(&tenant, 255))
    .bind(event.map_or("", |event| event.task_type))
    .bind(event.and_then(|event| event.key))
    .bind(event.map_or("", |event| event.content_type))
    .bind(error_json(letter))
    .bind(task_id.birth_day().days_since_epoch())
    .execute(connection)
    .await?;
    Ok(())
}

fn submitted_at(event: Option<&TaskEventRef<'_>>, id: millrace_schemas::TaskId) -> i64 {
    event.map_or_else(
        || {
            i64::try_from(id.born_ms())
                .unwrap_or(0)
                .saturating_mul(1_000)
        },
        |event| event.submitted_at,
    )
}
