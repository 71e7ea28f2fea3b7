//! The table of dead letters: records set aside inside the flush that settles them.
//!
//! A dead letter is written with its raw bytes and origin, and, where the task's id is usable and free,
//! with a failed result, so that whoever asks for the task hears of it. A copy for other tools is put into
//! the outbox with it.

use millrace_schemas::TaskEventRef;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::copy::{Status, smallint};
use crate::headers::Headers;
use crate::position::Consumer;
use crate::present::placed;
use crate::rows::{DeadLetter, Settling, is_storable_ms, storable, uuid_of};
use crate::trouble::Trouble;

/// Longest error text kept, in bytes.
pub(crate) const ERROR_BYTES: usize = 2_000;
/// Most letters in one statement, and most bytes of their records.
const LETTERS: usize = 500;
const BYTES: usize = 4 * 1024 * 1024;

/// A dead letter about to be written.
pub(crate) struct Setting<'a> {
    pub partition: i32,
    /// The book with which the log of the record began: offsets of another log name other records.
    pub log_book: i32,
    /// Whether that is the log that is read now.
    pub in_open_log: bool,
    pub record: &'a Settling,
    pub letter: &'a DeadLetter,
    /// The event, when the bytes decode.
    pub event: Option<TaskEventRef<'a>>,
    /// Whether a failed result goes with it, where the id is known and free.
    pub with_failed_result: bool,
}

impl Setting<'_> {
    fn task_id(&self) -> Option<millrace_schemas::TaskId> {
        let own = self.event.map(|event| event.task_id);
        own.or(self.letter.task_id)
    }

    fn tenant(&self) -> Option<String> {
        let own = self.event.map(|event| event.tenant);
        let tenant = own.or(self.letter.tenant.as_deref())?;
        Some(storable(tenant, 255))
    }

    fn key(&self) -> Option<&[u8]> {
        let own = self.letter.key.as_deref();
        own.or_else(|| self.event.as_ref().and_then(TaskEventRef::record_key))
    }
}

/// Writes the letters, their copies for the outbox, and the failed results that go with them. A letter that is
/// there already, from an earlier reading of the same offset, stays as it is, unless it was sent to work again
/// and has come back by way of the log.
pub(crate) async fn write(
    connection: &mut PgConnection,
    consumer: &Consumer,
    letters: &[Setting<'_>],
) -> Result<(), Trouble> {
    let mut rest = letters;
    while !rest.is_empty() {
        let mut bytes = 0_usize;
        let fitting = rest.iter().take(LETTERS).take_while(|setting| {
            bytes = bytes.saturating_add(setting.record.value.len());
            bytes <= BYTES
        });
        let (chunk, others) = rest.split_at(fitting.count().max(1).min(rest.len()));
        rest = others;
        write_letters(connection, consumer, chunk).await?;
    }
    // Sorted, so that two writers that meet on ids wait in one direction only.
    let mut failed: Vec<&Setting<'_>> = letters
        .iter()
        .filter(|setting| setting.with_failed_result && setting.task_id().is_some())
        .collect();
    failed.sort_by_key(|setting| setting.task_id());
    for chunk in failed.chunks(LETTERS) {
        write_failed_results(connection, consumer, chunk).await?;
    }
    Ok(())
}

async fn write_letters(
    connection: &mut PgConnection,
    consumer: &Consumer,
    letters: &[Setting<'_>],
) -> Result<(), Trouble> {
    sqlx::query(
        "WITH written AS (INSERT INTO dead_letters AS d (group_id, topic, partition, log_book, \"offset\", run, task_id, tenant, \
             task_type, reason, error, attempts, record_key, record_value, headers, record_time) \
           SELECT $1, $2, f.partition, f.log_book, f.o, f.run, f.task_id, f.tenant, f.task_type, f.reason, f.error, f.attempts, \
             f.record_key, f.record_value, f.headers::json, to_timestamp(f.record_ms / 1000.0) \
           FROM unnest($3::int[], $4::int[], $5::bigint[], $6::smallint[], $7::uuid[], $8::text[], $9::text[], $10::text[], \
               $11::text[], $12::smallint[], $13::bytea[], $14::bytea[], $15::text[], $16::bigint[]) \
             AS f(partition, log_book, o, run, task_id, tenant, task_type, reason, error, attempts, record_key, record_value, \
               headers, record_ms) \
           ON CONFLICT (group_id, topic, partition, log_book, \"offset\", run) DO UPDATE SET task_id = excluded.task_id, \
             tenant = excluded.tenant, task_type = excluded.task_type, reason = excluded.reason, error = excluded.error, \
             attempts = excluded.attempts, record_key = excluded.record_key, record_value = excluded.record_value, \
             headers = excluded.headers, record_time = excluded.record_time, created_at = now(), redriven_at = NULL, \
             redriven_by = NULL, discarded_at = NULL, discarded_by = NULL, discard_reason = NULL \
           WHERE d.redriven_at IS NOT NULL \
           RETURNING partition, log_book, \"offset\", run) \
         INSERT INTO outbox (kind, group_id, topic, partition, log_book, \"offset\", run) \
         SELECT 'dead_letter_copy', $1, $2, partition, log_book, \"offset\", run FROM written",
    )
    .bind(&consumer.group)
    .bind(&consumer.topic)
    .bind(column(letters, |setting| setting.partition))
    .bind(column(letters, |setting| setting.log_book))
    .bind(column(letters, |setting| setting.record.offset))
    .bind(column(letters, |setting| setting.record.run()))
    .bind(column(letters, |setting| setting.task_id().map(uuid_of)))
    .bind(column(letters, Setting::tenant))
    .bind(column(letters, |setting| setting.event.map(|event| event.task_type)))
    .bind(column(letters, |setting| setting.letter.reason.as_str()))
    .bind(column(letters, |setting| storable(&setting.letter.error, ERROR_BYTES)))
    .bind(column(letters, |setting| smallint(setting.record.attempts)))
    .bind(column(letters, Setting::key))
    .bind(column(letters, |setting| &*setting.record.value))
    .bind(column(letters, |setting| headers_json(&setting.record.headers)))
    .bind(column(letters, |setting| {
        Some(setting.record.timestamp_ms).filter(is_storable_ms)
    }))
    .execute(connection)
    .await?;
    Ok(())
}

/// Headers as a JSON object of arrays; a value that is no UTF-8 is shown with replacement characters, and
/// NUL is replaced, since `json` text could not be read back with it.
fn headers_json(headers: &Headers) -> String {
    let mut object = serde_json::Map::new();
    for (name, value) in headers.iter() {
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
fn error_json(letter: &DeadLetter) -> String {
    serde_json::json!({ "code": letter.reason.as_str(), "message": storable(&letter.error, ERROR_BYTES) }).to_string()
}

async fn write_failed_results(
    connection: &mut PgConnection,
    consumer: &Consumer,
    letters: &[&Setting<'_>],
) -> Result<(), Trouble> {
    let ids: Vec<_> = letters.iter().filter_map(|one| one.task_id()).collect();
    let column_of_ids = |field: fn(millrace_schemas::TaskId) -> i32| {
        ids.iter().map(|id| field(*id)).collect::<Vec<_>>()
    };
    // An undecodable record's id comes from a header, that is, from a stranger: a day outside the window has
    // no table, and the letter alone must do.
    sqlx::query(
        "INSERT INTO task_results (task_id, submitted_at, completed_at, \"offset\", partition, day, status, run, attempts, \
           fingerprint, topic, tenant, task_type, key, content_type, error) \
         SELECT f.task_id, timestamptz 'epoch' + f.submitted * interval '1 microsecond', clock_timestamp(), f.o, f.partition, \
           born.day, $3::text::task_status, f.run, f.attempts, f.fingerprint, $1, f.tenant, f.task_type, f.key, \
           f.content_type, f.error::json \
         FROM unnest($2::uuid[], $4::bigint[], $5::bigint[], $6::int[], $7::int[], $8::smallint[], $9::smallint[], $10::uuid[], \
             $11::text[], $12::text[], $13::text[], $14::text[], $15::text[]) \
           WITH ORDINALITY AS f(task_id, submitted, o, partition, born, run, attempts, fingerprint, tenant, task_type, key, \
             content_type, error, nth), \
           LATERAL (SELECT DATE '1970-01-01' + f.born AS day) born \
         WHERE EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
           WHERE i.inhparent = 'task_results'::regclass AND NOT i.inhdetachpending \
           AND c.relname = 'task_results_' || to_char(born.day, 'YYYYMMDD')) \
         ORDER BY f.nth ON CONFLICT DO NOTHING",
    )
    .bind(&consumer.topic)
    .bind(ids.iter().map(|id| uuid_of(*id)).collect::<Vec<_>>())
    .bind(Status::Failed.as_str())
    .bind(column(letters, |one| {
        one.task_id().map(|id| submitted_at(one.event.as_ref(), id))
    }))
    .bind(column(letters, |one| placed(one.record.offset, one.in_open_log)))
    .bind(column(letters, |one| one.partition))
    .bind(column_of_ids(|id| id.birth_day().days_since_epoch()))
    .bind(column(letters, |one| one.record.run()))
    .bind(column(letters, |one| smallint(one.record.attempts)))
    .bind(column(letters, |one| {
        Uuid::from_bytes(one.event.map_or([0; 16], |event| event.fingerprint().0))
    }))
    .bind(column(letters, |one| one.tenant().unwrap_or_default()))
    .bind(column(letters, |one| one.event.map_or("", |event| event.task_type)))
    .bind(column(letters, |one| one.event.and_then(|event| event.key)))
    .bind(column(letters, |one| one.event.map_or("", |event| event.content_type)))
    .bind(column(letters, |one| error_json(one.letter)))
    .execute(connection)
    .await?;
    Ok(())
}

fn column<'a, I, T>(of: &'a [I], field: impl FnMut(&'a I) -> T) -> Vec<T> {
    of.iter().map(field).collect()
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
