//! How tasks ended, for whoever waits: results, failures, repeats, and the word that goes out with the flush.

use std::time::Duration;

use millrace_schemas::TaskEvent;
use millrace_store::finished::{self, Returned, SHORT_BYTES};
use millrace_store::notices::{Notice, Notices};
use millrace_store::results::{StatusWord, statuses};
use millrace_store::{DeadLetter, Due, Ending, Output, ParkKind, Purpose, Reason, Settling};
use sqlx::Connection as _;

use crate::aside::parks;
use crate::events::{born_in_days, event, keyed, record};
use crate::world::World;

fn returns(offset: i64, task: &TaskEvent, content_type: &str, body: &[u8]) -> Settling {
    Settling {
        ending: Ending::Output(Box::new(Output {
            content_type: content_type.to_owned().into(),
            body: body.into(),
        })),
        ..record(offset, task)
    }
}

fn asked_for(task: TaskEvent) -> TaskEvent {
    TaskEvent {
        reply: true,
        ..task
    }
}

#[tokio::test]
async fn ends_come_with_short_bodies_and_long_ones_are_fetched_alone() {
    let world = World::new("finished").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let tasks = [event(), event(), event(), event(), event()];
    let long = format!("\"{}\"", "x".repeat(SHORT_BYTES.unsigned_abs() as usize));
    let failed = DeadLetter::about_event(Reason::Permanent, "no such customer");
    let batch = vec![
        returns(0, &tasks[0], "application/json", br#"{"b": 1.0, "a": 2}"#),
        returns(1, &tasks[1], "image/png", &[0, 1, 255]),
        returns(2, &tasks[2], "application/json", long.as_bytes()),
        Settling {
            ending: Ending::Dead(Box::new(failed)),
            ..record(3, &tasks[3])
        },
        Settling {
            ending: Ending::Cancelled,
            ..record(4, &tasks[4])
        },
    ];
    world.land_records(&mut writer, &mut owner, batch).await;
    let mut connection = world.operations().await;
    let ids: Vec<_> = tasks.iter().map(|task| task.task_id).collect();
    let ends = finished::finished(&mut connection, &ids).await.unwrap();
    let returned = |n: usize| &ends[&ids[n]].returned;
    let body = |content_type: &str, bytes: &[u8]| Returned::Body {
        content_type: content_type.to_owned().into(),
        bytes: bytes.into(),
    };
    assert_eq!(
        *returned(0),
        body("application/json", br#"{"b": 1.0, "a": 2}"#)
    );
    assert_eq!(*returned(1), body("image/png", &[0, 1, 255]));
    assert!(matches!(returned(2), Returned::Long { .. }));
    let Returned::Nothing { error: Some(error) } = returned(3) else {
        panic!("{:?}", returned(3));
    };
    assert!(error.contains("no such customer"), "{error}");
    let words: Vec<_> = ids.iter().map(|id| ends[id].status).collect();
    use StatusWord::{Cancelled, Failed, Success};
    assert_eq!(words, [Success, Success, Success, Failed, Cancelled]);
    let whole = finished::body(&mut connection, ids[2]).await.unwrap();
    assert_eq!(whole.as_deref(), Some(long.as_bytes()));
    assert_eq!(finished::body(&mut connection, ids[4]).await.unwrap(), None);
}

#[tokio::test]
async fn a_repeat_returns_what_the_first_returned() {
    let world = World::new("finished_repeat").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let (first, repeat) = (keyed("a"), asked_for(keyed("a")));
    let batch = vec![
        returns(0, &first, "application/json", b"7"),
        record(1, &repeat),
    ];
    world.land_records(&mut writer, &mut owner, batch).await;
    let mut connection = world.operations().await;
    let ends = finished::finished(&mut connection, &[repeat.task_id])
        .await
        .unwrap();
    let end = &ends[&repeat.task_id];
    assert_eq!(end.duplicate_of, Some(first.task_id));
    assert!(matches!(&end.returned, Returned::Body { bytes, .. } if **bytes == *b"7"));
}

#[tokio::test]
async fn many_tasks_are_told_in_the_order_in_which_they_were_asked_for() {
    let world = World::new("statuses").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    // Another partition has settled nothing, so nobody knows yet who is unknown.
    world.claim(1).await;
    let tasks = [event(), event()];
    world.land(&mut writer, &mut owner, &tasks).await;
    let (new, old) = (event(), born_in_days(-40));
    // Nobody makes ids of a day that has not come.
    let future = born_in_days(1);
    let ids = [new, tasks[1].clone(), old, tasks[0].clone(), future].map(|event| event.task_id);
    let mut connection = world.operations().await;
    let found = statuses(&mut connection, &world.consumer, &ids)
        .await
        .unwrap();
    let words: Vec<_> = found.iter().map(|status| status.status).collect();
    use StatusWord::{Accepted, Gone, Success, Unknown};
    assert_eq!(words, [Accepted, Success, Gone, Success, Unknown]);
    let none = statuses(&mut connection, &world.consumer, &[]).await;
    assert!(none.unwrap().is_empty());
}

#[tokio::test]
async fn few_are_found_among_many_parked_ones_by_a_statement_that_was_planned_before_those_came() {
    let world = World::new("statuses_planned").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let mut desk = world.database.connect(Purpose::Desk).await.unwrap();
    let nobody = [event().task_id];
    statuses(&mut desk, &world.consumer, &nobody).await.unwrap();
    let tasks: Vec<_> = (0..2_000).map(|_| event()).collect();
    let due = Due::In(Duration::from_secs(600));
    let batch = (0..).zip(&tasks);
    let batch = batch.map(|(offset, task)| parks(offset, task, ParkKind::Delayed, due));
    world
        .land_records(&mut writer, &mut owner, batch.collect())
        .await;
    let ids: Vec<_> = tasks.iter().take(100).map(|task| task.task_id).collect();
    let mut transaction = desk.begin().await.unwrap();
    let found = statuses(&mut transaction, &world.consumer, &ids).await;
    assert!(found.unwrap().iter().all(|status| status.due_at.is_some()));
    let read: i64 = sqlx::query_scalar(
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables \
         WHERE relname = 'parked_tasks' AND schemaname = current_schema()",
    )
    .fetch_one(&mut *transaction)
    .await
    .unwrap();
    assert!((100..200).contains(&read), "{read} rows for 100 tasks");
}

#[tokio::test]
async fn the_flush_names_those_that_somebody_may_wait_for_and_no_others() {
    let world = World::new("ended").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let mut notices = Notices::connect(&world.database, &Notice::FOR_DOORS)
        .await
        .unwrap();
    world
        .land(&mut writer, &mut owner, &[event(), event()])
        .await;
    let silence = tokio::time::timeout(Duration::from_millis(200), notices.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    let tasks: Vec<TaskEvent> = (0..600).map(|_| asked_for(event())).collect();
    let mut batch = tasks.clone();
    batch.push(event());
    world.land(&mut writer, &mut owner, &batch).await;
    let mut told = Vec::new();
    while told.len() < tasks.len() {
        let word = tokio::time::timeout(Duration::from_secs(5), notices.next())
            .await
            .expect("a notice within five seconds")
            .unwrap();
        assert_eq!(word.notice, Notice::Ended);
        told.extend(word.tasks);
    }
    let expected: Vec<_> = tasks.iter().map(|task| task.task_id).collect();
    assert_eq!(told, expected);
}
