//! Kafka away, Postgres away, both back: what is said meanwhile, and that nothing stays behind.

use std::time::{Duration, Instant};

use millrace_devstack::PrivatePostgres;
use serde_json::json;

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
    scene.broker.down().unwrap();
    // The first ones find out, and it is not known of them whether they got through.
    let answer = submit(&door, Some("unknown")).await;
    assert_problem(answer, 503, "outcome-unknown").await;
    let began = Instant::now();
    let mut early = 0;
    while early < 100 {
        let many = futures_util::future::join_all((0..200).map(|_| submit(&door, None))).await;
        for answer in many {
            assert!(answer.headers().contains_key("retry-after"));
            let (status, body) = parts(answer).await;
            assert_eq!(status.as_u16(), 503, "{body}");
            early += usize::from(body["type"] == "/problems/unavailable");
        }
        assert!(began.elapsed() < DEADLINE, "{early}");
    }
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
    postgres.stop().await.unwrap();
    assert_eq!(submit(&door, None).await.status(), 202, "Kafka is enough");
    let answer = submit(&door, Some("b")).await;
    assert_problem(answer, 503, "unavailable").await;
    let path = format!("/v1/task/{id}/status");
    assert_problem(door.get(&path).send().await.unwrap(), 503, "unavailable").await;
    let waiting = door.get(&format!("/v1/task/{id}/result?wait=50s"));
    postgres.start_again().await.unwrap();
    let answer = until_accepted(&door, Some("b")).await;
    assert_eq!(answer.status(), 202);
    let waiting = tokio::spawn(waiting.send());
    let _worker = scene.work();
    assert_eq!(
        waiting.await.unwrap().unwrap().status(),
        200,
        "notices are heard again"
    );
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
