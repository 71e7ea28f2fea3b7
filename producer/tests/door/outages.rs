//! Kafka away, Postgres away, both back: what is said meanwhile, and that nothing stays behind.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use millrace_devstack::PrivatePostgres;
use millrace_store::Purpose;
use serde_json::json;
use sqlx::Connection as _;

use crate::scene::{DEADLINE, Door, Scene, assert_problem, parts};

async fn submit(door: &Door, name: Option<&str>) -> reqwest::Response {
    let mut request = door
        .post("/v1/task/submit")
        .json(&json!({"type": "echo", "payload": 1}));
    if let Some(name) = name {
        request = request.header("idempotency-key", name);
    }
    request.send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_kafka_requests_are_refused_early_and_taken_again_when_it_is_back() {
    let scene = Scene::new("door_no_kafka").await;
    let door = scene.open(&["--submit-timeout", "2s", "--max-in-flight", "64"]);
    assert_eq!(submit(&door, None).await.status(), 202);
    let before = door.memory();
    scene.broker.down().unwrap();
    // The first ones find out, and it is not known of them whether they got through.
    let answer = submit(&door, Some("unknown")).await;
    assert_problem(answer, 503, "outcome-unknown").await;
    let began = Instant::now();
    let mut early = 0;
    while early < 100 {
        let many = join_all((0..200).map(|_| submit(&door, None))).await;
        for answer in many {
            assert!(answer.headers().contains_key("retry-after"));
            let (status, body) = parts(answer).await;
            assert_eq!(status.as_u16(), 503, "{body}");
            early += usize::from(body["type"] == "/problems/unavailable");
        }
        assert!(began.elapsed() < DEADLINE, "{early}");
    }
    let grown = door.memory() - before;
    assert!(grown < 64 << 20, "{grown} bytes more");
    scene.broker.up().unwrap();
    until_accepted(&door, None).await;
    // The one that was unknown is the same task still.
    let (_, first) = parts(until_accepted(&door, Some("unknown")).await).await;
    let (_, again) = parts(submit(&door, Some("unknown")).await).await;
    assert_eq!(first["task_id"], again["task_id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_postgres_plain_tasks_are_taken_and_named_ones_are_not() {
    let mut postgres = PrivatePostgres::start_temp().await.unwrap();
    let scene = Scene::at(postgres.url(), "door_no_postgres".to_owned(), None).await;
    let door = scene.open(&[]);
    let (_, body) = parts(submit(&door, Some("a")).await).await;
    let id = body["task_id"].as_str().unwrap().to_owned();
    // Whoever waits already goes on waiting.
    let waiting = door.get(&format!("/v1/task/{id}/result?wait=50s"));
    let waiting = tokio::spawn(waiting.send());
    tokio::time::sleep(Duration::from_millis(500)).await;
    postgres.stop().await.unwrap();
    assert_eq!(submit(&door, None).await.status(), 202, "Kafka is enough");
    let answer = submit(&door, Some("b")).await;
    assert_problem(answer, 503, "unavailable").await;
    let path = format!("/v1/task/{id}/status");
    assert_problem(door.get(&path).send().await.unwrap(), 503, "unavailable").await;
    postgres.start_again().await.unwrap();
    let answer = until_accepted(&door, Some("b")).await;
    assert_eq!(answer.status(), 202);
    let _worker = scene.work();
    assert_eq!(
        waiting.await.unwrap().unwrap().status(),
        200,
        "notices are heard again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_holds_up_named_tasks_only() {
    let scene = Scene::new("door_hung").await;
    let door = scene.open(&["--max-in-flight", "32"]);
    let mut held = scene.database.connect(Purpose::Operations).await.unwrap();
    let mut lock = held.begin().await.unwrap();
    for statement in [
        "SET LOCAL idle_in_transaction_session_timeout = 0",
        "LOCK TABLE idempotency_keys IN ACCESS EXCLUSIVE MODE",
    ] {
        sqlx::query(statement).execute(&mut *lock).await.unwrap();
    }
    let names: Vec<String> = (0..200).map(|n| format!("hung-{n}")).collect();
    let named = join_all(names.iter().map(async |name| {
        let began = Instant::now();
        let answer = submit(&door, Some(name)).await;
        assert_problem(answer, 503, "unavailable").await;
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "{:?}",
            began.elapsed()
        );
    }));
    // Those without a name do not notice, for longer than the others wait.
    let plain = async {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(7) {
            let one = Instant::now();
            assert_eq!(submit(&door, None).await.status(), 202);
            assert!(
                one.elapsed() < Duration::from_secs(2),
                "{:?}",
                one.elapsed()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::join!(named, plain);
    lock.rollback().await.unwrap();
    for name in ["hung-0", "hung-199"] {
        until_accepted(&door, Some(name)).await;
    }
}

async fn until_accepted(door: &Door, name: Option<&str>) -> reqwest::Response {
    let began = Instant::now();
    loop {
        let answer = submit(door, name).await;
        if answer.status() == 202 {
            return answer;
        }
        assert!(began.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
