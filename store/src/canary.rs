//! The canary: tells a database that refuses a row from a database that is unwell.
//!
//! It writes known-good rows of the same shapes, for the same days, and rolls them back. If that fails,
//! nothing can be said about the task's row, and waiting is right; if it passes, the task's row is at fault.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use millrace_schemas::{Day, Fingerprint, TaskEventRef, TaskId};
use sqlx::{Connection, PgConnection};

use crate::connection::{Database, Purpose};
use crate::copy::{Body, CopyIn, DEDUP_COLUMNS, RESULT_COLUMNS, ResultRow};
use crate::days::{self, Daily};
use crate::dead_letters::{self, Setting};
use crate::headers::Headers;
use crate::parking;
use crate::position::Consumer;
use crate::rows::{DeadLetter, Ending, Origin, Reason, Settling};
use crate::trouble::Trouble;

const DAY_MS: u64 = 86_400_000;

/// What the canary found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// A good row goes in: what was refused was the task's row.
    Well,
    /// Even a good row does not go in, or nothing answers.
    Unwell(String),
}

/// Longest that a canary may take: it is no better than its own time limit.
const DEADLINE: Duration = Duration::from_secs(20);

/// Sends the canary on a connection of its own, since the writer's may be what is broken. It writes a row
/// for each of `days`, a key, a dead letter and a parked task.
pub(crate) async fn send(database: &Database, days: &BTreeSet<Day>) -> Health {
    match tokio::time::timeout(DEADLINE, fly(database, days)).await {
        Ok(Ok(())) => Health::Well,
        Ok(Err(trouble)) => Health::Unwell(trouble.to_string()),
        Err(_) => Health::Unwell(format!("the canary took over {DEADLINE:?}")),
    }
}

async fn fly(database: &Database, days: &BTreeSet<Day>) -> Result<(), Trouble> {
    let mut connection = database.connect(Purpose::Writer).await?;
    // Closing without COMMIT is the rollback; a connection that failed in a COPY must not be used again.
    try_rows(&mut connection, days).await
}

async fn try_rows(connection: &mut PgConnection, days: &BTreeSet<Day>) -> Result<(), Trouble> {
    let mut transaction = connection.begin().await?;
    let today = days::today(&mut transaction).await?;
    let first = days.first().copied().unwrap_or(today);
    let first_ms = u64::try_from(first.days_since_epoch()).unwrap_or(0) * DAY_MS;
    let mut event = TaskEventRef {
        task_id: TaskId::mint_at(first_ms),
        task_type: "millrace.canary",
        tenant: "millrace",
        key: None,
        dedup_key: None,
        submitted_at: i64::try_from(first_ms).unwrap_or(0) * 1_000,
        run_at: None,
        deadline: None,
        content_type: "application/json",
        reply: false,
        callback: None,
        payload: b"{\"canary\":true}",
    };
    let mut copy = CopyIn::begin(&mut transaction, Daily::Results.table(), RESULT_COLUMNS).await?;
    for day in days.iter().copied().chain(days.is_empty().then_some(today)) {
        let born_ms = u64::try_from(day.days_since_epoch()).unwrap_or(0) * DAY_MS;
        event.task_id = TaskId::mint_at(born_ms);
        copy.buffer().result(&ResultRow {
            event: &event,
            day,
            fingerprint: Fingerprint([0; 16]),
            topic: "canary",
            partition: 0,
            offset: 0,
            completed_at: event.submitted_at,
            run: 0,
            attempts: 1,
            body: Body::Payload,
        });
    }
    copy.finish().await?;
    let table = Daily::Dedup.table_of(today);
    let mut copy = CopyIn::begin(&mut transaction, &table, DEDUP_COLUMNS).await?;
    let hash = TaskId::mint();
    copy.buffer()
        .dedup(hash.as_bytes(), event.task_id, Fingerprint([0; 16]), today);
    copy.finish().await?;
    try_aside(&mut transaction, event).await?;
    transaction.rollback().await?;
    Ok(())
}

/// A dead letter and a parked task.
async fn try_aside(connection: &mut PgConnection, event: TaskEventRef<'_>) -> Result<(), Trouble> {
    let consumer = Consumer {
        group: "millrace.canary".into(),
        topic: "canary".into(),
    };
    let letter = DeadLetter::about_event(Reason::RowRefused, "canary");
    let record = Settling {
        offset: 0,
        timestamp_ms: -1,
        value: Arc::default(),
        headers: Headers::default(),
        origin: Origin::Log,
        attempts: 0,
        ending: Ending::Payload,
    };
    let setting = Setting {
        partition: 0,
        log_book: 0,
        in_open_log: true,
        record: &record,
        letter: &letter,
        event: Some(event),
        with_failed_result: false,
    };
    dead_letters::write(connection, &consumer, &[setting]).await?;
    parking::try_row(connection, &consumer, &record, &event).await
}
