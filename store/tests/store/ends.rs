//! The ends of parked tasks in the books: below the position, beyond it, in parts, and of another log.

use millrace_schemas::TaskEvent;
use millrace_store::Outcome::{DeadLetter as Dead, Parked, Result as Done};
use millrace_store::{Counts, DeadLetter, Ending, Output, Reason, audit};

use crate::aside::{follows, key, land_share, land_to, ordered, retries, settles, share_to, wake};
use crate::events::{event, events, record};
use crate::world::{World, records};

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
async fn finding_16_each_end_of_a_parked_task_moves_its_offset_in_the_books_and_takes_its_row() {
    let world = World::new("ends").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks: Vec<TaskEvent> = (0..6).map(|n| ordered(&n.to_string())).collect();
    let parked = (0..).zip(&tasks).map(|(at, task)| retries(at, task, 0));
    world
        .land_records(&mut writer, &mut owner, parked.collect())
        .await;
    let mut woken = wake(&world, &owner).await.keys;
    woken.sort_by_key(|key| key.tasks[0].offset);
    let output = Output {
        content_type: "application/json".into(),
        body: b"{\"sent\":true}".as_slice().into(),
    };
    let endings = [
        Ending::Payload,
        Ending::Output(Box::new(output)),
        Ending::Cancelled,
        Ending::Expired,
        failed(Reason::Permanent),
    ];
    let settled = woken.iter().zip(endings);
    let batch = settled.map(|(key, ending)| settles(&key.tasks[0], ending));
    let outcomes = land_to(&world, &mut writer, &mut owner, batch.collect(), 6).await;
    assert_eq!(outcomes, [Done, Done, Done, Done, Dead]);
    let expected = Counts {
        results: 4,
        dead_letters: 1,
        parked: 1,
        ..Counts::NONE
    };
    assert_eq!(books(&world).await, expected);
    assert_eq!((world.number(ROWS).await, world.number(KEYS).await), (1, 1));
    let rows = "SELECT string_agg(\"offset\" || status::text || attempts || coalesce(result->>'sent', '') \
         || coalesce(error->>'code', ''), ' ' ORDER BY \"offset\") FROM task_results";
    assert_eq!(
        world.text(rows).await.unwrap(),
        "0success2 1success2true 2cancelled2cancelled 3expired2expired 4failed2permanent"
    );
    let letter = "SELECT count(*) FROM dead_letters d JOIN outbox o USING (group_id, topic, partition, log_book, \"offset\", run) \
         WHERE d.attempts = 2 AND d.run = 0 AND o.kind = 'dead_letter_copy'";
    assert_eq!(world.number(letter).await, 1);
}

#[tokio::test]
async fn when_the_log_is_read_again_what_is_parked_stays_parked_and_what_ended_stays_ended() {
    let world = World::new("park_replay").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks = [ordered("a"), ordered("a"), event()];
    let read = || {
        let mut batch = vec![retries(0, &tasks[0], 0), follows(1, &tasks[1])];
        batch.push(record(2, &tasks[2]));
        batch
    };
    world.land_records(&mut writer, &mut owner, read()).await;
    let head = wake(&world, &owner).await.keys.remove(0).tasks.remove(0);
    let end = settles(&head, Ending::Expired);
    land_to(&world, &mut writer, &mut owner, vec![end], 3).await;
    for known in [true, false] {
        world
            .sql("UPDATE partition_progress SET next_offset = 0, results = 0, parked = 0")
            .await;
        let mut owner = world.claim(0).await;
        let mut share = share_to(&owner, read(), 3);
        share.may_repeat = known;
        let outcomes = land_share(&world, &mut world.writer(), &mut owner, share).await;
        assert_eq!(outcomes, [Done, Parked, Done]);
        assert_eq!(key(&world).await.0, 1);
        books(&world).await;
    }
}

#[tokio::test]
async fn what_a_look_up_knew_is_counted_and_nothing_is_written_of_it() {
    let world = World::new("known_outcome").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks = events(4);
    // Settled beyond the position by a worker that died: a result, a letter and a parked task.
    let mut dead = record(2, &tasks[2]);
    dead.ending = failed(Reason::Permanent);
    let ahead = vec![record(1, &tasks[1]), dead, retries(3, &tasks[3], 600)];
    land_to(&world, &mut writer, &mut owner, ahead, 0).await;
    assert_eq!(books(&world).await, Counts::NONE);
    let mut batch = records(0, &tasks);
    for (record, outcome) in batch.iter_mut().skip(1).zip([Done, Dead, Parked]) {
        record.ending = Ending::Known(outcome);
    }
    let mut share = share_to(&owner, batch, 4);
    share.may_repeat = true;
    let outcomes = land_share(&world, &mut writer, &mut owner, share).await;
    assert_eq!(outcomes, [Done, Done, Dead, Parked]);
    let counts = books(&world).await;
    assert_eq!(
        (counts.results, counts.dead_letters, counts.parked),
        (2, 1, 1)
    );
}

#[tokio::test]
async fn finding_16_an_end_beyond_the_position_is_booked_when_the_position_passes() {
    let world = World::new("beyond").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks = events(4);
    let ahead = vec![retries(1, &tasks[1], 0), retries(3, &tasks[3], 0)];
    land_to(&world, &mut writer, &mut owner, ahead, 0).await;
    let mut woken = wake(&world, &owner).await.keys;
    woken.sort_by_key(|key| key.tasks[0].offset);
    // One is passed by the very flush that ends it: the ledger counted it as parked. The other is not.
    let mut share = share_to(&owner, vec![record(0, &tasks[0])], 2);
    share.advance.counted.parked = 1;
    for key in &woken {
        share.records.push(settles(&key.tasks[0], Ending::Payload));
    }
    let outcomes = land_share(&world, &mut writer, &mut owner, share).await;
    assert_eq!(outcomes, [Done, Done, Done]);
    let two = Counts {
        results: 2,
        ..Counts::NONE
    };
    assert_eq!(books(&world).await, two);
    // The ledger has settled the other as a result meanwhile.
    let mut share = share_to(&owner, vec![record(2, &tasks[2])], 4);
    share.advance.counted.results = 1;
    land_share(&world, &mut writer, &mut owner, share).await;
    assert_eq!(books(&world).await.results, 4);
}

#[tokio::test]
async fn finding_16_a_flush_in_parts_books_each_end_once() {
    let world = World::new("parts").await;
    world
        .sql("ALTER TABLE task_results ADD CONSTRAINT no_poison CHECK (result::text NOT LIKE '%poison%')")
        .await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks = events(8);
    let first: Vec<_> = (0..)
        .zip(&tasks[..4])
        .map(|(at, task)| retries(at, task, 0))
        .collect();
    land_to(&world, &mut writer, &mut owner, first, 3).await;
    let mut woken = wake(&world, &owner).await.keys;
    woken.sort_by_key(|key| key.tasks[0].offset);
    let mut share = share_to(&owner, Vec::new(), 9);
    share.advance.counted.parked = 1;
    for key in &woken {
        share.records.push(settles(&key.tasks[0], Ending::Payload));
    }
    let poison = TaskEvent {
        payload: b"\"poison\"".to_vec(),
        ..event()
    };
    share.records.extend(records(4, &tasks[4..]));
    share.records.push(record(8, &poison));
    let outcomes = land_share(&world, &mut writer, &mut owner, share).await;
    assert_eq!(outcomes[..8], [Done; 8]);
    assert_eq!(outcomes[8], Dead);
    let expected = Counts {
        results: 8,
        dead_letters: 1,
        ..Counts::NONE
    };
    assert_eq!(books(&world).await, expected);
}

#[tokio::test]
async fn a_parked_task_that_the_database_refuses_is_a_dead_letter_and_waits_no_more() {
    let world = World::new("refused_parked").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks = [ordered("a"), ordered("b")];
    let parked = vec![retries(0, &tasks[0], 0), retries(1, &tasks[1], 0)];
    world.land_records(&mut writer, &mut owner, parked).await;
    let mut woken = wake(&world, &owner).await.keys;
    woken.sort_by_key(|key| key.tasks[0].offset);
    let nul = Output {
        content_type: "text/\0plain".into(),
        body: Box::default(),
    };
    let batch = vec![
        settles(&woken[0].tasks[0], Ending::Output(Box::new(nul))),
        settles(&woken[1].tasks[0], Ending::Payload),
    ];
    let outcomes = land_to(&world, &mut writer, &mut owner, batch, 2).await;
    assert_eq!(outcomes, [Dead, Done]);
    let letter =
        "SELECT count(*) FROM dead_letters WHERE reason = 'row_refused' AND \"offset\" = 0";
    assert_eq!(
        (world.number(letter).await, world.number(ROWS).await),
        (1, 0)
    );
    books(&world).await;
}

#[tokio::test]
async fn tasks_of_a_log_that_is_no_longer_read_end_beside_its_books() {
    let world = World::new("old_log").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let old = ordered("a");
    let parked = vec![retries(0, &old, 0), retries(1, &ordered("b"), 0)];
    world.land_records(&mut writer, &mut owner, parked).await;
    world
        .sql(
            "UPDATE partition_progress SET book = 2, log_book = 2, first_offset = 0, next_offset = 0, high_offset = 0, parked = 0; \
             INSERT INTO position_history (group_id, topic, partition, book, first_offset, next_offset, high_offset, moved_to, \
               results, duplicates, dead_letters, parked, gaps, lost, reason, moved_by) \
             VALUES ('workers', 'tasks', 0, 1, 0, 2, 2, 0, 0, 0, 0, 2, 0, 0, 'made again', 'me')",
        )
        .await;
    let mut owner = world.claim(0).await;
    world.land(&mut writer, &mut owner, &events(2)).await;
    let mut woken = wake(&world, &owner).await.keys;
    woken.sort_by_key(|key| key.tasks[0].offset);
    let batch = vec![
        settles(&woken[0].tasks[0], Ending::Payload),
        settles(&woken[1].tasks[0], failed(Reason::Permanent)),
    ];
    let outcomes = land_to(&world, &mut writer, &mut owner, batch, 2).await;
    assert_eq!(outcomes, [Done, Dead]);
    let two = Counts {
        results: 2,
        ..Counts::NONE
    };
    assert_eq!(books(&world).await, two);
    assert_eq!(
        world
            .number("SELECT count(*) FROM task_results WHERE \"offset\" < 0")
            .await,
        2
    );
    assert_eq!(
        world
            .number("SELECT count(*) FROM dead_letters WHERE log_book = 1")
            .await,
        1
    );
}

#[tokio::test]
async fn the_deep_audit_finds_parked_tasks_and_no_end_in_a_letter_that_was_sent_to_work_again() {
    use audit::Traced::{DeadLetter as Letter, Missing, Parked as Waits};
    let world = World::new("trace_parked").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks = events(3);
    let mut batch = vec![retries(0, &tasks[0], 600)];
    for offset in [1_i64, 2] {
        let mut dead = record(offset, &tasks[usize::try_from(offset).unwrap()]);
        dead.ending = failed(Reason::UnknownType);
        batch.push(dead);
    }
    world.land_records(&mut writer, &mut owner, batch).await;
    world
        .sql("UPDATE dead_letters SET redriven_at = now() WHERE \"offset\" = 1; DELETE FROM task_results")
        .await;
    let traceable: Vec<_> = (0..)
        .zip(&tasks)
        .map(|(offset, task)| audit::Traceable {
            offset,
            event: Some((task.task_id, None)),
        })
        .collect();
    let mut connection = world.operations().await;
    let traced = audit::trace(&mut connection, &world.consumer, 0, &traceable).await;
    assert_eq!(traced.unwrap(), [Waits, Missing, Letter]);
    world.sql("DELETE FROM parked_tasks").await;
    let findings = world.findings().await;
    let missing = |finding: &String| finding.contains("1 parked tasks are booked, but 0");
    assert!(findings.iter().any(missing), "{findings:?}");
}
