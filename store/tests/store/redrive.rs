//! Redrive: a task has one result at most at every moment, and the books balance at each.

use millrace_schemas::{Decoders, TaskEvent};
use millrace_store::letters::LetterPlace;
use millrace_store::operations_log::{self, Journal};
use millrace_store::redrive::{Redriven, Refusal, Terms, redrive};
use millrace_store::{DeadLetter, Ending, Reason, Settling};

use crate::aside::{land_to, ordered, settles, wake};
use crate::events::{event, events, raw, record};
use crate::world::{Held, World};

/// A task that failed for good.
pub fn failed(offset: i64, event: &TaskEvent) -> Settling {
    let letter = DeadLetter::about_event(Reason::Permanent, "no such address");
    Settling {
        ending: Ending::Dead(Box::new(letter)),
        ..record(offset, event)
    }
}

pub fn place(offset: i64) -> LetterPlace {
    LetterPlace {
        partition: 0,
        log_book: 1,
        offset,
        run: 0,
    }
}

pub fn terms(decoders: &Decoders) -> Terms<'_> {
    Terms {
        by: "ann@desk",
        max_redrives: 5,
        decoders,
    }
}

pub async fn journal(world: &World) -> Journal {
    let mut connection = world.operations().await;
    let about = serde_json::json!({ "filter": {} });
    Journal::open(
        &mut connection,
        "ann@desk",
        "redrive",
        Some("a test"),
        about,
    )
    .await
    .unwrap()
}

pub async fn redriven(world: &World, places: &[LetterPlace]) -> Redriven {
    redriven_with(world, places, terms(&world.decoders)).await
}

pub async fn redriven_with(world: &World, places: &[LetterPlace], terms: Terms<'_>) -> Redriven {
    let mut connection = world.operations().await;
    let mut journal = journal(world).await;
    redrive(
        &mut connection,
        &world.consumer,
        places,
        terms,
        &mut journal,
    )
    .await
    .unwrap()
}

pub fn refusals(done: &Redriven) -> Vec<(i64, Refusal)> {
    let of = |refused: &millrace_store::redrive::Refused| (refused.place.offset, refused.refusal);
    done.refused.iter().map(of).collect()
}

/// A partition with one success at 0, one task of key `k` that failed at 1, and bytes that are no event at 2.
pub async fn one_of_each(world: &World) -> (Held, TaskEvent) {
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let task = ordered("k");
    let batch = vec![record(0, &event()), failed(1, &task), raw(2, "no event")];
    world.land_records(&mut writer, &mut owner, batch).await;
    assert_eq!(world.results().await, 2, "one success, one failure");
    (owner, task)
}

#[tokio::test]
async fn finding_11_a_redrive_withdraws_the_failed_result_and_parks_the_next_run() {
    let world = World::new("redrive").await;
    let (mut owner, task) = one_of_each(&world).await;
    let before = world.progress(0).await;
    let done = redriven(&world, &[place(1)]).await;
    assert_eq!(
        (done.redriven.as_slice(), done.closed),
        (&[place(1)][..], 0)
    );

    assert_eq!(world.results().await, 1, "the failure is withdrawn");
    let hash = task.as_ref().lane_hash().unwrap();
    let parked = world
        .text(
            "SELECT concat_ws(' ', kind, run, attempts, wakes, age_ms, tenant, task_type, task_id, key_hash, \
               due_at IS NULL, error->>'code') FROM parked_tasks",
        )
        .await
        .unwrap();
    let lane = sqlx::types::Uuid::from_bytes(hash);
    let wanted = format!(
        "redrive 1 0 0 0 acme mail {} {lane} t permanent",
        task.task_id
    );
    assert_eq!(parked, wanted);
    let same = "SELECT count(*) FROM parked_tasks t JOIN dead_letters d USING (log_book, \"offset\") \
                WHERE t.record_value = d.record_value AND t.record_time = d.record_time";
    assert_eq!(world.number(same).await, 1);
    let due = "SELECT depth::bigint FROM parked_keys WHERE due_at <= clock_timestamp()";
    assert_eq!(world.number(due).await, 1);
    let marked = "SELECT count(*) FROM dead_letters WHERE redriven_by = 'ann@desk' AND redriven_at IS NOT NULL";
    assert_eq!(world.number(marked).await, 1);

    let after = world.progress(0).await;
    assert_eq!((after.seq, after.claim), (before.seq, before.claim));
    assert_eq!((before.counts.dead_letters, before.counts.parked), (2, 0));
    assert_eq!((after.counts.dead_letters, after.counts.parked), (1, 1));
    assert_eq!(world.findings().await, Vec::<String>::new());
    let mut connection = world.operations().await;
    let said = operations_log::latest(&mut connection, 1).await.unwrap();
    assert_eq!(
        (said[0].by.as_str(), said[0].action.as_str()),
        ("ann@desk", "redrive")
    );
    assert_eq!(said[0].detail["counts"]["redriven"], 1);

    let mut writer = world.writer();
    world.land(&mut writer, &mut owner, &events(2)).await;
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn finding_11_a_redriven_task_ends_once_however_often_it_failed_before() {
    let world = World::new("redrive_cycle").await;
    let (mut owner, task) = one_of_each(&world).await;
    let mut writer = world.writer();
    for run in 0..3 {
        let letter = LetterPlace { run, ..place(1) };
        assert_eq!(redriven(&world, &[letter]).await.redriven, [letter]);
        assert_eq!(world.findings().await, Vec::<String>::new());
        let woken = wake(&world, &owner).await;
        let again = &woken.keys[0].tasks[0];
        assert_eq!(
            (again.task_id, again.run, again.attempts),
            (task.task_id, run + 1, 0)
        );
        let ending = match run {
            2 => Ending::Payload,
            _ => failed(1, &task).ending,
        };
        land_to(
            &world,
            &mut writer,
            &mut owner,
            vec![settles(again, ending)],
            3,
        )
        .await;
        assert_eq!(world.findings().await, Vec::<String>::new());
        assert_eq!(world.results().await, 2, "one of each task");
    }
    let ended = format!(
        "SELECT status || ' ' || run FROM task_results WHERE task_id = '{}'",
        task.task_id
    );
    assert_eq!(world.text(&ended).await.unwrap(), "success 3");
    let counts = world.progress(0).await.counts;
    assert_eq!(
        (counts.results, counts.dead_letters, counts.parked),
        (2, 1, 0)
    );
    let left = "SELECT (SELECT count(*) FROM parked_tasks) + (SELECT count(*) FROM parked_keys)";
    assert_eq!(world.number(left).await, 0);
    let done = redriven(
        &world,
        &[0, 1, 2].map(|run| LetterPlace { run, ..place(1) }),
    )
    .await;
    assert_eq!((done.redriven.len(), done.closed), (0, 3));
}

#[tokio::test]
async fn redriving_again_does_nothing_even_at_the_same_moment() {
    let world = World::new("redrive_twice").await;
    one_of_each(&world).await;
    let places = [place(1)];
    let (one, other) = tokio::join!(redriven(&world, &places), redriven(&world, &places));
    assert_eq!(one.redriven.len() + other.redriven.len(), 1);
    let again = redriven(&world, &places).await;
    assert_eq!((again.redriven.len(), again.closed), (0, 1));
    assert_eq!(world.number("SELECT count(*) FROM parked_tasks").await, 1);
    assert_eq!(
        world
            .number("SELECT sum(depth)::bigint FROM parked_keys")
            .await,
        1
    );
    assert_eq!(world.progress(0).await.counts.parked, 1);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_books_balance_at_every_moment_of_a_redrive() {
    let world = World::new("redrive_balance").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks = events(200);
    let batch = (0..).zip(&tasks).map(|(offset, task)| failed(offset, task));
    world
        .land_records(&mut writer, &mut owner, batch.collect())
        .await;
    let places: Vec<LetterPlace> = (0..200).map(place).collect();
    let work = async {
        for batch in places.chunks(10) {
            assert_eq!(redriven(&world, batch).await.redriven.len(), 10);
        }
    };
    let watch = async {
        let mut moments = 0;
        loop {
            assert_eq!(world.findings().await, Vec::<String>::new());
            let both = "SELECT count(*) FROM task_results JOIN parked_tasks USING (task_id)";
            assert_eq!(world.number(both).await, 0);
            moments += 1;
            tokio::task::yield_now().await;
            if moments > 1_000 {
                break;
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = watch => {}
    }
    assert_eq!(world.progress(0).await.counts.parked, 200);
    assert_eq!(world.results().await, 0);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

#[tokio::test]
async fn letters_of_an_earlier_log_or_book_go_back_to_work_and_leave_the_open_book_alone() {
    let world = World::new("redrive_earlier").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let batch = vec![failed(0, &event()), failed(1, &event())];
    world.land_records(&mut writer, &mut owner, batch).await;
    world
        .sql("UPDATE partition_progress SET book = 2, first_offset = 1, next_offset = 2, dead_letters = 1")
        .await;
    assert_eq!(redriven(&world, &[place(0)]).await.redriven.len(), 1);
    let counts = world.progress(0).await.counts;
    assert_eq!((counts.dead_letters, counts.parked), (1, 0));
    world
        .sql("UPDATE partition_progress SET book = 3, log_book = 3, first_offset = 0, next_offset = 0, dead_letters = 0")
        .await;
    assert_eq!(redriven(&world, &[place(1)]).await.redriven.len(), 1);
    let counts = world.progress(0).await.counts;
    assert_eq!((counts.dead_letters, counts.parked), (0, 0));
    let old = "SELECT count(*) FROM parked_tasks WHERE log_book = 1";
    assert_eq!(world.number(old).await, 2);
}

#[tokio::test]
async fn a_key_that_waits_already_is_due_with_the_redriven_task() {
    let world = World::new("redrive_key").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let later = TaskEvent {
        run_at: Some(4_000_000_000_000_000),
        ..ordered("later")
    };
    let batch = vec![
        failed(0, &ordered("k")),
        failed(1, &ordered("k")),
        failed(2, &later),
    ];
    world.land_records(&mut writer, &mut owner, batch).await;
    redriven(&world, &[place(0)]).await;
    world
        .sql("UPDATE parked_keys SET due_at = now() + interval '1 hour'")
        .await;
    redriven(&world, &[place(1), place(2)]).await;
    let key = "SELECT depth::bigint FROM parked_keys WHERE due_at <= clock_timestamp()";
    assert_eq!(world.number(key).await, 2);
    assert_eq!(world.number("SELECT count(*) FROM parked_keys").await, 1);
    let delayed = "SELECT \"offset\" FROM parked_tasks WHERE kind = 'delayed' AND due_at > now()";
    assert_eq!(world.number(delayed).await, 2);
    assert_eq!(world.findings().await, Vec::<String>::new());
}
