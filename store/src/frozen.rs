//! Ending the sessions of owners that froze in the middle of sending.
//!
//! Postgres ends a session that is idle in a transaction, but it waits for ever for the rest of a COPY or of
//! a message, whatever the timeouts say, as long as the other end's machine is up: a stopped process holds
//! its partitions' rows then. Whoever has the right to claim these rows has the right to end such a session;
//! an owner that was merely slow connects again and repeats its flush.

use sqlx::PgConnection;

use crate::trouble::Trouble;

/// Ends writers' sessions that hold rows of positions and have kept the server waiting for over five
/// seconds. Returns how many. Sessions of roles that this one may not end are left alone.
///
/// # Errors
/// When the database cannot be asked.
pub async fn end(connection: &mut PgConnection) -> Result<i64, Trouble> {
    let ended = sqlx::query_scalar(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(frozen.pid)) FROM ( \
           SELECT DISTINCT a.pid FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid \
           WHERE l.relation = 'partition_progress'::regclass AND l.granted AND a.datname = current_database() \
             AND a.application_name = 'millrace-writer' AND pg_has_role(a.usesysid, 'USAGE') \
             AND a.state = 'active' AND a.wait_event = 'ClientRead' \
             AND a.query_start < clock_timestamp() - interval '5 s' \
         ) frozen",
    )
    .fetch_one(connection)
    .await?;
    Ok(ended)
}
