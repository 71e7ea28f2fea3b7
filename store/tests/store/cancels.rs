//! Requests to cancel: kept, heard, answered by others, and swept.

use std::time::Duration;

use millrace_schemas::TaskId;
use millrace_store::cancels;
use millrace_store::notices::{Notice, Notices};

use crate::aside::{ordered, retries, wake_with};
use crate::events::{born_in_days, event};
use crate::world::World;

/// The tasks of the open requests, newest first.
pub async fn pending(connection: &mut sqlx::PgConnection, most: i64) -> Vec<TaskId> {
    let requests = cancels::pending(connection, most).await.unwrap();
    requests.into_iter().map(|request| request.task).collect()
}

#[tokio::test]
async fn finding_18_a_cancel_is_a_request_that_is_heard_and_writes_no_end() {
    let world = World::new("cancel_request").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let (waiting, done) = (event(), event());
    world
        .land(&mut writer, &mut owner, std::slice::from_ref(&done))
        .await;
    let mut listener = Notices::connect(&world.database, &Notice::FOR_WORKERS)
        .await
        .unwrap();
    let mut connection = world.operations().await;

    for id in [waiting.task_id, done.task_id, waiting.task_id] {
        cancels::request(&mut connection, id, Some("acme"), "ann")
            .await
            .unwrap();
        let heard = tokio::time::timeout(Duration::from_secs(1), listener.next()).await;
        assert_eq!(
            heard.expect("within a second").unwrap().notice,
            Notice::Cancels
        );
    }

    assert_eq!(
        world.results().await,
        1,
        "only the owner writes how a task ends"
    );
    let status = "SELECT status::text FROM task_results";
    assert_eq!(world.text(status).await.as_deref(), Some("success"));
    let found = pending(&mut connection, 10).await;
    assert_eq!(
        found,
        [done.task_id, waiting.task_id],
        "newest first, each once"
    );
    assert_eq!(pending(&mut connection, 1).await, [done.task_id]);
    cancels::forget(&mut connection, &[waiting.task_id])
        .await
        .unwrap();
    assert_eq!(pending(&mut connection, 10).await, [done.task_id]);
}

#[tokio::test]
async fn requests_go_when_their_task_is_done_or_older_than_any_result_can_be() {
    let world = World::new("cancel_sweep").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    // Another partition has settled nothing, so the open one may still come.
    world.claim(1).await;
    let (done, yesterdays, open, forgotten) = (event(), born_in_days(-1), event(), event());
    world
        .land(&mut writer, &mut owner, &[done.clone(), yesterdays.clone()])
        .await;
    let mut connection = world.operations().await;
    for one in [&done, &yesterdays, &open, &forgotten] {
        cancels::request(&mut connection, one.task_id, None, "ann")
            .await
            .unwrap();
    }
    let id = forgotten.task_id;
    world
        .sql(&format!("UPDATE task_cancels SET requested_at = now() - interval '5 days' WHERE task_id = '{id}'"))
        .await;
    assert_eq!(cancels::count(&mut connection).await.unwrap(), 4);
    assert_eq!(cancels::sweep(&mut connection).await.unwrap(), 3);
    assert_eq!(pending(&mut connection, 10).await, [open.task_id]);
    assert_eq!(cancels::sweep(&mut connection).await.unwrap(), 0);
}

#[tokio::test]
async fn a_request_of_another_tenant_neither_counts_nor_stands_in_the_way() {
    let world = World::new("cancel_tenants").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let task = ordered("a");
    let batch = vec![retries(0, &task, 600)];
    world.land_records(&mut writer, &mut owner, batch).await;
    let mut connection = world.operations().await;
    let cancelled = async |connection: &mut sqlx::PgConnection, tenant: &str| {
        cancels::request(connection, task.task_id, Some(tenant), "ann")
            .await
            .unwrap();
        let asked: &'static [TaskId] = vec![task.task_id].leak();
        let found = wake_with(&world, &owner, |waking| waking.cancels = asked).await;
        found.cancelled.len()
    };
    assert_eq!(cancelled(&mut connection, "somebody else").await, 0);
    assert_eq!(cancelled(&mut connection, &task.tenant).await, 1);
    assert_eq!(pending(&mut connection, 9).await.len(), 2);
    cancels::forget(&mut connection, &[task.task_id])
        .await
        .unwrap();
    assert_eq!(
        cancelled(&mut connection, "").await,
        1,
        "whoever runs the workers"
    );
}

#[tokio::test]
async fn one_tenant_asks_for_as_much_as_it_may_and_pushes_nobody_out() {
    let world = World::new("cancel_many").await;
    let mut connection = world.operations().await;
    let first = event().task_id;
    cancels::request(&mut connection, first, Some("acme"), "ann")
        .await
        .unwrap();
    let asked: Vec<_> = (0..7).map(|_| (event().task_id, "globex".into())).collect();
    let (some, rest) = asked.split_at(3);
    for (batch, within) in [
        (some, vec![true; 3]),
        (rest, vec![true, true, false, false]),
        // Those that are open are, however many there may be.
        (&asked, vec![true, true, true, true, true, false, false]),
    ] {
        let answers = cancels::request_within(&mut connection, batch, "door", 5).await;
        assert_eq!(answers.unwrap(), within);
    }
    // The same twice takes one place.
    let twice: Vec<_> = [event().task_id; 2].map(|id| (id, "initech".into())).into();
    let answers = cancels::request_within(&mut connection, &twice, "door", 1).await;
    assert_eq!(answers.unwrap(), [true, true]);
    let others = [
        (event().task_id, "globex".into()),
        (event().task_id, "umbrella".into()),
    ];
    let answers = cancels::request_within(&mut connection, &others, "door", 5).await;
    assert_eq!(answers.unwrap(), [false, true]);
    assert_eq!(cancels::count(&mut connection).await.unwrap(), 8);
    let found = pending(&mut connection, 4).await;
    assert!(
        found.contains(&first),
        "{found:?}: an older one of another tenant"
    );
}

#[tokio::test]
async fn requests_for_tasks_that_nobody_has_go_and_those_of_parked_ones_stay() {
    let world = World::new("cancel_nobody").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let parked = ordered("a");
    let batch = vec![retries(0, &parked, 600)];
    world.land_records(&mut writer, &mut owner, batch).await;
    let mut connection = world.operations().await;
    for id in [parked.task_id, event().task_id] {
        cancels::request(&mut connection, id, Some("acme"), "ann")
            .await
            .unwrap();
    }
    world
        .sql("UPDATE partition_progress SET frontier_time = now()")
        .await;
    assert_eq!(
        cancels::sweep(&mut connection).await.unwrap(),
        0,
        "both may be on their way"
    );
    world
        .sql("UPDATE partition_progress SET frontier_time = now() + interval '1 minute'")
        .await;
    assert_eq!(cancels::sweep(&mut connection).await.unwrap(), 1);
    assert_eq!(pending(&mut connection, 9).await, [parked.task_id]);
}
