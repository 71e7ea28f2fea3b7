//! Who may write a partition: claims, losses of them, releases.

use std::time::Duration;

use millrace_store::position::{self, Fence};
use millrace_store::{End, FenceLoss};

use crate::events::{event, events};
use crate::world::{World, flush_of, held, records, share};

#[tokio::test]
async fn a_worker_that_lost_its_partition_cannot_write() {
    let world = World::new("lost").await;
    let old = world.claim_as(0, "a").await;
    let new = world.claim_as(0, "b").await;
    let flush = flush_of(vec![share(&old, records(0, &events(3)))]);

    let ends = world.flush(&mut world.writer(), &flush).await;

    assert!(matches!(ends[..], [End::Lost(FenceLoss::Taken)]));
    assert_eq!(world.results().await, 0);
    let row = world.progress(0).await;
    assert_eq!((row.next_offset, row.owner.as_deref()), (0, Some("b")));
    assert_eq!(held(&row), new);
}

#[tokio::test]
async fn one_lost_partition_does_not_hold_up_the_others_of_the_flush() {
    let world = World::new("share_lost").await;
    let mut kept = Vec::new();
    for partition in 0..3 {
        kept.push(world.claim(partition).await);
    }
    world.claim_as(1, "thief").await;
    let flush = flush_of(
        kept.iter()
            .map(|held| share(held, records(0, &events(2))))
            .collect(),
    );

    let ends = world.flush(&mut world.writer(), &flush).await;

    assert!(matches!(
        ends[..],
        [
            End::Landed { .. },
            End::Lost(FenceLoss::Taken),
            End::Landed { .. }
        ]
    ));
    assert_eq!(world.results().await, 4);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn finding_03_the_claim_that_comes_last_wins_and_the_true_owner_can_take_it_back() {
    let world = World::new("late_claim").await;
    let mut blocker = world.operations().await;
    world.claim(0).await;
    sqlx::raw_sql("BEGIN; SELECT FROM partition_progress WHERE partition = 0 FOR UPDATE")
        .execute(&mut blocker)
        .await
        .unwrap();
    // The claim of a worker that Kafka has dropped meanwhile waits in the database's queue.
    let late = tokio::spawn({
        let (database, consumer) = (world.database.clone(), world.consumer.clone());
        async move {
            let mut connection = database
                .connect(millrace_store::Purpose::Operations)
                .await
                .unwrap();
            position::claim(&mut connection, &consumer, &[0], "dropped").await
        }
    });
    wait_for_lock_waiters(&world, 1).await;
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut blocker)
        .await
        .unwrap();
    let dropped = held(&late.await.unwrap().unwrap()[0]);

    let mut owner = world.claim_as(0, "owner").await;
    let zombie = world
        .flush(
            &mut world.writer(),
            &flush_of(vec![share(&dropped, records(0, &events(1)))]),
        )
        .await;
    assert!(matches!(zombie[..], [End::Lost(FenceLoss::Taken)]));
    world
        .land(&mut world.writer(), &mut owner, &events(2))
        .await;
    assert_eq!(world.results().await, 2);
}

#[tokio::test]
async fn a_claim_returns_the_position_that_a_flush_in_the_air_leaves() {
    let world = World::new("flush_in_air").await;
    let held_by_a = world.claim_as(0, "a").await;
    // A flush that stands still between the fence and COMMIT.
    let mut slow = world.operations().await;
    sqlx::raw_sql("BEGIN; UPDATE partition_progress SET seq = seq + 1, next_offset = 200, results = 200 WHERE partition = 0")
        .execute(&mut slow)
        .await
        .unwrap();
    let claiming = tokio::spawn({
        let (database, consumer) = (world.database.clone(), world.consumer.clone());
        async move {
            let mut connection = database
                .connect(millrace_store::Purpose::Operations)
                .await
                .unwrap();
            position::claim(&mut connection, &consumer, &[0], "b").await
        }
    });
    wait_for_lock_waiters(&world, 1).await;
    sqlx::raw_sql("COMMIT").execute(&mut slow).await.unwrap();

    let claimed = claiming.await.unwrap().unwrap();

    assert_eq!(claimed[0].next_offset, 200);
    assert_eq!(claimed[0].seq, held_by_a.fence.seq + 2);
}

#[tokio::test]
async fn every_claim_has_an_id_of_its_own_and_only_rows_that_exist_are_claimed() {
    let world = World::new("claim_ids").await;
    for partition in [2, 0] {
        world.claim(partition).await;
    }
    let mut connection = world.operations().await;
    let claimed = position::claim(&mut connection, &world.consumer, &[2, 1, 0], "w")
        .await
        .unwrap();
    assert_eq!(claimed.len(), 2);
    assert_ne!(claimed[0].claim, claimed[1].claim);
}

#[tokio::test]
async fn a_partition_has_one_row_however_many_make_it_at_once() {
    let world = World::new("create").await;
    let makers: Vec<_> = (0..8)
        .map(|first| {
            let (database, consumer) = (world.database.clone(), world.consumer.clone());
            tokio::spawn(async move {
                let mut connection = database
                    .connect(millrace_store::Purpose::Operations)
                    .await
                    .unwrap();
                position::create(&mut connection, &consumer, 4, first)
                    .await
                    .unwrap();
            })
        })
        .collect();
    for maker in makers {
        maker.await.unwrap();
    }
    assert_eq!(
        world
            .number("SELECT count(*) FROM partition_progress")
            .await,
        1
    );
}

#[tokio::test]
async fn claims_without_a_flush_are_counted_as_unclean_until_a_flush_or_a_release() {
    let world = World::new("unclean").await;
    world.claim(0).await;
    world.claim(0).await;
    let mut owner = world.claim(0).await;
    assert_eq!(world.progress(0).await.unclean_starts, 3);

    world
        .land(&mut world.writer(), &mut owner, &[event()])
        .await;
    assert_eq!(world.progress(0).await.unclean_starts, 0);

    let owner = world.claim(0).await;
    let mut connection = world.operations().await;
    let released = position::release(&mut connection, &world.consumer, 0, owner.fence, None)
        .await
        .unwrap();
    assert!(released);
    let row = world.progress(0).await;
    assert_eq!((row.unclean_starts, row.claim), (0, None));
}

#[tokio::test]
async fn only_the_owner_can_release_and_a_released_partition_is_written_by_nobody() {
    let world = World::new("release").await;
    let owner = world.claim(0).await;
    let mut connection = world.operations().await;
    let stale = Fence {
        seq: owner.fence.seq - 1,
        ..owner.fence
    };
    assert!(
        !position::release(&mut connection, &world.consumer, 0, stale, None)
            .await
            .unwrap()
    );
    assert!(
        position::release(&mut connection, &world.consumer, 0, owner.fence, None)
            .await
            .unwrap()
    );
    assert!(
        !position::release(&mut connection, &world.consumer, 0, owner.fence, None)
            .await
            .unwrap()
    );

    let ends = world
        .flush(
            &mut world.writer(),
            &flush_of(vec![share(&owner, records(0, &events(1)))]),
        )
        .await;
    assert!(matches!(ends[..], [End::Lost(FenceLoss::Taken)]));
}

#[tokio::test]
async fn a_partition_without_a_row_is_lost_and_nothing_is_made_up() {
    let world = World::new("row_gone").await;
    let owner = world.claim(0).await;
    world.sql("DELETE FROM partition_progress").await;
    let ends = world
        .flush(
            &mut world.writer(),
            &flush_of(vec![share(&owner, records(0, &events(1)))]),
        )
        .await;
    assert!(matches!(ends[..], [End::Lost(FenceLoss::RowGone)]));
    assert_eq!(world.results().await, 0);
}

#[tokio::test]
async fn the_frontier_of_an_idle_partition_is_refreshed_by_its_owner_only() {
    let world = World::new("frontier").await;
    let owner = world.claim(0).await;
    let stranger = Fence {
        claim: uuid::Uuid::new_v4(),
        ..owner.fence
    };
    let mut connection = world.operations().await;
    for (fence, time, unmatched) in [
        (owner.fence, 1_000, vec![]),
        (stranger, 9_000, vec![0]),
        (owner.fence, i64::MAX, vec![]),
    ] {
        let idle = [(0, fence, time)];
        let found = position::refresh_frontier(&mut connection, &world.consumer, &idle).await;
        assert_eq!(found.unwrap(), unmatched);
    }
    let row = world.progress(0).await;
    assert_eq!((row.frontier_ms, row.seq), (Some(1_000), owner.fence.seq));
}

#[tokio::test]
async fn finding_01_an_idle_owner_notices_that_the_database_went_back() {
    let world = World::new("idle_back").await;
    let mut owner = world.claim(0).await;
    world
        .sql("CREATE TABLE then_progress AS TABLE partition_progress")
        .await;
    world
        .land(&mut world.writer(), &mut owner, &events(1))
        .await;
    world
        .sql("DELETE FROM partition_progress; INSERT INTO partition_progress SELECT * FROM then_progress")
        .await;
    let mut connection = world.operations().await;
    let idle = [(0, owner.fence, 1_000)];
    let found = position::refresh_frontier(&mut connection, &world.consumer, &idle).await;
    assert_eq!(found.unwrap(), [0]);
    assert_eq!(world.progress(0).await.frontier_ms, None);
}

/// Waits until so many sessions wait for a lock in this schema's tables.
pub async fn wait_for_lock_waiters(world: &World, count: i64) {
    let query = format!(
        "SELECT count(DISTINCT l.pid) FROM pg_locks l WHERE NOT l.granted AND \
         EXISTS (SELECT FROM pg_locks h JOIN pg_class c ON c.oid = h.relation \
           WHERE h.pid = l.pid AND c.relnamespace = '{}'::regnamespace)",
        world.schema
    );
    let reached = async {
        while world.number(&query).await < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), reached)
        .await
        .expect("somebody waits for a lock");
}
