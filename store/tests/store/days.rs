//! Days: made ahead, dropped by the database's clock, one a round, also after an interruption.

use std::time::{Duration, Instant};

use millrace_store::Outcome::{DeadLetter as Dead, Result as Done};
use millrace_store::Trouble;
use millrace_store::days::{self, Retention, Round};

use crate::events::{born_in_days, events};
use crate::world::World;

const TABLES: &str = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'task_results'::regclass AND NOT inhdetachpending";

/// One round of upkeep with another retention, tried again as a worker does while something holds it up: a detach
/// waits for every older snapshot of the database, those of other tests included.
async fn maintain(world: &World, result_days: u32) -> Round {
    let retention = Retention {
        result_days,
        dedup_days: 2,
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut connection = world.operations().await;
        match days::maintain(&mut connection, retention).await {
            Err(Trouble::Held(_)) if Instant::now() < deadline => {}
            round => return round.unwrap(),
        }
    }
}

#[tokio::test]
async fn the_window_and_the_days_ahead_have_a_table_and_a_second_round_does_nothing() {
    let world = World::new("window").await;
    assert_eq!(world.number(TABLES).await, 3 + 1 + 3);
    let round = maintain(&world, 3).await;
    assert_eq!((round.attached, round.dropped), (0, 0));
    let round = maintain(&world, 5).await;
    assert_eq!((round.attached, round.dropped), (2, 0));
}

#[tokio::test]
async fn finding_10_retention_drops_one_day_a_round_and_counts_what_went() {
    let world = World::new("retention").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let mut batch = events(2);
    batch.push(born_in_days(-3));
    batch.push(born_in_days(-2));
    world.land(&mut writer, &mut owner, &batch).await;
    for left in [6, 5, 5] {
        maintain(&world, 1).await;
        assert_eq!(world.number(TABLES).await, left);
    }
    assert_eq!(world.results().await, 2);
    assert_eq!(
        world
            .number("SELECT sum(results)::bigint FROM dropped_days")
            .await,
        2
    );
    // The book is older than the days, and still adds up; but a row that went otherwise is found.
    assert_eq!(world.findings().await, Vec::<String>::new());
    world.sql("DELETE FROM task_results").await;
    assert_eq!(world.findings().await.len(), 1);
}

#[tokio::test]
async fn a_task_born_on_a_day_that_is_gone_is_not_run_again() {
    let world = World::new("gone_day").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let old = born_in_days(-4);
    assert_eq!(world.land(&mut writer, &mut owner, &[old]).await, [Dead]);
    assert_eq!(world.results().await, 0);
}

#[tokio::test]
async fn finding_14_a_detach_that_was_interrupted_is_finished() {
    let world = World::new("detach").await;
    let day = world.text("SELECT min(relname::text) FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid WHERE inhparent = 'task_results'::regclass").await.unwrap();
    let mut reader = world.operations().await;
    sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM task_results")
        .execute(&mut reader)
        .await
        .unwrap();
    // The first half is committed, the second waits for the reader and is cut off.
    let mut connection = world.operations().await;
    let detach = format!(
        "SET statement_timeout = '300ms'; ALTER TABLE task_results DETACH PARTITION {day} CONCURRENTLY"
    );
    for statement in detach.split("; ") {
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
            .execute(&mut connection)
            .await;
        assert_eq!(done.is_err(), statement.starts_with("ALTER"));
    }
    sqlx::raw_sql("COMMIT").execute(&mut reader).await.unwrap();
    let pending = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'task_results'::regclass AND inhdetachpending";
    assert_eq!(world.number(pending).await, 1);

    // Writing goes on meanwhile, and a day that is still to be kept is not touched.
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    assert_eq!(
        world.land(&mut writer, &mut owner, &events(2)).await,
        [Done; 2]
    );
    assert_eq!(maintain(&world, 2).await.dropped, 1);
    assert_eq!(world.number(pending).await, 0);
    assert_eq!(
        world
            .number(&format!(
                "SELECT count(*) FROM pg_class WHERE relname = '{day}' AND relnamespace = current_schema()::regnamespace"
            ))
            .await,
        0
    );
}

#[tokio::test]
async fn a_drop_that_was_interrupted_after_the_detach_is_finished_and_counted_once() {
    let world = World::new("half_drop").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let old = born_in_days(-3);
    let table = format!(
        "task_results_{}",
        old.task_id.birth_day().to_string().replace('-', "")
    );
    world.land(&mut writer, &mut owner, &[old]).await;
    let mut connection = world.operations().await;
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "ALTER TABLE task_results DETACH PARTITION {table} CONCURRENTLY"
    )))
    .execute(&mut connection)
    .await
    .unwrap();
    assert_eq!(maintain(&world, 2).await.dropped, 1);
    assert_eq!(maintain(&world, 2).await.dropped, 0);
    assert_eq!(
        world
            .number("SELECT sum(results)::bigint FROM dropped_days")
            .await,
        1
    );
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_day_that_was_detached_and_is_kept_after_all_comes_back_with_its_rows() {
    let world = World::new("comes_back").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let old = born_in_days(-3);
    let table = format!(
        "task_results_{}",
        old.task_id.birth_day().to_string().replace('-', "")
    );
    world.land(&mut writer, &mut owner, &[old]).await;
    let mut connection = world.operations().await;
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "ALTER TABLE task_results DETACH PARTITION {table} CONCURRENTLY"
    )))
    .execute(&mut connection)
    .await
    .unwrap();
    let round = maintain(&world, 3).await;
    assert_eq!((round.attached, round.dropped), (1, 0));
    assert_eq!(world.results().await, 1);
}

#[tokio::test]
async fn finding_14_making_a_day_waits_for_no_writer_and_blocks_none() {
    let world = World::new("attach").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    // A writer that stands still with rows in the table, and a long report.
    let mut standing = world.operations().await;
    sqlx::raw_sql(
        "BEGIN; LOCK TABLE task_results IN ROW EXCLUSIVE MODE; SELECT count(*) FROM task_results",
    )
    .execute(&mut standing)
    .await
    .unwrap();
    let round = maintain(&world, 6).await;
    assert_eq!(round.attached, 3);
    assert_eq!(
        world.land(&mut writer, &mut owner, &events(1)).await,
        [Done]
    );
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut standing)
        .await
        .unwrap();
}

#[tokio::test]
async fn finding_14_dropping_a_day_gives_up_behind_a_report_and_blocks_no_writer() {
    let world = World::new("drop_waits").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let mut report = world.operations().await;
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM task_results")
        .execute(&mut report)
        .await
        .unwrap();
    let dropping = tokio::spawn({
        let database = world.database.clone();
        async move {
            let mut connection = database
                .connect(millrace_store::Purpose::Operations)
                .await
                .unwrap();
            let retention = Retention {
                result_days: 1,
                dedup_days: 2,
            };
            days::maintain(&mut connection, retention).await
        }
    });
    for _ in 0..20 {
        assert_eq!(
            world.land(&mut writer, &mut owner, &events(1)).await,
            [Done]
        );
    }
    sqlx::raw_sql("COMMIT").execute(&mut report).await.unwrap();
    // Whether it was cut off or came through, the next rounds finish what is left.
    let _ = dropping.await.unwrap();
    while maintain(&world, 1).await.dropped > 0 {}
    assert_eq!(world.number(TABLES).await, 1 + 1 + 3);
}

#[tokio::test]
async fn many_workers_may_keep_up_the_days_at_once() {
    let world = World::new("upkeep").await;
    let rounds: Vec<_> = (0..6)
        .map(|_| {
            let database = world.database.clone();
            tokio::spawn(async move {
                let mut connection = database
                    .connect(millrace_store::Purpose::Operations)
                    .await
                    .unwrap();
                let retention = Retention {
                    result_days: 12,
                    dedup_days: 2,
                };
                days::ensure(&mut connection, retention).await.unwrap()
            })
        })
        .collect();
    let mut made = 0;
    for round in rounds {
        made += round.await.unwrap();
    }
    assert_eq!(made, 9);
}
