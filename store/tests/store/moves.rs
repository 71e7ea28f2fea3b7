//! Positions that are moved by hand.

use millrace_store::deployment::{self, Deployment};
use millrace_store::moves::{self, Move, Moved, Why};
use millrace_store::position;
use millrace_store::{Counts, End, FenceLoss, Outcome};

use crate::events::{event, events, raw};
use crate::world::{Held, World, flush_of, record_share, records, share};

fn log(topic_id: &str) -> Deployment {
    Deployment {
        group: "workers".into(),
        topic: "tasks".into(),
        cluster_id: Some("c".into()),
        topic_id: Some(topic_id.into()),
        partition_count: 2,
    }
}

async fn move_to(world: &World, to: i64, another_log: bool) -> Moved {
    let mut connection = world.operations().await;
    let one = Move {
        partition: 0,
        to,
        another_log,
        seen: None,
    };
    let why = Why {
        reason: "a test".into(),
        by: "me".into(),
    };
    let log = log(if another_log { "new" } else { "old" });
    moves::apply(&mut connection, &world.consumer, &[one], &log, &why)
        .await
        .unwrap()
        .remove(0)
}

async fn landed(world: &World, count: usize) -> Held {
    let mut owner = world.claim(0).await;
    world
        .land(&mut world.writer(), &mut owner, &events(count))
        .await;
    owner
}

#[tokio::test]
async fn a_range_skipped_forward_is_booked_as_lost() {
    let world = World::new("forward").await;
    let owner = landed(&world, 10).await;
    let moved = move_to(&world, 25, false).await;
    assert_eq!(
        (moved.from, moved.to, moved.lost, moved.replayed),
        (Some(10), 25, 15, 0)
    );
    let row = world.progress(0).await;
    assert_eq!(
        (row.book, row.first_offset, row.next_offset, row.high_offset),
        (2, 10, 25, 25)
    );
    assert_eq!(
        row.counts,
        Counts {
            lost: 15,
            ..Counts::default()
        }
    );
    assert_eq!(world.findings().await, Vec::<String>::new());

    // The worker that runs meanwhile cannot go on where it was, and a new claim goes on there.
    let ends = world
        .flush(
            &mut world.writer(),
            &flush_of(vec![share(&owner, records(10, &events(1)))]),
        )
        .await;
    assert!(matches!(ends[..], [End::Lost(FenceLoss::Taken)]));
    let mut owner = world.claim(0).await;
    assert_eq!(owner.next, 25);
    world
        .land(&mut world.writer(), &mut owner, &events(3))
        .await;
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn finding_16_what_had_landed_in_a_skipped_range_is_not_lost() {
    let world = World::new("forward_settled").await;
    let owner = landed(&world, 2).await;
    // Offset 2 blocks the frontier; 3 to 5 have landed beyond it.
    let mut beyond = records(3, &events(2));
    beyond.push(raw(5, "no event"));
    let ends = world
        .flush(
            &mut world.writer(),
            &flush_of(vec![record_share(&owner, beyond, 2)]),
        )
        .await;
    assert!(matches!(ends[..], [End::Landed { .. }]));
    let moved = move_to(&world, 7, false).await;
    assert_eq!(moved.lost, 2);
    let row = world.progress(0).await;
    let counts = Counts {
        results: 2,
        dead_letters: 1,
        lost: 2,
        ..Counts::default()
    };
    assert_eq!(row.counts, counts);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn moving_back_reads_again_and_what_has_a_result_stays_as_it_is() {
    let world = World::new("back").await;
    let tasks = events(10);
    let mut owner = world.claim(0).await;
    let mut all = records(0, &tasks);
    all.push(raw(10, "no event"));
    world
        .land_records(&mut world.writer(), &mut owner, all)
        .await;
    let completed = "SELECT max(completed_at)::text FROM task_results WHERE status = 'success'";
    let before = world.text(completed).await;

    let moved = move_to(&world, 4, false).await;
    assert_eq!((moved.lost, moved.replayed), (0, 7));
    assert_eq!(world.findings().await, Vec::<String>::new());
    let mut owner = world.claim(0).await;
    assert_eq!(owner.next, 4);
    let mut again = records(4, &tasks[4..]);
    again.push(raw(10, "no event"));
    let outcomes = world
        .land_records(&mut world.writer(), &mut owner, again)
        .await;

    assert_eq!(outcomes[..6], [Outcome::Result; 6]);
    assert_eq!(outcomes[6], Outcome::DeadLetter);
    assert_eq!(
        (world.results().await, world.text(completed).await),
        (10, before)
    );
    let row = world.progress(0).await;
    assert_eq!(
        (row.counts.results, row.counts.dead_letters, row.high_offset),
        (6, 1, 11)
    );
    assert_eq!(world.number("SELECT count(*) FROM dead_letters").await, 1);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn finding_02_another_log_begins_with_nothing_settled_and_keeps_the_old_ones_rows() {
    let world = World::new("another_log").await;
    let mut connection = world.operations().await;
    deployment::pin(&mut connection, &log("old")).await.unwrap();
    let mut owner = world.claim(0).await;
    let mut old = records(0, &events(5));
    old.push(raw(5, "no event"));
    world
        .land_records(&mut world.writer(), &mut owner, old)
        .await;

    let moved = move_to(&world, 0, true).await;

    assert_eq!((moved.lost, moved.replayed), (0, 0));
    let pinned = deployment::pinned(&mut connection).await.unwrap().unwrap();
    assert_eq!(pinned.topic_id.as_deref(), Some("new"));
    let row = world.progress(0).await;
    assert_eq!(
        (row.first_offset, row.next_offset, row.high_offset),
        (0, 0, 0)
    );
    // The same offsets name other records now, whose letters and results are their own.
    let mut owner = world.claim(0).await;
    let mut new = records(0, &events(5));
    new.push(raw(5, "another"));
    let outcomes = world
        .land_records(&mut world.writer(), &mut owner, new)
        .await;
    assert_eq!(outcomes[4..], [Outcome::Result, Outcome::DeadLetter]);
    assert_eq!(world.results().await, 10);
    assert_eq!(world.number("SELECT count(*) FROM dead_letters").await, 2);
    assert_eq!(world.findings().await, Vec::<String>::new());
    let heights = position::highest_ever(&mut connection, &world.consumer)
        .await
        .unwrap();
    assert_eq!(heights[&0], 6);
}

#[tokio::test]
async fn a_partition_without_a_row_gets_one_at_the_target() {
    let world = World::new("new_partition").await;
    let moved = move_to(&world, 42, false).await;
    assert_eq!((moved.from, moved.to, moved.lost), (None, 42, 0));
    let row = world.progress(0).await;
    assert_eq!((row.first_offset, row.next_offset), (42, 42));
    assert_eq!(world.claim(0).await.next, 42);
}

#[tokio::test]
async fn every_move_closes_a_book_that_is_kept_with_its_reason() {
    let world = World::new("history").await;
    landed(&world, 10).await;
    move_to(&world, 20, false).await;
    move_to(&world, 5, false).await;
    let mut connection = world.operations().await;
    let books = moves::history(&mut connection, &world.consumer, 10)
        .await
        .unwrap();
    let summary: Vec<(i32, i64, i64, i64)> = books
        .iter()
        .map(|book| {
            (
                book.book,
                book.first_offset,
                book.next_offset,
                book.moved_to,
            )
        })
        .collect();
    assert_eq!(summary, [(2, 10, 20, 5), (1, 0, 10, 20)]);
    assert_eq!(
        (books[0].reason.as_str(), books[0].moved_by.as_str()),
        ("a test", "me")
    );
    assert_eq!(
        moves::history(&mut connection, &world.consumer, 1)
            .await
            .unwrap()
            .len(),
        1
    );
    let heights = position::highest_ever(&mut connection, &world.consumer)
        .await
        .unwrap();
    assert_eq!(heights[&0], 20);
}

#[tokio::test]
async fn a_move_that_fails_moves_nothing() {
    let world = World::new("all_or_none").await;
    landed(&world, 3).await;
    world
        .sql("ALTER TABLE position_history ADD CHECK (moved_to < 100)")
        .await;
    let mut connection = world.operations().await;
    let why = Why {
        reason: String::new(),
        by: String::new(),
    };
    let moves = [
        Move {
            partition: 1,
            to: 7,
            another_log: false,
            seen: None,
        },
        Move {
            partition: 0,
            to: 100,
            another_log: false,
            seen: None,
        },
    ];
    let failed = moves::apply(&mut connection, &world.consumer, &moves, &log("x"), &why).await;
    assert!(failed.is_err());
    assert_eq!(
        world
            .number("SELECT count(*) FROM partition_progress")
            .await,
        1
    );
    assert_eq!(world.progress(0).await.next_offset, 3);
    let mut owner = world.claim(0).await;
    world
        .land(&mut world.writer(), &mut owner, &[event()])
        .await;
}
