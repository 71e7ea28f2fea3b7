//! The status of a task, for every kind of row that it can have.

use millrace_schemas::TaskId;
use millrace_store::cancels;
use millrace_store::progress::{self, State, TaskProgress};
use millrace_store::results::{StatusWord, TaskStatus, report, status};
use millrace_store::{Outcome, ParkKind};

use crate::events::{event, keyed, raw};
use crate::world::{Held, World};

async fn stands(world: &World, id: TaskId) -> TaskStatus {
    let mut connection = world.operations().await;
    status(&mut connection, &world.consumer, id).await.unwrap()
}

/// Puts a task into `parked_tasks` as a flush does, under a key of its own.
pub async fn park(world: &World, offset: i64, id: TaskId, kind: ParkKind) {
    let (kind, key) = (kind.as_str(), uuid::Uuid::from_bytes(*id.as_bytes()));
    let due = if kind == "delayed" {
        "now() + interval '1 day'"
    } else {
        "NULL"
    };
    world
        .sql(&format!(
            "INSERT INTO parked_tasks (group_id, topic, partition, log_book, \"offset\", key_hash, task_id, kind, run, attempts, \
               age_ms, due_at, parked_at, tenant, task_type, headers, record_value) \
             VALUES ('workers', 'tasks', 0, 1, {offset}, '{key}', '{id}', '{kind}', 0, 3, 0, {due}, now(), 'acme', 'mail', '', '')"
        ))
        .await;
    if kind != "delayed" {
        world
            .sql(&format!(
                "INSERT INTO parked_keys VALUES ('workers', 'tasks', 0, '{key}', now() + interval '1 hour', 1)"
            ))
            .await;
    }
}

#[tokio::test]
async fn a_parked_task_is_told_by_what_it_waits_for() {
    let world = World::new("status_parked").await;
    world.claim(0).await;
    for (offset, kind) in (0..).zip(ParkKind::ALL) {
        let id = TaskId::mint();
        park(&world, offset, id, kind).await;
        let found = stands(&world, id).await;
        let (word, due) = match kind {
            ParkKind::Retry | ParkKind::Redrive => (StatusWord::Retrying, true),
            ParkKind::Behind => (StatusWord::Accepted, false),
            ParkKind::Delayed => (StatusWord::Accepted, true),
            ParkKind::Running => (StatusWord::Processing, false),
        };
        assert_eq!(
            (found.status, found.due_at.is_some()),
            (word, due),
            "{kind:?}"
        );
        assert_eq!((found.tenant.as_deref(), found.attempts), (Some("acme"), 3));
        let mut connection = world.operations().await;
        let report = report(&mut connection, &world.consumer, id).await.unwrap();
        let parked = report.parked.unwrap();
        assert_eq!(
            (&parked["kind"], &parked["offset"]),
            (&kind.as_str().into(), &offset.into())
        );
        assert_eq!(report.status, word.as_str());
    }
}

#[tokio::test]
async fn a_woken_task_is_told_by_what_it_says_and_not_by_what_an_earlier_run_said() {
    let world = World::new("status_woken").await;
    let owner: Held = world.claim(0).await;
    let id = TaskId::mint();
    park(&world, 0, id, ParkKind::Retry).await;
    let mut connection = world.operations().await;
    for (run, word) in [(1, StatusWord::Retrying), (0, StatusWord::Processing)] {
        let said = TaskProgress {
            partition: 0,
            claim: owner.fence.claim,
            task_id: id,
            tenant: "acme".into(),
            state: State::Processing,
            run,
            attempt: 4,
            fraction: Some(0.5),
            note: None,
            started_ms: 1_800_000_000_000,
            next_attempt_in: None,
        };
        progress::report(&mut connection, &world.consumer, &[said])
            .await
            .unwrap();
        assert_eq!(stands(&world, id).await.status, word);
    }
    let found = stands(&world, id).await;
    assert_eq!((found.attempts, found.progress), (4, Some(0.5)));
    let report = report(&mut connection, &world.consumer, id).await.unwrap();
    assert_eq!(report.progress.unwrap()["attempt"], 4);
    world.claim_as(0, "worker-b").await;
    assert_eq!(stands(&world, id).await.status, StatusWord::Retrying);
}

#[tokio::test]
async fn a_result_names_whose_row_holds_it() {
    let world = World::new("status_results").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let first = keyed("a");
    let again = millrace_schemas::TaskEvent {
        reply: true,
        ..keyed("a")
    };
    let outcomes = world
        .land(&mut writer, &mut owner, &[first.clone(), again.clone()])
        .await;
    assert_eq!(outcomes, [Outcome::Result, Outcome::Duplicate]);
    for one in [&first, &again] {
        let found = stands(&world, one.task_id).await;
        assert_eq!(
            (found.status, found.result),
            (StatusWord::Success, Some(first.task_id))
        );
        assert!(found.status.is_terminal() && !found.cancel_requested);
    }
    for word in [
        StatusWord::Cancelled,
        StatusWord::Expired,
        StatusWord::Failed,
    ] {
        let (id, word_text) = (first.task_id, word.as_str());
        world
            .sql(&format!(
                "UPDATE task_results SET status = '{word_text}' WHERE task_id = '{id}'"
            ))
            .await;
        assert_eq!(stands(&world, id).await.status, word);
    }
}

#[tokio::test]
async fn a_dead_letter_without_a_result_is_failed_until_it_is_sent_to_work_again() {
    let world = World::new("status_letters").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    world
        .land_records(&mut writer, &mut owner, vec![raw(0, "no event")])
        .await;
    let id = TaskId::mint();
    world
        .sql(&format!("UPDATE dead_letters SET task_id = '{id}'"))
        .await;
    assert_eq!(stands(&world, id).await.status, StatusWord::Failed);
    world
        .sql("UPDATE dead_letters SET redriven_at = now(), redriven_by = 'ann'")
        .await;
    park(&world, 0, id, ParkKind::Redrive).await;
    assert_eq!(stands(&world, id).await.status, StatusWord::Retrying);
    let mut connection = world.operations().await;
    let report = report(&mut connection, &world.consumer, id).await.unwrap();
    assert_eq!(report.dead_letters[0]["redriven_by"], "ann");
}

#[tokio::test]
async fn a_cancel_request_shows_until_the_task_has_ended() {
    let world = World::new("status_cancel").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let task = event();
    let mut connection = world.operations().await;
    cancels::request(&mut connection, task.task_id, None, "ann")
        .await
        .unwrap();
    let found = stands(&world, task.task_id).await;
    assert_eq!(
        (found.status, found.cancel_requested),
        (StatusWord::Accepted, true)
    );
    let told = report(&mut connection, &world.consumer, task.task_id)
        .await
        .unwrap();
    assert_eq!(told.cancel_request.unwrap()["by"], "ann");
    world
        .land(&mut writer, &mut owner, std::slice::from_ref(&task))
        .await;
    let found = stands(&world, task.task_id).await;
    assert_eq!(
        (found.status, found.cancel_requested),
        (StatusWord::Success, false)
    );
}
