//! Duplicates by deduplication key.

use millrace_schemas::TaskEvent;
use millrace_store::Outcome::{DeadLetter, Duplicate, Result as Done};

use crate::events::{event, keyed};
use crate::world::World;

#[tokio::test]
async fn finding_09_duplicates_in_one_batch_and_across_flushes_land_once() {
    let world = World::new("dedup").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let first = world
        .land(
            &mut writer,
            &mut owner,
            &[keyed("a"), keyed("b"), keyed("a")],
        )
        .await;
    let second = world
        .land(&mut writer, &mut owner, &[keyed("b"), keyed("c"), event()])
        .await;
    assert_eq!(first, [Done, Done, Duplicate]);
    assert_eq!(second, [Duplicate, Done, Done]);
    assert_eq!(world.results().await, 4);
    assert_eq!(world.number("SELECT count(*) FROM task_dedup").await, 3);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn finding_09_a_key_of_yesterday_still_counts_after_midnight_and_none_beyond_the_window() {
    let world = World::new("midnight").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    world
        .land(
            &mut writer,
            &mut owner,
            &[keyed("yesterday"), keyed("last_week")],
        )
        .await;
    world
        .sql("UPDATE task_dedup SET day = day - 1 WHERE task_id = (SELECT task_id FROM task_results WHERE \"offset\" = 0)")
        .await;
    world
        .sql("DELETE FROM task_dedup WHERE task_id = (SELECT task_id FROM task_results WHERE \"offset\" = 1)")
        .await;
    let outcomes = world
        .land(
            &mut writer,
            &mut owner,
            &[keyed("yesterday"), keyed("last_week")],
        )
        .await;
    assert_eq!(outcomes, [Duplicate, Done]);
    let rows = "SELECT count(*) FROM task_dedup";
    assert_eq!(world.number(rows).await, 2, "a repeat extends no window");
}

#[tokio::test]
async fn a_key_counts_on_every_day_of_the_window_and_not_before_it() {
    let world = World::new("week").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let keys = || ["d1", "d2", "gone"].map(keyed);
    world.land(&mut writer, &mut owner, &keys()).await;
    for (offset, days) in [(0, 1), (1, 2)] {
        world
            .sql(&format!(
                "UPDATE task_dedup SET day = day - {days} WHERE task_id = \
                 (SELECT task_id FROM task_results WHERE \"offset\" = {offset})"
            ))
            .await;
    }
    world
        .sql("DELETE FROM task_dedup WHERE task_id = (SELECT task_id FROM task_results WHERE \"offset\" = 2)")
        .await;
    // A writer of its own, as after a restart: it finds out anew which days hold keys.
    let mut writer = world.writer();
    let outcomes = world.land(&mut writer, &mut owner, &keys()).await;
    assert_eq!(outcomes, [Duplicate, Duplicate, Done]);
}

#[tokio::test]
async fn finding_09_a_replayed_repeat_extends_no_window() {
    let world = World::new("window").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let (first, again) = (keyed("a"), keyed("a"));
    world.land(&mut writer, &mut owner, &[first]).await;
    world.sql("UPDATE task_dedup SET day = day - 1").await;
    let mut share = crate::world::share(&owner, crate::world::records(1, &[again]));
    share.may_repeat = true;
    let flush = crate::world::flush_of(vec![share]);
    world.flush(&mut writer, &flush).await;
    assert_eq!(world.number("SELECT count(*) FROM task_dedup").await, 1);
}

#[tokio::test]
async fn finding_09_the_scope_of_a_key_is_tenant_and_ordering_key() {
    let world = World::new("scope").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let other_tenant = TaskEvent {
        tenant: "other".into(),
        ..keyed("a")
    };
    let other_order = TaskEvent {
        key: Some("customer-1".into()),
        ..keyed("a")
    };
    let outcomes = world
        .land(
            &mut writer,
            &mut owner,
            &[keyed("a"), other_tenant, other_order],
        )
        .await;
    assert_eq!(outcomes, [Done, Done, Done]);
}

#[tokio::test]
async fn a_key_used_for_other_content_is_a_dead_letter_with_a_failed_result() {
    let world = World::new("dedup_conflict").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let other = TaskEvent {
        payload: b"{}".to_vec(),
        ..keyed("a")
    };
    let in_batch = world
        .land(&mut writer, &mut owner, &[keyed("a"), other.clone()])
        .await;
    let later = TaskEvent {
        task_id: event().task_id,
        ..other
    };
    let across = world.land(&mut writer, &mut owner, &[later]).await;
    assert_eq!(
        (in_batch, across),
        (vec![Done, DeadLetter], vec![DeadLetter])
    );
    let conflicts = "SELECT count(*) FROM dead_letters d JOIN task_results r USING (task_id) \
         WHERE reason = 'dedup_conflict' AND status = 'failed' AND r.error->>'code' = 'dedup_conflict' AND record_value <> ''";
    assert_eq!(world.number(conflicts).await, 2);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_duplicate_that_somebody_may_ask_for_gets_a_row_that_points_to_the_first() {
    let world = World::new("reply").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let asking = || TaskEvent {
        reply: true,
        ..keyed("a")
    };
    let first = keyed("a");
    let outcomes = world
        .land(&mut writer, &mut owner, &[first.clone(), asking()])
        .await;
    assert_eq!(outcomes, [Done, Duplicate]);
    assert_eq!(
        world.land(&mut writer, &mut owner, &[asking()]).await,
        [Duplicate]
    );
    let pointing = format!(
        "SELECT count(*) FROM task_results WHERE duplicate_of = '{}' AND status = 'success' AND result IS NULL",
        first.task_id
    );
    assert_eq!(world.number(&pointing).await, 2);
    // The first one's status goes along.
    world
        .sql("UPDATE task_results SET status = 'failed' WHERE duplicate_of IS NULL")
        .await;
    assert_eq!(
        world.land(&mut writer, &mut owner, &[asking()]).await,
        [Duplicate]
    );
    let failed =
        "SELECT count(*) FROM task_results WHERE duplicate_of IS NOT NULL AND status = 'failed'";
    assert_eq!(world.number(failed).await, 1);
}

#[tokio::test]
async fn finding_01_a_key_of_ones_own_makes_no_duplicate_of_oneself() {
    let world = World::new("own_key").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let task = keyed("a");
    world
        .land(&mut writer, &mut owner, std::slice::from_ref(&task))
        .await;
    // The row is gone and the key is not: a task that is run again is still the first.
    world.sql("DELETE FROM task_results").await;
    assert_eq!(world.land(&mut writer, &mut owner, &[task]).await, [Done]);
    assert_eq!(world.results().await, 1);
}

#[tokio::test]
async fn a_task_that_was_set_aside_owns_no_key() {
    let world = World::new("set_aside").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let theirs = event();
    let conflicting = TaskEvent {
        task_id: theirs.task_id,
        tenant: "mallory".into(),
        ..keyed("a")
    };
    let honest = TaskEvent {
        tenant: "mallory".into(),
        ..keyed("a")
    };
    let outcomes = world
        .land(&mut writer, &mut owner, &[theirs, conflicting, honest])
        .await;
    assert_eq!(outcomes, [Done, DeadLetter, Done]);
}

#[tokio::test]
async fn finding_09_two_writers_on_the_same_keys_in_opposite_order_both_end() {
    let world = World::new("opposite").await;
    let (mut first, mut second) = (world.claim(0).await, world.claim(1).await);
    let forward: Vec<TaskEvent> = (0..300).map(|n| keyed(&n.to_string())).collect();
    let backward: Vec<TaskEvent> = (0..300).rev().map(|n| keyed(&n.to_string())).collect();
    let (mut one, mut two) = (world.writer(), world.writer());
    let (a, b) = tokio::join!(
        world.land(&mut one, &mut first, &forward),
        world.land(&mut two, &mut second, &backward)
    );
    let done = a
        .iter()
        .chain(&b)
        .filter(|outcome| **outcome == Done)
        .count();
    assert_eq!((done, world.results().await), (300, 300));
    assert_eq!(world.findings().await, Vec::<String>::new());
}
