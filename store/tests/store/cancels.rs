//! Requests to cancel: kept, heard, answered by others, and swept.

use std::time::Duration;

use millrace_store::cancels;
use millrace_store::notices::{Notice, Notices};

use crate::events::{born_in_days, event};
use crate::world::World;

#[tokio::test]
async fn finding_18_a_cancel_is_a_request_that_is_heard_and_writes_no_end() {
    let world = World::new("cancel_request").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
    let (waiting, done) = (event(), event());
    world
        .land(&mut writer, &mut owner, std::slice::from_ref(&done))
        .await;
    let mut listener = Notices::connect(&world.database).await.unwrap();
    let mut connection = world.operations().await;

    for id in [waiting.task_id, done.task_id, waiting.task_id] {
        cancels::request(&mut connection, id, Some("acme"), "ann")
            .await
            .unwrap();
        let heard = tokio::time::timeout(Duration::from_secs(1), listener.next()).await;
        assert_eq!(heard.expect("within a second").unwrap(), Notice::Cancels);
    }

    assert_eq!(
        world.results().await,
        1,
        "only the owner writes how a task ends"
    );
    let status = "SELECT status::text FROM task_results";
    assert_eq!(world.text(status).await.as_deref(), Some("success"));
    let pending = cancels::pending(&mut connection, 10).await.unwrap();
    assert_eq!(
        pending,
        [done.task_id, waiting.task_id],
        "newest first, each once"
    );
    assert_eq!(
        cancels::pending(&mut connection, 1).await.unwrap(),
        [done.task_id]
    );
    cancels::forget(&mut connection, &[waiting.task_id])
        .await
        .unwrap();
    assert_eq!(
        cancels::pending(&mut connection, 10).await.unwrap(),
        [done.task_id]
    );
}

#[tokio::test]
async fn requests_go_when_their_task_is_done_or_older_than_any_result_can_be() {
    let world = World::new("cancel_sweep").await;
    let (mut writer, mut owner) = (world.writer(), world.claim(0).await);
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
    assert_eq!(
        cancels::pending(&mut connection, 10).await.unwrap(),
        [open.task_id]
    );
    assert_eq!(cancels::sweep(&mut connection).await.unwrap(), 0);
}
