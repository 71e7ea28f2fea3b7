//! The canary: tells a database that refuses a row from a database that is unwell.
//!
//! It writes a known-good row of the same shape on the same path and rolls it back. If that fails, nothing
//! can be said about the task's row, and waiting is right; if it passes, the task's row is at fault.

use millrace_schemas::{Fingerprint, TaskEventRef, TaskId};
use sqlx::{Connection, PgConnection};

use crate::connection::{Database, Purpose};
use crate::copy::{Body, CopyIn, RESULT_COLUMNS, ResultRow};
use crate::days;

/// What the canary found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// A good row goes in: what was refused was the task's row.
    Well,
    /// Even a good row does not go in, or nothing answers.
    Unwell(String),
}

/// Sends the canary on a connection of its own, since the writer's may be what is broken.
pub(crate) async fn send(database: &Database) -> Health {
    match fly(database).await {
        Ok(()) => Health::Well,
        Err(trouble) => Health::Unwell(trouble.to_string()),
    }
}

async fn fly(database: &Database) -> Result<(), crate::trouble::Trouble> {
    let mut connection = database.connect(Purpose::Writer).await?;
    let outcome = try_row(&mut connection).await;
    // Closing without COMMIT is the rollback; a connection that failed in a COPY must not be used again.
    drop(connection);
    outcome
}

async fn try_row(connection: &mut PgConnection) -> Result<(), crate::trouble::Trouble> {
    let today = days::today(connection).await?;
    let mut transaction = connection.begin().await?;
    let now_ms = u64::try_from(today.days_since_epoch()).unwrap_or(0) * 86_400_000;
    let event = TaskEventRef {
        task_id: TaskId::mint_at(now_ms),
        task_type: "millrace.canary",
        tenant: "millrace",
        key: None,
        dedup_key: None,
        submitted_at: i64::try_from(now_ms).unwrap_or(0) * 1_000,
        run_at: None,
        deadline: None,
        content_type: "application/json",
        reply: false,
        callback: None,
        payload: b"{\"canary\":true}",
    };
    let mut copy = CopyIn::begin(&mut transaction, "task_results", RESULT_COLUMNS).await?;
    copy.buffer().result(&ResultRow {
        event: &event,
        day: today,
        fingerprint: Fingerprint([0; 16]),
        topic: "canary",
        partition: 0,
        offset: 0,
        completed_at: event.submitted_at,
        body: Body::Payload,
    });
    copy.finish().await?;
    transaction.rollback().await?;
    Ok(())
}
