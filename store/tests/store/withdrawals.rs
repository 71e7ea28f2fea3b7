//! Ranges of the log that are taken back, so that they run again.

use std::collections::HashMap;

use millrace_schemas::{TaskEvent, TaskId};
use millrace_store::deployment::Deployment;
use millrace_store::moves::{self, Move, Moved, Why, Withdrawn};
use millrace_store::{
    Counts, End, FenceLoss, Outcome, ParkKind, Trouble, cancels, operations_log, position,
};

use crate::cancels::pending;
use crate::events::{event, events, keyed, raw};
use crate::status::park;
use crate::world::{World, flush_of, records, share};

fn one(to: i64) -> Move {
    Move {
        partition: 0,
        to,
        another_log: false,
        seen: None,
    }
}

fn log() -> Deployment {
    Deployment {
        group: "workers".into(),
        topic: "tasks".into(),
        cluster_id: Some("c".into()),
        topic_id: Some("t".into()),
        partition_count: 1,
    }
}

async fn try_withdraw(world: &World, one: Move) -> Result<Moved, Trouble> {
    let mut connection = world.operations().await;
    let why = Why {
        reason: "the handler was wrong".into(),
        by: "ann".into(),
    };
    let moved = moves::withdraw(&mut connection, &world.consumer, &[one], &log(), &why).await?;
    Ok(moved[0].clone())
}

async fn withdraw(world: &World, to: i64) -> Moved {
    try_withdraw(world, one(to)).await.unwrap()
}

async fn count(world: &World, to: i64) -> Withdrawn {
    let mut connection = world.operations().await;
    moves::count_withdrawn(&mut connection, &world.consumer, &[one(to)])
        .await
        .unwrap()[0]
}

async fn rows(world: &World) -> HashMap<&'static str, i64> {
    let mut found = HashMap::new();
    for table in [
        "task_results",
        "dead_letters",
        "task_dedup",
        "parked_tasks",
        "parked_keys",
    ] {
        found.insert(
            table,
            world.number(&format!("SELECT count(*) FROM {table}")).await,
        );
    }
    found
}

/// A key before the range, a repeat of it in the range, a key in the range, and bytes without meaning.
fn batch() -> Vec<TaskEvent> {
    vec![
        event(),
        keyed("before"),
        event(),
        keyed("before"),
        keyed("within"),
        event(),
    ]
}

#[tokio::test]
async fn finding_16_a_withdrawn_range_goes_from_every_table_and_its_book_begins_with_nothing() {
    let world = World::new("withdraw").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks = batch();
    let mut all = records(0, &tasks);
    all.push(raw(6, "no event"));
    let first = world.land_records(&mut writer, &mut owner, all).await;
    let mut connection = world.operations().await;
    for task in [&tasks[2], &tasks[0]] {
        cancels::request(&mut connection, task.task_id, None, "ann")
            .await
            .unwrap();
    }
    let before = rows(&world).await;
    let expected = Withdrawn {
        partition: 0,
        results: 3,
        dead_letters: 1,
        parked: 0,
        dedup_keys: 1,
    };
    assert_eq!(count(&world, 2).await, expected);
    assert_eq!(rows(&world).await, before, "counting changes nothing");

    let moved = withdraw(&world, 2).await;

    assert_eq!(
        (moved.from, moved.to, moved.lost, moved.replayed),
        (Some(7), 2, 0, 5)
    );
    assert_eq!(moved.withdrawn, Some(expected));
    let row = world.progress(0).await;
    assert_eq!(
        (row.first_offset, row.next_offset, row.high_offset),
        (2, 2, 2)
    );
    assert_eq!(row.counts, Counts::default());
    assert_eq!(world.findings().await, Vec::<String>::new());
    assert_eq!(pending(&mut connection, 9).await, [tasks[0].task_id]);
    let heights = position::highest_ever(&mut connection, &world.consumer)
        .await
        .unwrap();
    assert_eq!(
        heights[&0], 7,
        "Kafka may remember as much as was ever settled"
    );
    let told = operations_log::latest(&mut connection, 1)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(
        (told.by.as_str(), told.reason.as_deref()),
        ("ann", Some("the handler was wrong"))
    );
    assert_eq!(told.detail["partitions"][0]["withdrawn"]["results"], 3);

    // The worker that runs meanwhile writes nothing more, and whoever claims next runs it all again.
    let late = flush_of(vec![share(&owner, records(7, &events(1)))]);
    let ends = world.flush(&mut writer, &late).await;
    assert!(matches!(ends[..], [End::Lost(FenceLoss::Taken)]));
    let mut owner = world.claim(0).await;
    assert_eq!(owner.next, 2);
    let mut again = records(2, &tasks[2..]);
    again.push(raw(6, "no event"));
    let second = world
        .land_records(&mut world.writer(), &mut owner, again)
        .await;
    assert_eq!(second, first[2..]);
    assert_eq!(
        second[1],
        Outcome::Duplicate,
        "the key before the range is still owned"
    );
    assert_eq!(rows(&world).await, before);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn parked_tasks_of_the_range_go_and_their_keys_keep_count_of_the_others() {
    let world = World::new("withdraw_parked").await;
    world.claim(0).await;
    world
        .sql("UPDATE partition_progress SET next_offset = 10, high_offset = 10, parked = 4, results = 6")
        .await;
    let shared = TaskId::mint();
    park(&world, 1, shared, ParkKind::Retry).await;
    for (offset, kind) in [(3, ParkKind::Delayed), (4, ParkKind::Running)] {
        park(&world, offset, TaskId::mint(), kind).await;
    }
    let key = uuid::Uuid::from_bytes(*shared.as_bytes());
    park(&world, 5, TaskId::mint(), ParkKind::Behind).await;
    world
        .sql(&format!(
            "DELETE FROM parked_keys WHERE key_hash = (SELECT key_hash FROM parked_tasks WHERE \"offset\" = 5); \
             UPDATE parked_tasks SET key_hash = '{key}' WHERE \"offset\" = 5; \
             UPDATE parked_keys SET depth = 2 WHERE key_hash = '{key}'"
        ))
        .await;

    let moved = withdraw(&world, 3).await;

    assert_eq!(moved.withdrawn.unwrap().parked, 3);
    assert_eq!(world.number("SELECT \"offset\" FROM parked_tasks").await, 1);
    let left = "SELECT string_agg(key_hash::text || ' ' || depth, ',') FROM parked_keys";
    assert_eq!(world.text(left).await, Some(format!("{key} 1")));
}

#[tokio::test]
async fn what_other_partitions_and_other_logs_left_stays() {
    let world = World::new("withdraw_others").await;
    let mut writer = world.writer();
    let (mut zero, mut other) = (world.claim(0).await, world.claim(1).await);
    for held in [&mut zero, &mut other] {
        let mut all = records(0, &[keyed(&held.partition.to_string()), event()]);
        all.push(raw(2, "no event"));
        world.land_records(&mut writer, held, all).await;
    }
    let mut connection = world.operations().await;
    let why = Why {
        reason: "made again".into(),
        by: "ann".into(),
    };
    let away = Move {
        another_log: true,
        ..one(0)
    };
    moves::apply(&mut connection, &world.consumer, &[away], &log(), &why)
        .await
        .unwrap();
    let mut zero = world.claim(0).await;
    world.land(&mut writer, &mut zero, &[keyed("new")]).await;

    let withdrawn = withdraw(&world, 0).await.withdrawn.unwrap();

    assert_eq!(
        (
            withdrawn.results,
            withdrawn.dead_letters,
            withdrawn.dedup_keys
        ),
        (1, 0, 1)
    );
    let expected = HashMap::from([
        ("task_results", 4),
        ("dead_letters", 2),
        ("task_dedup", 2),
        ("parked_tasks", 0),
        ("parked_keys", 0),
    ]);
    assert_eq!(rows(&world).await, expected);
    assert_eq!(world.findings().await, Vec::<String>::new());
    let refused = try_withdraw(&world, away).await;
    assert!(matches!(refused, Err(Trouble::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn a_withdrawal_twice_or_of_a_partition_nobody_claimed_takes_nothing() {
    let world = World::new("withdraw_twice").await;
    let moved = withdraw(&world, 4).await;
    assert_eq!((moved.from, moved.withdrawn), (None, None));
    let mut owner = world.claim(0).await;
    world
        .land(&mut world.writer(), &mut owner, &events(3))
        .await;
    let taken = [withdraw(&world, 4).await, withdraw(&world, 4).await]
        .map(|moved| moved.withdrawn.unwrap().results);
    assert_eq!(taken, [3, 0]);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn finding_16_what_waits_parked_in_a_skipped_range_is_not_lost() {
    let world = World::new("forward_parked").await;
    let mut owner = world.claim(0).await;
    world
        .land(&mut world.writer(), &mut owner, &events(2))
        .await;
    // Offset 2 blocks the frontier; 3 is parked beyond it, 4 was a letter and is parked again.
    park(&world, 3, TaskId::mint(), ParkKind::Retry).await;
    park(&world, 4, TaskId::mint(), ParkKind::Redrive).await;
    world
        .sql(
            "INSERT INTO dead_letters (group_id, topic, partition, log_book, \"offset\", run, reason, error, attempts, \
               record_value, headers, redriven_at) \
             VALUES ('workers', 'tasks', 0, 1, 4, 0, 'permanent', '', 1, '', '{}', now())",
        )
        .await;
    let mut connection = world.operations().await;
    let why = Why {
        reason: "a test".into(),
        by: "me".into(),
    };
    let moved = moves::apply(&mut connection, &world.consumer, &[one(6)], &log(), &why)
        .await
        .unwrap();
    assert_eq!(moved[0].lost, 2);
    let counts = Counts {
        parked: 2,
        lost: 2,
        ..Counts::default()
    };
    assert_eq!(world.progress(0).await.counts, counts);
    assert_eq!(world.findings().await, Vec::<String>::new());
}
