//! How the Rust client follows: few streams for any number of handles, none for those that were dropped, and
//! without streams where the front door has none to give.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use millrace_producer::client::{Client, Handle, Task};
use millrace_schemas::TaskId;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};
use tonic::Code;

use crate::client_double::{Double, Script, ended, open, refused};
use crate::scene::{DEADLINE, Scene};

/// Longer than handles are gathered, so that each begins to be awaited alone.
const APART: Duration = Duration::from_millis(4);

fn id() -> String {
    TaskId::mint().to_string()
}

fn pace() -> Interval {
    let mut pace = tokio::time::interval(APART);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

fn awaited(handle: Handle) -> JoinHandle<bool> {
    tokio::spawn(async move { handle.await.is_ok() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_that_begin_apart_all_end_and_tasks_are_taken_meanwhile() {
    let scene = Scene::new("client_apart").await;
    let door = scene.open(&[]);
    let client = Client::connect(&door.base).await.unwrap();
    let submit = async |n: usize| {
        let submit = client.submit(Task::json("echo", &n).unwrap());
        let taken = tokio::time::timeout(Duration::from_secs(10), submit).await;
        taken.expect("a submit never hangs").unwrap()
    };
    let mut pace = pace();
    let mut waiting = Vec::new();
    for n in 0..1_500 {
        waiting.push(awaited(submit(n).await));
        pace.tick().await;
    }
    let late = submit(1_500).await;
    let _worker = scene.work();
    let all = tokio::time::timeout(DEADLINE, join_all(waiting)).await;
    assert!(
        all.expect("in time")
            .into_iter()
            .all(|ended| ended.unwrap())
    );
    assert_eq!(late.await.unwrap().json::<usize>().unwrap(), 1_500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_handle_leaves_its_stream_to_others() {
    let scene = Scene::new("client_dropped").await;
    let door = scene.open(&["--max-streams", "1"]);
    let client = Client::connect(&door.base).await.unwrap();
    let handle = client
        .submit(Task::json("echo", &1).unwrap())
        .await
        .unwrap();
    let events = format!("/v1/task/{}/events", handle.id());
    let until = async |status: u16| {
        let began = Instant::now();
        while door.get(&events).send().await.unwrap().status() != status {
            assert!(began.elapsed() < DEADLINE, "never {status}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let waiting = awaited(handle.clone());
    until(503).await;
    waiting.abort();
    until(200).await;
    // It may be awaited again.
    let _worker = scene.work();
    assert_eq!(handle.await.unwrap().json::<u8>().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_of_handles_has_few_streams() {
    let double = Double::open(Script::default()).await;
    let client = double.client().await;
    let mut pace = pace();
    let mut waiting = Vec::new();
    for _ in 0..300 {
        waiting.push(awaited(client.handle(id()).unwrap()));
        pace.tick().await;
    }
    double
        .until("eight streams follow all", |asked| {
            let followed: usize = asked.open.values().map(Vec::len).sum();
            asked.open.len() <= 8 && followed == 300
        })
        .await;
    // One that gives way may end a moment after the next began.
    let most = double.asked(|asked| asked.most);
    assert!(most <= 16, "{most}");
    // Most are dropped: what is followed for nobody is at most as much as what is followed for somebody.
    for waiting in waiting.drain(10..) {
        waiting.abort();
    }
    double
        .until("streams shrink", |asked| {
            asked.open.values().map(Vec::len).sum::<usize>() <= 20
        })
        .await;
    for waiting in waiting {
        waiting.abort();
    }
    double
        .until("no stream for nobody", |asked| asked.open.is_empty())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_stream_fails_no_handle_and_is_asked_for_ever_less_often() {
    let began = Instant::now();
    let double = Double::open(Script {
        watch: Box::new(|_| Err(refused(Code::ResourceExhausted, Some("rate-limited")))),
        get: Box::new(move |id| match began.elapsed().as_secs() {
            0..3 => Ok(open(&id)),
            _ => Ok(ended(&id)),
        }),
        ..Script::default()
    })
    .await;
    let client = double.client().await;
    let handles = (0..50).map(|_| client.handle(id()).unwrap().timeout(DEADLINE));
    for result in join_all(handles.map(IntoFuture::into_future)).await {
        result.unwrap();
    }
    let watches = double.asked(|asked| asked.watches);
    assert!((2..=10).contains(&watches), "{watches}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_fewer_may_be_followed_streams_are_for_fewer() {
    let double = Double::open(Script {
        watch: Box::new(|ids| match ids.len() {
            ..=100 => Ok(ids.iter().map(|id| ended(id)).collect()),
            _ => Err(refused(Code::InvalidArgument, Some("too-large"))),
        }),
        get: Box::new(|id| Ok(open(&id))),
        ..Script::default()
    })
    .await;
    let client = double.client().await;
    let handles = (0..1_000).map(|_| client.handle(id()).unwrap().timeout(DEADLINE));
    for result in join_all(handles.map(IntoFuture::into_future)).await {
        result.unwrap();
    }
}
