//! What a worker is told of tasks before it starts them.

use std::time::Duration;

use millrace_schemas::TaskEvent;
use millrace_store::known::{self, Known, Owner, Question};
use millrace_store::{DeadLetter, Due, Ending, Outcome, ParkKind, Reason, Settling};

use crate::aside::{follows, land_to, lane, ordered, parking, parks, retries, settles, wake};
use crate::events::{born_in_days, event, events, keyed, record};
use crate::world::World;

pub fn question(offset: i64, task: &TaskEvent) -> Question {
    let event = task.as_ref();
    Question {
        partition: 0,
        log_book: 1,
        offset,
        task_id: task.task_id,
        settled_before: true,
        dedup: event.dedup_hash().map(|hash| (hash.0, event.fingerprint())),
        key_hash: Some(lane(task)),
    }
}

pub async fn ask(world: &World, questions: &[Question]) -> Vec<Known> {
    let mut connection = world.operations().await;
    known::ask(&mut connection, &world.consumer, world.retention, questions)
        .await
        .unwrap()
}

fn failed(offset: i64, task: &TaskEvent) -> Settling {
    let letter = DeadLetter::about_event(Reason::Permanent, "no");
    Settling {
        ending: Ending::Dead(Box::new(letter)),
        ..record(offset, task)
    }
}

#[tokio::test]
async fn what_is_settled_beyond_the_position_is_known_by_its_own_place() {
    let world = World::new("known").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let mut tasks = events(5);
    tasks.push(born_in_days(-2));
    let ahead = vec![
        record(1, &tasks[1]),
        failed(2, &tasks[2]),
        retries(3, &tasks[3], 600),
        record(5, &tasks[5]),
    ];
    land_to(&world, &mut writer, &mut owner, ahead, 0).await;
    let questions: Vec<_> = (0..)
        .zip(&tasks)
        .map(|(at, task)| question(at, task))
        .collect();
    let settled = |known: Vec<Known>| known.iter().map(|one| one.settled).collect::<Vec<_>>();
    let expected = [
        None,
        Some(Outcome::Result),
        Some(Outcome::DeadLetter),
        Some(Outcome::Parked),
        None,
        Some(Outcome::Result),
    ];
    assert_eq!(settled(ask(&world, &questions).await), expected);
    // A letter that was sent to work again is no end.
    world
        .sql("UPDATE dead_letters SET redriven_at = now(); DELETE FROM task_results WHERE status = 'failed'")
        .await;
    assert_eq!(ask(&world, &questions[2..3]).await, [Known::default()]);
    // Nobody looks where nothing can be.
    let new = Question {
        settled_before: false,
        ..questions[1].clone()
    };
    assert_eq!(ask(&world, &[new]).await[0].settled, None);
}

#[tokio::test]
async fn finding_09_a_repeat_is_known_before_it_runs_also_one_of_a_parked_task() {
    let world = World::new("known_repeat").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let (done, waits) = (keyed("a"), keyed("b"));
    let batch = vec![record(0, &done), retries(1, &waits, 600)];
    world.land_records(&mut writer, &mut owner, batch).await;
    let other = TaskEvent {
        payload: b"1".to_vec(),
        ..keyed("a")
    };
    let new = |offset, task| Question {
        settled_before: false,
        ..question(offset, task)
    };
    let questions = [
        new(2, &keyed("a")),
        new(3, &keyed("b")),
        new(4, &other),
        new(5, &done),
        new(6, &waits),
        new(7, &keyed("c")),
        new(1, &waits),
    ];
    let known = ask(&world, &questions).await;
    let owners: Vec<_> = known.iter().map(|one| one.owner).collect();
    let expected = [
        Some(Owner::Same(done.task_id)),
        Some(Owner::Same(waits.task_id)),
        Some(Owner::Other(done.task_id)),
        Some(Owner::Same(done.task_id)),
        Some(Owner::Same(waits.task_id)),
        None,
        None,
    ];
    assert_eq!(owners, expected);
    let behind: Vec<_> = known.iter().map(|one| one.parked).collect();
    assert_eq!(behind, [0, 1, 0, 0, 1, 0, 1]);
}

#[tokio::test]
async fn finding_09_a_task_that_waited_behind_others_owns_its_key_from_its_first_attempt_on() {
    let world = World::new("owns_at_last").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let (first, repeat) = (keyed("a"), keyed("a"));
    let batch = vec![follows(0, &first), follows(1, &repeat)];
    world.land_records(&mut writer, &mut owner, batch).await;
    let asked = [Question {
        settled_before: false,
        ..question(1, &repeat)
    }];
    assert_eq!(ask(&world, &asked).await[0].owner, None, "nobody has begun");
    let woken = wake(&world, &owner).await.keys.remove(0).tasks.remove(0);
    let due = Due::In(Duration::from_secs(600));
    let again = settles(&woken, parking(&first, ParkKind::Retry, due));
    land_to(&world, &mut writer, &mut owner, vec![again], 2).await;
    let expected = Some(Owner::Same(first.task_id));
    assert_eq!(ask(&world, &asked).await[0].owner, expected);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_called_a_repeat_is_found_to_be_one_by_the_flush_and_nothing_goes_round() {
    let world = World::new("known_agrees").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks = [keyed("a"), keyed("a"), event()];
    // The later one was settled by a worker that died, and owns the key; the log is read again.
    let mut ahead = record(1, &tasks[1]);
    ahead.ending = Ending::Payload;
    land_to(&world, &mut writer, &mut owner, vec![ahead], 0).await;
    let known = ask(&world, &[question(0, &tasks[0])]).await;
    assert_eq!(known[0].owner, None, "only what lies before it counts");
    let mut share = crate::aside::share_to(&owner, vec![record(0, &tasks[0])], 1);
    share.may_repeat = true;
    let outcomes = crate::aside::land_share(&world, &mut writer, &mut owner, share).await;
    assert_eq!(outcomes, [Outcome::Result]);
}

#[tokio::test]
async fn a_woken_task_of_an_earlier_log_is_nobodys_repeat() {
    let world = World::new("known_old_log").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let old = keyed("a");
    let batch = vec![record(0, &event()), retries(1, &old, 0)];
    world.land_records(&mut writer, &mut owner, batch).await;
    world
        .sql(
            "UPDATE partition_progress SET book = 2, log_book = 2, first_offset = 0, next_offset = 0, high_offset = 0, \
               parked = 0, results = 0; \
             INSERT INTO position_history (group_id, topic, partition, book, first_offset, next_offset, high_offset, moved_to, \
               results, duplicates, dead_letters, parked, gaps, lost, reason, moved_by) \
             VALUES ('workers', 'tasks', 0, 1, 0, 2, 2, 0, 1, 0, 0, 1, 0, 0, 'made again', 'me')",
        )
        .await;
    let mut owner = world.claim(0).await;
    // The new log repeats it at a lower offset.
    let repeat = keyed("a");
    world
        .land(&mut writer, &mut owner, std::slice::from_ref(&repeat))
        .await;
    let woken = wake(&world, &owner).await.keys.remove(0).tasks.remove(0);
    let mut asked = question(woken.offset, &old);
    asked.settled_before = false;
    assert_eq!(ask(&world, &[asked]).await[0].owner, None);
    let end = settles(&woken, Ending::Payload);
    assert_eq!(
        land_to(&world, &mut writer, &mut owner, vec![end], 1).await,
        [Outcome::Result]
    );
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn tasks_for_later_are_not_counted_among_those_that_somebody_waits_behind() {
    let world = World::new("known_depth").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let task = ordered("a");
    let batch = vec![
        parks(0, &ordered("a"), ParkKind::Delayed, Due::At(0)),
        follows(1, &ordered("a")),
        follows(2, &ordered("a")),
    ];
    world.land_records(&mut writer, &mut owner, batch).await;
    assert_eq!(ask(&world, &[question(3, &task)]).await[0].parked, 2);
    assert_eq!(ask(&world, &[]).await, []);
}
