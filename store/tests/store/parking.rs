//! Parking and parking anew: the rows of tasks, the times and depths of keys, and who repeats whom.

use std::time::Duration;

use millrace_schemas::TaskEvent;
use millrace_store::Outcome::{DeadLetter as Dead, Duplicate, Parked, Result as Done};
use millrace_store::{Counts, DeadLetter, Due, Ending, Headers, Outcome, Output, ParkKind, Reason};

use crate::aside::{
    follows, key, land_to, ordered, parking, parks, retries, settles, time_passes, wake,
};
use crate::events::{event, keyed, record};
use crate::severed::{Break, Wire};
use crate::world::World;

const ROWS: &str = "SELECT count(*) FROM parked_tasks";
const KEYS: &str = "SELECT count(*) FROM parked_keys";

fn failed(reason: Reason) -> Ending {
    Ending::Dead(Box::new(DeadLetter::about_event(reason, "it is of no use")))
}

async fn books(world: &World) -> Counts {
    assert_eq!(world.findings().await, Vec::<String>::new());
    world.progress(0).await.counts
}

#[tokio::test]
async fn a_parked_task_keeps_all_that_is_needed_to_run_it_and_is_found_in_the_books() {
    let world = World::new("parked").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let task = TaskEvent {
        deadline: Some(1_900_000_000_000_000),
        ..ordered("a")
    };
    let mut first = retries(0, &task, 0);
    first.attempts = 4;
    first.headers = Headers::collect([("traceparent", b"00-1".as_slice())].into_iter());
    let value = first.value.clone();
    let outcomes = world
        .land_records(&mut writer, &mut owner, vec![first, record(1, &event())])
        .await;
    assert_eq!(outcomes, [Parked, Done]);
    assert_eq!(books(&world).await.parked, 1);
    let woken = wake(&world, &owner).await.keys.remove(0).tasks.remove(0);
    assert_eq!(woken.value, value);
    assert_eq!(woken.headers.text("traceparent"), Some("00-1"));
    assert_eq!((woken.offset, woken.attempts, woken.wakes), (0, 4, 1));
    assert_eq!((woken.run, woken.age), (0, Duration::from_secs(3)));
    assert_eq!(woken.timestamp_ms, 1_800_000_000_000);
    assert_eq!(
        (woken.task_id, &*woken.tenant, &*woken.task_type),
        (task.task_id, "acme", "mail")
    );
    let error = world.text("SELECT error->>'message' FROM parked_tasks WHERE deadline > now()");
    assert_eq!(error.await.as_deref(), Some("not now"));
}

#[tokio::test]
async fn an_output_that_is_no_json_is_kept_as_bytes_under_the_handlers_own_content_type() {
    let world = World::new("output").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let mut task = record(0, &event());
    task.ending = Ending::Output(Box::new(Output {
        content_type: "application/pdf".into(),
        body: b"%PDF\0".as_slice().into(),
    }));
    task.attempts = 3;
    world
        .land_records(&mut writer, &mut owner, vec![task])
        .await;
    let kept = "SELECT count(*) FROM task_results WHERE result IS NULL AND result_bytes = '%PDF\\000'::bytea \
         AND content_type = 'application/pdf' AND attempts = 3 AND run = 0";
    assert_eq!(world.number(kept).await, 1);
}

#[tokio::test]
async fn finding_06_the_time_belongs_to_the_key_and_a_follower_leaves_it_as_it_is() {
    let world = World::new("key_time").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks = [ordered("a"), ordered("a"), ordered("a")];
    world
        .land_records(
            &mut writer,
            &mut owner,
            vec![retries(0, &tasks[0], 600), follows(1, &tasks[1])],
        )
        .await;
    assert_eq!(key(&world).await, (2, false));
    world
        .land_records(&mut writer, &mut owner, vec![follows(2, &tasks[2])])
        .await;
    assert_eq!(key(&world).await, (3, false));
    assert!(wake(&world, &owner).await.keys.is_empty());
    // The head fails again: no follower is due before it.
    time_passes(&world).await;
    let head = wake(&world, &owner).await.keys.remove(0).tasks.remove(0);
    assert_eq!(head.offset, 0);
    let again = parking(
        &tasks[0],
        ParkKind::Retry,
        Due::In(Duration::from_secs(600)),
    );
    let outcomes = land_to(
        &world,
        &mut writer,
        &mut owner,
        vec![settles(&head, again)],
        3,
    )
    .await;
    assert_eq!(outcomes, [Parked]);
    assert_eq!(key(&world).await, (3, false));
    let row =
        "SELECT count(*) FROM parked_tasks WHERE \"offset\" = 0 AND attempts = 2 AND wakes = 0";
    assert_eq!(world.number(row).await, 1);
    // It is cancelled while its time lies ahead: the followers wait for nobody.
    let end = settles(&head, Ending::Cancelled);
    land_to(&world, &mut writer, &mut owner, vec![end], 3).await;
    assert_eq!(key(&world).await, (2, true));
    assert_eq!(books(&world).await.parked, 2);
}

#[tokio::test]
async fn a_key_without_tasks_is_gone_and_a_follower_without_a_key_is_due_at_once() {
    let world = World::new("key_goes").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    world
        .land_records(&mut writer, &mut owner, vec![follows(0, &ordered("a"))])
        .await;
    assert_eq!(key(&world).await, (1, true));
    let task = wake(&world, &owner).await.keys.remove(0).tasks.remove(0);
    let end = settles(&task, Ending::Payload);
    land_to(&world, &mut writer, &mut owner, vec![end], 1).await;
    assert_eq!((world.number(ROWS).await, world.number(KEYS).await), (0, 0));
}

#[tokio::test]
async fn finding_06_a_task_for_later_blocks_nobody_until_it_joins_its_key() {
    let world = World::new("later").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let task = ordered("a");
    let later = parks(0, &task, ParkKind::Delayed, Due::At(1_000_000));
    world
        .land_records(&mut writer, &mut owner, vec![later])
        .await;
    assert_eq!(world.number(KEYS).await, 0);
    let woken = wake(&world, &owner).await;
    assert!(woken.keys.is_empty() && !woken.delayed[0].key_is_parked);
    let behind = parking(&task, ParkKind::Behind, Due::WithKey);
    let again = settles(&woken.delayed[0], behind);
    land_to(&world, &mut writer, &mut owner, vec![again], 1).await;
    assert_eq!(key(&world).await, (1, true));
    assert_eq!(
        world
            .number("SELECT count(*) FROM parked_tasks WHERE due_at IS NULL")
            .await,
        1
    );
    assert!(wake(&world, &owner).await.keys[0].tasks[0].key_is_parked);
}

#[tokio::test]
async fn finding_09_the_row_of_a_deduplication_key_is_written_when_its_first_task_is_parked() {
    let world = World::new("parked_key_row").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let (first, again) = (keyed("a"), keyed("a"));
    let other = TaskEvent {
        payload: b"1".to_vec(),
        ..keyed("a")
    };
    let parked = retries(0, &first, 0);
    world
        .land_records(&mut writer, &mut owner, vec![parked])
        .await;
    assert_eq!(world.number("SELECT count(*) FROM task_dedup").await, 1);
    let outcomes = world.land(&mut writer, &mut owner, &[again, other]).await;
    assert_eq!(outcomes, [Duplicate, Dead]);
    // Its own key makes it nobody's duplicate.
    let woken = wake(&world, &owner).await.keys.remove(0).tasks.remove(0);
    let end = settles(&woken, Ending::Payload);
    assert_eq!(
        land_to(&world, &mut writer, &mut owner, vec![end], 3).await,
        [Done]
    );
    assert_eq!(world.number("SELECT count(*) FROM task_dedup").await, 1);
    assert_eq!(books(&world).await.parked, 0);
}

#[tokio::test]
async fn finding_09_a_task_that_failed_for_good_owns_its_key_and_a_repeat_of_it_is_none() {
    let world = World::new("failed_owner").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let (first, again) = (keyed("a"), keyed("a"));
    let dead = |offset, task| millrace_store::Settling {
        ending: failed(Reason::AttemptsExhausted),
        ..record(offset, task)
    };
    let batch = vec![dead(0, &first), dead(1, &again), dead(2, &first)];
    let outcomes = world.land_records(&mut writer, &mut owner, batch).await;
    assert_eq!(outcomes, [Dead, Duplicate, Duplicate]);
    assert_eq!(books(&world).await.dead_letters, 1);
}

#[tokio::test]
async fn a_repeat_of_a_parked_task_is_none_and_one_that_is_asked_for_waits_for_its_status() {
    let world = World::new("repeat_of_parked").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let (first, asking) = (
        keyed("a"),
        TaskEvent {
            reply: true,
            ..keyed("a")
        },
    );
    let batch = vec![retries(0, &first, 0), record(1, &asking), record(2, &first)];
    let outcomes = world.land_records(&mut writer, &mut owner, batch).await;
    // The same id was not run, yet only a look-up can know that its first record is parked.
    assert_eq!(outcomes, [Parked, Parked, Duplicate]);
    let woken = wake(&world, &owner).await.keys.remove(0);
    assert_eq!(woken.tasks.len(), 2);
    let end = settles(&woken.tasks[0], failed(Reason::Permanent));
    land_to(&world, &mut writer, &mut owner, vec![end], 3).await;
    let end = settles(&woken.tasks[1], Ending::Repeat(woken.key_hash));
    assert_eq!(
        land_to(&world, &mut writer, &mut owner, vec![end], 3).await,
        [Duplicate]
    );
    let copied = format!(
        "SELECT count(*) FROM task_results WHERE duplicate_of = '{}' AND status = 'failed'",
        first.task_id
    );
    assert_eq!(world.number(&copied).await, 1);
    assert_eq!((world.number(ROWS).await, world.number(KEYS).await), (0, 0));
    books(&world).await;
}

#[tokio::test]
async fn a_repeat_whose_key_is_free_again_is_parked_and_runs() {
    let world = World::new("no_repeat").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let task = keyed("a");
    let mut repeat = record(0, &task);
    repeat.ending = Ending::Repeat(crate::aside::lane(&task));
    repeat.attempts = 0;
    let outcomes = world
        .land_records(&mut writer, &mut owner, vec![repeat])
        .await;
    assert_eq!(outcomes, [Parked]);
    assert_eq!(key(&world).await, (1, true));
    let woken = wake(&world, &owner).await.keys.remove(0).tasks.remove(0);
    assert_eq!((woken.kind, woken.attempts), (ParkKind::Behind, 0));
}

#[tokio::test]
async fn finding_01_a_flush_whose_answer_is_lost_parks_nothing_twice() {
    let world = World::new("lost_park").await;
    let wire = Wire::to(&world.url).await;
    let mut writer = world.writer_to(world.by_way_of(&wire.url));
    let mut owner = world.claim(0).await;
    for at in [Break::BeforeTheAnswer, Break::BeforeTheCommit] {
        wire.break_next(at);
        let next = owner.next;
        let batch = vec![
            retries(next, &ordered("a"), 600),
            follows(next + 1, &ordered("a")),
        ];
        let outcomes = world.land_records(&mut writer, &mut owner, batch).await;
        assert_eq!(outcomes, [Parked, Parked]);
    }
    assert_eq!((wire.broken(), world.number(ROWS).await), (2, 4));
    assert_eq!(key(&world).await, (4, false));
    time_passes(&world).await;
    let woken = wake(&world, &owner).await.keys.remove(0).tasks;
    for (task, at) in woken
        .iter()
        .zip([Break::BeforeTheAnswer, Break::BeforeTheCommit])
    {
        wire.break_next(at);
        let end = settles(task, Ending::Payload);
        let outcomes = land_to(&world, &mut writer, &mut owner, vec![end], 4).await;
        assert_eq!(outcomes, [Done]);
    }
    assert_eq!((wire.broken(), world.number(ROWS).await), (4, 2));
    assert_eq!(key(&world).await.0, 2);
    let counts = books(&world).await;
    assert_eq!((counts.results, counts.parked), (2, 2));
}

#[tokio::test]
async fn twenty_thousand_followers_are_parked_in_one_flush() {
    let world = World::new("followers").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let mut batch = vec![retries(0, &ordered("hot"), 600)];
    batch.extend((1..20_001).map(|offset| follows(offset, &ordered("hot"))));
    let outcomes = world.land_records(&mut writer, &mut owner, batch).await;
    assert_eq!(outcomes, vec![Outcome::Parked; 20_001]);
    assert_eq!(key(&world).await, (20_001, false));
    books(&world).await;
}
