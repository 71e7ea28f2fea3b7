//! What tasks say of themselves while they run.

use std::time::Duration;

use millrace_schemas::TaskId;
use millrace_store::progress::{self, State, TaskProgress};
use millrace_store::results::{StatusWord, TaskStatus, status};
use uuid::Uuid;

use crate::world::{Held, World};

fn said(held: &Held, task_id: TaskId) -> TaskProgress {
    TaskProgress {
        partition: held.partition,
        claim: held.fence.claim,
        task_id,
        tenant: "acme".into(),
        state: State::Processing,
        run: 0,
        attempt: 1,
        fraction: Some(0.25),
        note: Some("a quarter".into()),
        started_ms: 1_800_000_000_000,
        next_attempt_in: None,
    }
}

async fn report(world: &World, reports: &[TaskProgress]) {
    let mut connection = world.operations().await;
    progress::report(&mut connection, &world.consumer, reports)
        .await
        .unwrap();
}

async fn stands(world: &World, id: TaskId) -> TaskStatus {
    let mut connection = world.operations().await;
    status(&mut connection, &world.consumer, id).await.unwrap()
}

async fn rows(world: &World) -> i64 {
    world.number("SELECT count(*) FROM task_progress").await
}

#[tokio::test]
async fn the_latest_report_counts_and_a_done_task_has_none() {
    let world = World::new("progress").await;
    let owner = world.claim(0).await;
    let id = TaskId::mint();
    let later = TaskProgress {
        fraction: Some(7.0),
        note: Some("nul\0l".into()),
        ..said(&owner, id)
    };
    let nonsense = TaskProgress {
        fraction: Some(f32::NAN),
        started_ms: -1,
        ..said(&owner, TaskId::mint())
    };
    report(&world, &[said(&owner, id), nonsense, later]).await;
    let found = stands(&world, id).await;
    assert_eq!(
        (found.status, found.progress),
        (StatusWord::Processing, Some(1.0))
    );
    assert_eq!(found.note.as_deref(), Some("nul\u{fffd}l"));

    let waits = TaskProgress {
        state: State::Retrying,
        attempt: 2,
        fraction: None,
        note: None,
        next_attempt_in: Some(Duration::MAX),
        ..said(&owner, id)
    };
    report(&world, &[waits]).await;
    let found = stands(&world, id).await;
    assert_eq!(
        (found.status, found.attempts, found.progress),
        (StatusWord::Retrying, 2, None)
    );
    assert!(found.due_at.is_some());

    let mut connection = world.operations().await;
    progress::remove(&mut connection, &[id]).await.unwrap();
    assert_eq!(rows(&world).await, 1);
    assert_eq!(stands(&world, id).await.status, StatusWord::Accepted);
    report(&world, &[]).await;
}

#[tokio::test]
async fn finding_25_a_worker_that_lost_its_partition_reports_nothing_and_its_rows_are_not_shown() {
    let world = World::new("progress_fence").await;
    let zombie = world.claim(0).await;
    let (before, after) = (TaskId::mint(), TaskId::mint());
    report(&world, &[said(&zombie, before)]).await;
    let owner = world.claim_as(0, "worker-b").await;
    assert_eq!(stands(&world, before).await.status, StatusWord::Accepted);
    report(&world, &[said(&zombie, after)]).await;
    assert_eq!(rows(&world).await, 1);

    // The zombie's report of a task that the new owner runs changes nothing either.
    report(&world, &[said(&owner, after)]).await;
    let late = TaskProgress {
        note: Some("from a zombie".into()),
        ..said(&zombie, after)
    };
    report(&world, &[late]).await;
    assert_eq!(
        stands(&world, after).await.note.as_deref(),
        Some("a quarter")
    );

    let mut connection = world.operations().await;
    progress::sweep(&mut connection, &world.consumer, 0, owner.fence.claim)
        .await
        .unwrap();
    let claims = "SELECT string_agg(DISTINCT claim::text, ',') FROM task_progress";
    let claim: Uuid = owner.fence.claim;
    assert_eq!(world.text(claims).await, Some(claim.to_string()));
}
