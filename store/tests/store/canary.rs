//! Failures that are never a task's fault.

use std::time::Duration;

use millrace_store::End;
use millrace_store::Outcome::Result as Done;

use crate::claim::wait_for_lock_waiters;
use crate::events::{events, keyed};
use crate::world::{World, flush_of, records, share};

const REFUSE_ALL: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
     PERFORM nextval('refusals'); RAISE EXCEPTION 'not today'; END $$; \
     CREATE SEQUENCE refusals; \
     CREATE TRIGGER refuse BEFORE INSERT ON task_results FOR EACH ROW EXECUTE FUNCTION refuse()";

#[tokio::test]
async fn finding_05_a_database_that_refuses_every_row_is_waited_for_and_blames_no_task() {
    let world = World::new("refuses_all").await;
    world.sql(REFUSE_ALL).await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let batch = events(20);
    let healed = async {
        // Each attempt and each canary draws a number: by then both have been refused several times.
        while world.number("SELECT last_value FROM refusals").await < 14 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.sql("DROP TRIGGER refuse ON task_results").await;
    };
    let (outcomes, ()) = tokio::join!(world.land(&mut writer, &mut owner, &batch), healed);
    assert_eq!(outcomes, [Done; 20]);
    assert_eq!(world.number("SELECT count(*) FROM dead_letters").await, 0);
    assert!(writer.take_incidents().outages >= 6);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn finding_05_a_missing_day_is_an_outage_and_is_made() {
    let world = World::new("missing_day").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let today = "to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')";
    world
        .sql(&format!(
            "DO $$ BEGIN EXECUTE 'DROP TABLE task_results_' || {today}; EXECUTE 'DROP TABLE task_dedup_' || {today}; END $$"
        ))
        .await;
    let outcomes = world
        .land(&mut writer, &mut owner, &[keyed("a"), keyed("b")])
        .await;
    assert_eq!(outcomes, [Done; 2]);
    // Of two days at once, the rows go by the parent, which misses the day in other words.
    let yesterday = "to_char((now() AT TIME ZONE 'UTC')::date - 1, 'YYYYMMDD')";
    world
        .sql(&format!(
            "DO $$ BEGIN EXECUTE 'DROP TABLE task_results_' || {yesterday}; END $$"
        ))
        .await;
    let batch = [crate::events::born_in_days(-1), crate::events::event()];
    assert_eq!(world.land(&mut writer, &mut owner, &batch).await, [Done; 2]);
    assert_eq!(world.number("SELECT count(*) FROM dead_letters").await, 0);
    assert_eq!(writer.take_incidents().refusals, 0);
}

#[tokio::test]
async fn finding_05_a_day_that_cannot_be_made_blames_no_task() {
    let world = World::new("unmakeable_day").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let yesterday = "to_char((now() AT TIME ZONE 'UTC')::date - 1, 'YYYYMMDD')";
    // A view sits where the table should be made.
    world
        .sql(&format!(
            "DO $$ BEGIN EXECUTE 'DROP TABLE task_results_' || {yesterday}; \
             EXECUTE 'CREATE VIEW task_results_' || {yesterday} || ' AS SELECT 1 AS one'; END $$"
        ))
        .await;
    let batch = [crate::events::born_in_days(-1), crate::events::event()];
    let flush = flush_of(vec![share(&owner, records(0, &batch))]);
    let patience = tokio::time::timeout(
        Duration::from_secs(12),
        writer.flush(&flush, &world.decoders),
    )
    .await;
    assert!(patience.is_err(), "it waits");
    assert_eq!(writer.take_incidents().refusals, 0);
    world
        .sql(&format!(
            "DO $$ BEGIN EXECUTE 'DROP VIEW task_results_' || {yesterday}; END $$"
        ))
        .await;
    assert_eq!(world.land(&mut writer, &mut owner, &batch).await, [Done; 2]);
}

#[tokio::test]
async fn finding_28_a_partition_whose_row_is_locked_holds_up_none_of_the_others() {
    let world = World::new("locked_row").await;
    let (first, second) = (world.claim(0).await, world.claim(1).await);
    let mut blocker = world.operations().await;
    sqlx::raw_sql(
        "SET idle_in_transaction_session_timeout = 0; BEGIN; SELECT FROM partition_progress WHERE partition = 0 FOR UPDATE",
    )
    .execute(&mut blocker)
    .await
    .unwrap();
    let flush = flush_of(vec![
        share(&first, records(0, &events(2))),
        share(&second, records(0, &events(2))),
    ]);
    let mut writer = world.writer();
    let freed = async {
        wait_for_lock_waiters(&world, 1).await;
        while world.progress(1).await.next_offset == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        sqlx::raw_sql("ROLLBACK")
            .execute(&mut blocker)
            .await
            .unwrap();
    };
    let (ends, ()) = tokio::join!(world.flush(&mut writer, &flush), freed);
    assert!(ends.iter().all(|end| matches!(end, End::Landed { .. })));
}
