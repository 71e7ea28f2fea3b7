//! What is woken when, how much of it at once, and for whom.

use std::time::Duration;

use millrace_schemas::TaskEvent;
use millrace_store::parked::{self, WokenKey};
use millrace_store::{Due, Ending, ParkKind};

use crate::aside::{follows, land_to, lane, ordered, parks, retries, settles, wake, wake_with};
use crate::events::event;
use crate::world::{Held, World};

async fn more(world: &World, held: &Held, key: &WokenKey, most: usize) -> WokenKey {
    let mut connection = world.operations().await;
    let last = key.tasks.last().unwrap();
    let (claim, after) = (
        (held.partition, held.fence.claim),
        (last.log_book, last.offset),
    );
    let bytes = 1_000_000;
    parked::more_of_key(
        &mut connection,
        &world.consumer,
        claim,
        key.key_hash,
        after,
        most,
        bytes,
    )
    .await
    .unwrap()
}

fn offsets(key: &WokenKey) -> Vec<i64> {
    key.tasks.iter().map(|task| task.offset).collect()
}

#[tokio::test]
async fn finding_06_a_due_key_wakes_its_lowest_offset_first_and_the_rest_in_log_order() {
    let world = World::new("lowest").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    // Parked out of order, and the highest last asked for the earliest time.
    let tasks: Vec<TaskEvent> = (0..5).map(|_| ordered("a")).collect();
    let later = vec![follows(1, &tasks[1]), retries(4, &tasks[4], 600)];
    land_to(&world, &mut writer, &mut owner, later, 0).await;
    let earlier = vec![
        retries(0, &tasks[0], 600),
        follows(2, &tasks[2]),
        retries(3, &tasks[3], 0),
    ];
    land_to(&world, &mut writer, &mut owner, earlier, 5).await;
    let woken = wake_with(&world, &owner, |waking| waking.most_tasks = 2).await;
    let [key] = &woken.keys[..] else {
        panic!("{woken:?}");
    };
    assert_eq!(
        (offsets(key), key.more, key.key_hash),
        (vec![0, 1], true, lane(&tasks[0]))
    );
    // Of a load the first is counted: the others have not started when it kills its worker.
    let counted = "SELECT string_agg(\"offset\"::text, ',' ORDER BY \"offset\") FROM parked_tasks WHERE wakes = 1";
    assert_eq!(world.text(counted).await.as_deref(), Some("0"));
    let rest = more(&world, &owner, key, 2).await;
    assert_eq!((offsets(&rest), rest.more), (vec![2, 3], true));
    let rest = more(&world, &owner, &rest, 2).await;
    assert_eq!((offsets(&rest), rest.more), (vec![4], false));
    let rest = more(&world, &owner, &rest, 2).await;
    assert_eq!((offsets(&rest), rest.more), (vec![], false));
}

#[tokio::test]
async fn finding_04_a_load_is_counted_for_the_first_of_its_key_and_not_for_those_behind_it() {
    let world = World::new("wakes_first").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks: Vec<TaskEvent> = (0..3).map(|_| ordered("a")).collect();
    let batch = vec![
        retries(0, &tasks[0], 0),
        follows(1, &tasks[1]),
        follows(2, &tasks[2]),
    ];
    land_to(&world, &mut writer, &mut owner, batch, 3).await;
    for load in 1..5 {
        owner = world.claim(0).await;
        let woken = wake(&world, &owner).await;
        let wakes: Vec<u16> = woken.keys[0].tasks.iter().map(|task| task.wakes).collect();
        assert_eq!(wakes, [load, 0, 0]);
    }
}

#[tokio::test]
async fn finding_06_what_the_former_owner_had_in_the_air_is_seen_by_a_load_after_the_claim() {
    let world = World::new("load_after_claim").await;
    let (mut writer, former) = (world.writer(), world.claim(0).await);
    let mut share = crate::world::share(&former, vec![retries(0, &event(), 0)]);
    share.may_repeat = false;
    // The flush stands right before its COMMIT, and the claim waits for it.
    let mut gate = world.operations().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE parked_keys IN ACCESS EXCLUSIVE MODE")
        .execute(&mut gate)
        .await
        .unwrap();
    let flush = crate::world::flush_of(vec![share]);
    let (_, woken) = tokio::join!(world.flush(&mut writer, &flush), async {
        crate::claim::wait_for_lock_waiters(&world, 1).await;
        let claiming = async { world.claim_as(0, "worker-b").await };
        let open = async {
            crate::claim::wait_for_lock_waiters(&world, 2).await;
            sqlx::raw_sql("COMMIT").execute(&mut gate).await.unwrap();
        };
        let (owner, ()) = tokio::join!(claiming, open);
        assert_eq!(owner.next, 1);
        wake(&world, &owner).await
    });
    assert_eq!(offsets(&woken.keys[0]), [0]);
}

#[tokio::test]
async fn finding_06_a_load_waits_for_a_flush_that_ends_the_task_and_does_not_wake_it_again() {
    let world = World::new("wake_and_flush").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    land_to(
        &world,
        &mut writer,
        &mut owner,
        vec![retries(0, &event(), 0)],
        1,
    )
    .await;
    let task = wake(&world, &owner).await.keys.remove(0).tasks.remove(0);
    let mut gate = world.operations().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE parked_keys IN SHARE ROW EXCLUSIVE MODE")
        .execute(&mut gate)
        .await
        .unwrap();
    let end = vec![settles(&task, Ending::Payload)];
    let mut held = owner;
    let (_, woken) = tokio::join!(land_to(&world, &mut writer, &mut held, end, 1), async {
        crate::claim::wait_for_lock_waiters(&world, 1).await;
        let open = async {
            crate::claim::wait_for_lock_waiters(&world, 2).await;
            sqlx::raw_sql("COMMIT").execute(&mut gate).await.unwrap();
        };
        tokio::join!(wake(&world, &owner), open).0
    });
    assert!(woken.keys.is_empty());
}

#[tokio::test]
async fn law_05_a_worker_that_lost_its_partition_wakes_nothing() {
    let world = World::new("wake_fenced").await;
    let (mut writer, mut former) = (world.writer(), world.claim(0).await);
    let later = parks(1, &event(), ParkKind::Delayed, Due::At(0));
    let batch = vec![retries(0, &event(), 0), later];
    world.land_records(&mut writer, &mut former, batch).await;
    let owner = world.claim_as(0, "worker-b").await;
    let woken = wake(&world, &former).await;
    assert!(woken.keys.is_empty() && woken.delayed.is_empty() && woken.next_due.is_none());
    assert_eq!(world.number("SELECT sum(wakes) FROM parked_tasks").await, 0);
    let woken = wake(&world, &owner).await;
    assert_eq!((woken.keys.len(), woken.delayed.len()), (1, 1));
    let rest = more(&world, &former, &woken.keys[0], 1).await;
    assert!(rest.tasks.is_empty());
}

#[tokio::test]
async fn keys_in_memory_and_keys_whose_head_is_paused_are_left_alone() {
    let world = World::new("paused").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let of = |key: &str, task_type: &str, tenant: &str| TaskEvent {
        task_type: task_type.into(),
        tenant: tenant.into(),
        ..ordered(key)
    };
    // The head of b is paused, only a follower of c is.
    let tasks = [
        of("a", "mail", "acme"),
        of("b", "report", "acme"),
        of("b", "mail", "acme"),
        of("c", "mail", "acme"),
        of("c", "report", "acme"),
        of("d", "mail", "globex"),
    ];
    let batch = (0..).zip(&tasks).map(|(at, task)| retries(at, task, 0));
    let batch: Vec<_> = batch
        .chain([
            parks(6, &of("e", "report", "acme"), ParkKind::Delayed, Due::At(0)),
            parks(7, &of("a", "mail", "acme"), ParkKind::Delayed, Due::At(0)),
            parks(8, &of("f", "mail", "acme"), ParkKind::Delayed, Due::At(0)),
        ])
        .collect();
    world.land_records(&mut writer, &mut owner, batch).await;
    let busy = [(0, lane(&tasks[0]))];
    let (types, tenants) = (["report".to_owned()], ["globex".to_owned()]);
    let claims = [millrace_store::parked::HeldPartition {
        partition: 0,
        claim: owner.fence.claim,
        read_to: None,
    }];
    let waking = parked::Waking {
        claims: &claims,
        busy: &busy,
        paused_types: &types,
        paused_tenants: &tenants,
        cancels: &[],
        most_tasks: 100,
        most_bytes: 1_000_000,
    };
    let mut connection = world.operations().await;
    let woken = parked::wake(&mut connection, &world.consumer, &waking)
        .await
        .unwrap();
    let keys: Vec<_> = woken.keys.iter().map(offsets).collect();
    assert_eq!(keys, [vec![3, 4]]);
    let later: Vec<_> = woken.delayed.iter().map(|task| task.offset).collect();
    assert_eq!(later, [8]);
}

#[tokio::test]
async fn a_wake_that_leaves_delayed_tasks_behind_says_so() {
    let world = World::new("wake_full").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks: Vec<TaskEvent> = (0..5).map(|n| ordered(&n.to_string())).collect();
    let batch: Vec<_> = (0..)
        .zip(&tasks)
        .map(|(at, task)| parks(at, task, ParkKind::Delayed, Due::At(0)))
        .collect();
    world.land_records(&mut writer, &mut owner, batch).await;
    for (most, loaded, is_full) in [(8, 4, true), (100, 5, false)] {
        let woken = wake_with(&world, &owner, |waking| waking.most_tasks = most).await;
        assert_eq!((woken.delayed.len(), woken.is_full), (loaded, is_full));
    }
}

#[tokio::test]
async fn law_08_a_wake_loads_no_more_than_it_may_and_every_key_gets_its_share() {
    let world = World::new("wake_bounds").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let large = |key: &str| TaskEvent {
        payload: vec![b'1'; 10_000],
        ..ordered(key)
    };
    let tasks: Vec<TaskEvent> = ["a", "a", "a", "b", "b", "b"].map(large).into();
    let batch = (0..).zip(&tasks).map(|(at, task)| retries(at, task, 0));
    world
        .land_records(&mut writer, &mut owner, batch.collect())
        .await;
    let loaded = |woken: &parked::Wake| {
        let mut keys: Vec<_> = woken.keys.iter().map(offsets).collect();
        keys.sort_unstable();
        keys
    };
    let by_count = wake_with(&world, &owner, |waking| waking.most_tasks = 4).await;
    assert_eq!(loaded(&by_count), [[0, 1], [3, 4]]);
    assert!(by_count.keys.iter().all(|key| key.more));
    let by_bytes = wake_with(&world, &owner, |waking| waking.most_bytes = 25_000).await;
    assert_eq!(loaded(&by_bytes), [[0], [3]]);
    // One that is larger than all that may be loaded is loaded alone.
    let one = wake_with(&world, &owner, |waking| waking.most_bytes = 1).await;
    assert_eq!(loaded(&one).concat().len(), 1);
}

#[tokio::test]
async fn finding_15_a_deadline_ends_a_follower_and_a_request_ends_any_without_waking_the_lane() {
    let world = World::new("to_be_ended").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let past = TaskEvent {
        deadline: Some(1_700_000_000_000_000),
        ..ordered("a")
    };
    let head = ordered("a");
    let batch = vec![
        retries(0, &head, 600),
        follows(1, &past),
        follows(2, &ordered("a")),
    ];
    world.land_records(&mut writer, &mut owner, batch).await;
    let cancels = [head.task_id];
    let mut connection = world.operations().await;
    millrace_store::cancels::request(&mut connection, head.task_id, None, "ann")
        .await
        .unwrap();
    let claims = [millrace_store::parked::HeldPartition {
        partition: 0,
        claim: owner.fence.claim,
        read_to: None,
    }];
    let waking = parked::Waking {
        claims: &claims,
        busy: &[],
        paused_types: &[],
        paused_tenants: &[],
        cancels: &cancels,
        most_tasks: 100,
        most_bytes: 1_000_000,
    };
    let woken = parked::wake(&mut connection, &world.consumer, &waking)
        .await
        .unwrap();
    assert!(woken.keys.is_empty());
    let of = |tasks: &[parked::Parked]| tasks.iter().map(|task| task.offset).collect::<Vec<_>>();
    assert_eq!(
        (of(&woken.expired), of(&woken.cancelled)),
        (vec![1], vec![0])
    );
    assert_eq!(world.number("SELECT sum(wakes) FROM parked_tasks").await, 0);
}

#[tokio::test]
async fn the_next_time_is_the_earliest_of_keys_tasks_for_later_and_deadlines() {
    let world = World::new("next_due").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    assert_eq!(wake(&world, &owner).await.next_due, None);
    let nearly = |found: Option<Duration>, seconds: u64| {
        let found = found.unwrap();
        found <= Duration::from_secs(seconds) && found > Duration::from_secs(seconds - 60)
    };
    let far = TaskEvent {
        deadline: Some(4_000_000_000_000_000),
        ..event()
    };
    let batch = vec![retries(0, &far, 9_000)];
    world.land_records(&mut writer, &mut owner, batch).await;
    assert!(nearly(wake(&world, &owner).await.next_due, 9_000));
    let later = parks(
        1,
        &event(),
        ParkKind::Delayed,
        Due::In(Duration::from_secs(6_000)),
    );
    world
        .land_records(&mut writer, &mut owner, vec![later])
        .await;
    assert!(nearly(wake(&world, &owner).await.next_due, 6_000));
    world
        .sql("UPDATE parked_tasks SET deadline = now() + interval '3000 s' WHERE \"offset\" = 0")
        .await;
    assert!(nearly(wake(&world, &owner).await.next_due, 3_000));
}

#[tokio::test]
async fn the_keys_and_the_depth_of_a_partition_are_told_to_its_owner() {
    let world = World::new("each_key").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks = [ordered("a"), ordered("b"), ordered("b"), event()];
    let mut batch: Vec<_> = (0..)
        .zip(&tasks)
        .map(|(at, task)| follows(at, task))
        .collect();
    batch.push(parks(4, &ordered("c"), ParkKind::Delayed, Due::At(0)));
    world.land_records(&mut writer, &mut owner, batch).await;
    let mut connection = world.operations().await;
    let mut keys = Vec::new();
    parked::each_key(&mut connection, &world.consumer, 0, |key, depth| {
        keys.push((key, depth))
    })
    .await
    .unwrap();
    let mut expected =
        [(&tasks[0], 1), (&tasks[1], 2), (&tasks[3], 1)].map(|(of, depth)| (lane(of), depth));
    expected.sort_unstable();
    assert_eq!(keys, expected);
    let depth = parked::depth_of(&mut connection, &world.consumer, 0).await;
    assert_eq!(depth.unwrap(), 5);
    let none = parked::depth_of(&mut connection, &world.consumer, 1).await;
    assert_eq!(none.unwrap(), 0);
}

#[tokio::test]
async fn finding_04_a_parked_task_that_kills_its_worker_shows_in_its_wakes() {
    let world = World::new("wakes").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let batch = vec![retries(0, &event(), 0)];
    world.land_records(&mut writer, &mut owner, batch).await;
    for crash in 1..4 {
        owner = world.claim(0).await;
        let woken = wake(&world, &owner).await;
        assert_eq!(woken.keys[0].tasks[0].wakes, crash);
    }
}

/// Finding 6, while the log is read again: a task that an earlier owner parked beyond the position must not start
/// before those of its key that are in the log only.
#[tokio::test]
async fn finding_06_a_parked_task_beyond_what_has_been_read_again_is_not_woken() {
    let world = World::new("wake_reach").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let batch = vec![
        retries(1, &ordered("a"), 0),
        retries(2, &ordered("b"), 0),
        follows(4, &ordered("a")),
        parks(5, &ordered("c"), ParkKind::Delayed, Due::At(0)),
        follows(6, &ordered("a")),
    ];
    land_to(&world, &mut writer, &mut owner, batch, 0).await;
    let mut connection = world.operations().await;
    for (read_to, expected, delayed) in [
        (Some(1), vec![], 0),
        (Some(2), vec![(vec![1], true)], 0),
        (Some(5), vec![(vec![1, 4], true), (vec![2], false)], 0),
        (Some(6), vec![(vec![1, 4], true), (vec![2], false)], 1),
        (None, vec![(vec![1, 4, 6], false), (vec![2], false)], 1),
    ] {
        let claims = [parked::HeldPartition {
            partition: 0,
            claim: owner.fence.claim,
            read_to: read_to.map(|offset| (1, offset)),
        }];
        let waking = parked::Waking {
            claims: &claims,
            busy: &[],
            paused_types: &[],
            paused_tenants: &[],
            cancels: &[],
            most_tasks: 100,
            most_bytes: 1_000_000,
        };
        let woken = parked::wake(&mut connection, &world.consumer, &waking)
            .await
            .unwrap();
        let mut keys: Vec<_> = woken
            .keys
            .iter()
            .map(|key| (offsets(key), key.more))
            .collect();
        keys.sort();
        assert_eq!(keys, expected, "read to {read_to:?}");
        assert_eq!(woken.delayed.len(), delayed, "read to {read_to:?}");
    }
}
