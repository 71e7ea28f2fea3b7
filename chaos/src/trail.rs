//! Who wrote what, told by the database: every worker has a role of its own, and triggers note the role.
//!
//! A write of a partition takes its row of `partition_progress` first, so the notes of one partition are in
//! the order in which its writers held the fence. The triggers are the harness's, set on a round's own
//! schema; the product knows nothing of them.

use sqlx::PgConnection;
use uuid::Uuid;

const TRIGGERS: &str = r#"
CREATE TABLE chaos_steps (number bigserial PRIMARY KEY, partition int NOT NULL, seq bigint NOT NULL,
  claim uuid, claimed boolean NOT NULL, next_offset bigint NOT NULL, writer text NOT NULL, xid xid8 NOT NULL);
CREATE TABLE chaos_writes (number bigserial PRIMARY KEY, what text NOT NULL, partition int NOT NULL,
  place bigint NOT NULL, run int NOT NULL, task_id uuid, writer text NOT NULL, xid xid8 NOT NULL);
CREATE FUNCTION chaos_note_step() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO chaos_steps (partition, seq, claim, claimed, next_offset, writer, xid) VALUES (new.partition,
    new.seq, new.claim, tg_op = 'INSERT' OR new.claim IS DISTINCT FROM old.claim, new.next_offset, session_user, pg_current_xact_id());
  RETURN NULL; END $$;
CREATE FUNCTION chaos_note_write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO chaos_writes (what, partition, place, run, task_id, writer, xid)
    VALUES (tg_argv[0], new.partition, new."offset", new.run, new.task_id, session_user, pg_current_xact_id());
  RETURN NULL; END $$;
CREATE TRIGGER chaos_steps AFTER INSERT OR UPDATE ON partition_progress FOR EACH ROW EXECUTE FUNCTION chaos_note_step();
CREATE TRIGGER chaos_results AFTER INSERT ON task_results FOR EACH ROW EXECUTE FUNCTION chaos_note_write('result');
CREATE TRIGGER chaos_letters AFTER INSERT ON dead_letters FOR EACH ROW EXECUTE FUNCTION chaos_note_write('letter');
CREATE TRIGGER chaos_parked AFTER INSERT ON parked_tasks FOR EACH ROW EXECUTE FUNCTION chaos_note_write('parked');
"#;

/// One change of a partition's row that was committed.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Step {
    /// Its place among all notes.
    pub number: i64,
    /// The partition.
    pub partition: i32,
    /// The sequence number that it left.
    pub seq: i64,
    /// The claim that it left.
    pub claim: Option<Uuid>,
    /// Whether it changed the claim.
    pub claimed: bool,
    /// The position that it left.
    pub next_offset: i64,
    /// The role that made it.
    pub writer: String,
    /// Its transaction.
    pub xid: String,
}

/// One row that was committed.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Write {
    /// `result`, `letter` or `parked`.
    pub what: String,
    /// The partition of its record.
    pub partition: i32,
    /// The offset of its record.
    pub place: i64,
    /// The run.
    pub run: i32,
    /// The task, where it is known.
    pub task_id: Option<Uuid>,
    /// The role that wrote it.
    pub writer: String,
    /// Its transaction.
    pub xid: String,
}

/// Begins the trail in the connection's schema.
///
/// # Errors
/// When the database refuses.
pub async fn begin(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(TRIGGERS).execute(connection).await?;
    Ok(())
}

/// All steps, in order.
///
/// # Errors
/// When the database refuses.
pub async fn steps(connection: &mut PgConnection) -> Result<Vec<Step>, sqlx::Error> {
    sqlx::query_as(
        "SELECT number, partition, seq, claim, claimed, next_offset, writer, xid::text AS xid \
         FROM chaos_steps ORDER BY number",
    )
    .fetch_all(connection)
    .await
}

/// All writes, in order.
///
/// # Errors
/// When the database refuses.
pub async fn writes(connection: &mut PgConnection) -> Result<Vec<Write>, sqlx::Error> {
    sqlx::query_as(
        "SELECT what, partition, place, run, task_id, writer, xid::text AS xid \
         FROM chaos_writes ORDER BY number",
    )
    .fetch_all(connection)
    .await
}
