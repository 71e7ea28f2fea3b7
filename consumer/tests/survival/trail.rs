//! Who wrote what, told by the database: every worker has a role of its own, and triggers note the role.
//!
//! A flush locks its partitions' rows first, so within a partition the notes are in the order in which the
//! transactions took the fence.

use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::stage::Stage;

/// A change of a partition's row that was committed.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Step {
    pub partition: i32,
    pub writer: String,
    pub claim: Option<Uuid>,
    pub claimed: bool,
    /// Rows of results written by the same transaction for this partition.
    pub rows: i64,
}

const TRIGGERS: &str = "
CREATE TABLE trail (number bigserial PRIMARY KEY, partition int, writer text, claim uuid, claimed boolean, xid xid8);
CREATE TABLE trail_rows (partition int, writer text, xid xid8, row_offset bigint);
CREATE INDEX ON trail_rows (xid, partition);
CREATE INDEX ON trail (xid, partition);
CREATE FUNCTION note_step() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO trail (partition, writer, claim, claimed, xid)
    VALUES (new.partition, session_user, new.claim, new.claim IS DISTINCT FROM old.claim, pg_current_xact_id());
  RETURN NULL; END $$;
CREATE FUNCTION note_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO trail_rows VALUES (new.partition, session_user, pg_current_xact_id(), new.\"offset\");
  RETURN NULL; END $$;
CREATE TRIGGER steps AFTER UPDATE ON partition_progress FOR EACH ROW
  WHEN (new.seq <> old.seq) EXECUTE FUNCTION note_step();
CREATE TRIGGER rows AFTER INSERT ON task_results FOR EACH ROW EXECUTE FUNCTION note_row();
";

/// Begins the trail; from now on every step and every row leaves a note.
pub async fn begin(stage: &Stage) {
    let mut connection = stage.connect().await;
    sqlx::raw_sql(TRIGGERS)
        .execute(&mut connection)
        .await
        .unwrap();
}

/// A role of the worker's own; returns the address to connect with.
pub async fn role(stage: &Stage, name: &str) -> String {
    let mut connection = stage.connect().await;
    let role = format!("{name}_{}", stage.schema);
    let make = format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'worker'");
    sqlx::query(AssertSqlSafe(make))
        .execute(&mut connection)
        .await
        .unwrap();
    let (_, address) = stage.database_url.split_once('@').unwrap();
    format!("postgres://{role}:worker@{address}")
}

/// All steps in order.
pub async fn steps(connection: &mut PgConnection) -> Vec<Step> {
    sqlx::query_as(
        "SELECT partition, writer, claim, claimed, \
           (SELECT count(*) FROM trail_rows r WHERE r.partition = t.partition AND r.xid = t.xid) AS rows \
         FROM trail t ORDER BY number",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

/// Rows whose transaction did not move the partition's row: written past the fence.
pub async fn rows_past_the_fence(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM trail_rows r WHERE NOT EXISTS \
           (SELECT FROM trail t WHERE t.partition = r.partition AND t.xid = r.xid AND NOT t.claimed)",
    )
    .fetch_one(connection)
    .await
    .unwrap()
}

/// Ends the roles of this stage, so that the cluster is left as it was found.
pub async fn end(stage: &Stage, names: &[&str]) {
    let mut connection = stage.connect().await;
    for name in names {
        let drop = format!("DROP ROLE IF EXISTS {name}_{}", stage.schema);
        sqlx::query(AssertSqlSafe(drop))
            .execute(&mut connection)
            .await
            .unwrap();
    }
}
