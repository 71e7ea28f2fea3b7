//! The Rust client: handles that are futures, many at once, also across the death of a front door.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use millrace_producer::client::{Client, ClientError, Task};

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_handles_are_awaited_together() {
    let scene = Scene::new("client_many").await;
    let door = scene.open(&[]);
    let _worker = scene.work();
    let client = Client::connect(&door.base).await.unwrap();
    let submits = (0..1_000).map(|n| {
        let task = Task::json("echo", &n).unwrap().key(&format!("k{}", n % 7));
        client.submit(task)
    });
    let handles: Vec<_> = join_all(submits)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let results = join_all(handles.into_iter().map(IntoFuture::into_future)).await;
    for (n, result) in results.into_iter().enumerate() {
        assert_eq!(result.unwrap().json::<usize>().unwrap(), n);
    }
    // One that has ended long since, by its id alone.
    let id = client
        .submit(Task::json("echo", "x").unwrap())
        .await
        .unwrap()
        .id()
        .to_owned();
    door.until(&id, "success").await;
    assert_eq!(
        client
            .handle(id)
            .unwrap()
            .await
            .unwrap()
            .json::<String>()
            .unwrap(),
        "x"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_tells_progress_gives_up_waiting_and_cancels() {
    let scene = Scene::new("client_handle").await;
    let door = scene.open(&[]);
    let _worker = scene.work();
    let client = Client::connect(&door.base).await.unwrap();
    let refused = client
        .submit(Task::json("", &1).unwrap())
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ClientError::Refused { ref problem, .. } if problem == "bad-request")
    );
    let failing = client
        .submit(Task::json("refuse", &1).unwrap())
        .await
        .unwrap()
        .await;
    assert!(
        matches!(&failing, Err(ClientError::Failed { problem, message }) if problem == "task-failed" && message.contains("never 1")),
        "{failing:?}"
    );
    let slow = client
        .submit(Task::json("slow", &6_000).unwrap())
        .await
        .unwrap();
    let early = slow.clone().timeout(Duration::from_millis(100)).await;
    assert!(matches!(early, Err(ClientError::TimedOut(_))), "{early:?}");
    let states: Vec<_> = slow.progress().collect().await;
    assert!(
        states.iter().any(|state| state.progress == Some(0.5)),
        "{states:?}"
    );
    assert_eq!(slow.await.unwrap().json::<u64>().unwrap(), 6_000);
    let long = client
        .submit(Task::json("slow", &60_000).unwrap())
        .await
        .unwrap();
    long.cancel().await.unwrap();
    let cancelled = long.await;
    assert!(
        matches!(&cancelled, Err(ClientError::Failed { problem, .. }) if problem == "task-cancelled")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_survive_the_death_of_their_front_door() {
    let scene = Scene::new("client_survives").await;
    let door = scene.open(&[]);
    let address = door.address();
    let client = Client::connect(&door.base).await.unwrap();
    let submits = (0..20).map(|n| client.submit(Task::json("echo", &n).unwrap()));
    let handles: Vec<_> = join_all(submits)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let waiting = tokio::spawn(join_all(handles.into_iter().map(IntoFuture::into_future)));
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(door);
    let _worker = scene.work();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _door = scene.open(&["--listen", &address]);
    let results = tokio::time::timeout(crate::scene::DEADLINE, waiting).await;
    for (n, result) in results.expect("in time").unwrap().into_iter().enumerate() {
        assert_eq!(result.unwrap().json::<usize>().unwrap(), n);
    }
}
