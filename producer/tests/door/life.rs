//! A task's whole life by way of one front door, or two.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::scene::{Scene, assert_problem, parts};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_accepted_at_one_front_door_and_its_result_found_at_another() {
    let scene = Scene::new("door_life").await;
    let (one, other) = (scene.open(&[]), scene.open(&[]));
    let task = json!({"type": "echo", "payload": {"b": 1.0, "a": [null, "é"]}, "key": "k"});
    let answer = one
        .post("/v1/task/submit")
        .json(&task)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 202);
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    assert!(answer.headers().contains_key("retry-after"));
    assert!(answer.headers().contains_key("x-request-id"));
    let id = parts(answer).await.1["task_id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(location, format!("/v1/task/{id}/status"));
    let (status, body) = parts(other.get(&location).send().await.unwrap()).await;
    assert_eq!(
        (status.as_u16(), &body["status"]),
        (200, &json!("accepted"))
    );
    let result = format!("/v1/task/{id}/result");
    let answer = other.get(&result).send().await.unwrap();
    assert_eq!(answer.status(), 202, "nobody works yet");
    assert_eq!(answer.headers()["location"], *location);
    // Somebody waits at the other front door before there is a worker.
    let waiting = tokio::spawn(other.get(&format!("{result}?wait=60s")).send());
    let _worker = scene.work();
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let etag = answer.headers()["etag"].to_str().unwrap().to_owned();
    assert!(
        answer.headers()["cache-control"]
            .to_str()
            .unwrap()
            .contains("max-age")
    );
    assert_eq!(parts(answer).await.1, task["payload"]);
    let again = one
        .get(&result)
        .header("if-none-match", &etag)
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), 304);
    let (_, body) = parts(one.get(&location).send().await.unwrap()).await;
    assert_eq!(
        (&body["status"], &body["attempts"]),
        (&json!("success"), &json!(1))
    );
    assert!(body["completed_at"].as_str() >= body["submitted_at"].as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preference_to_wait_answers_with_the_result_or_says_that_it_is_under_way() {
    let scene = Scene::new("door_prefer").await;
    let door = scene.open(&[]);
    let _worker = scene.work();
    door.until(&door.submit(&json!({"type": "echo"})).await, "success")
        .await;
    let submit = |task: serde_json::Value, wait: &str| {
        let request = door.post("/v1/task/submit").json(&task);
        request.header("prefer", format!("wait={wait}")).send()
    };
    let began = Instant::now();
    let answer = submit(json!({"type": "echo", "payload": [7]}), "10")
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["preference-applied"], "wait=10");
    assert_eq!(parts(answer).await.1, json!([7]));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let answer = submit(json!({"type": "slow", "payload": 30_000}), "1")
        .await
        .unwrap();
    assert_eq!(answer.status(), 202);
    assert!(answer.headers().contains_key("location"));
    let answer = submit(json!({"type": "refuse", "payload": "this"}), "10")
        .await
        .unwrap();
    let problem = assert_problem(answer, 422, "task-failed").await;
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("never \"this\""),
        "{problem}"
    );
    assert!(problem["task_id"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_bytes_go_in_and_a_trace_comes_out() {
    let scene = Scene::new("door_raw").await;
    let door = scene.open(&[]);
    let _worker = scene.work();
    let answer = door
        .post("/v1/task/submit?type=record-these&key=a%20b")
        .header("content-type", "image/png")
        .body(vec![0_u8, 159, 255])
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 202);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = door
        .post("/v1/task/submit")
        .header("prefer", "wait=20")
        .header("traceparent", parent)
        .json(&json!({"type": "trace"}))
        .send()
        .await
        .unwrap();
    assert_eq!(
        parts(answer).await,
        (reqwest::StatusCode::OK, json!(parent))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_and_what_runs_is_cancelled_and_what_is_done_stays() {
    let scene = Scene::new("door_cancel").await;
    let door = scene.open(&[]);
    let waiting = door.submit(&json!({"type": "echo"})).await;
    let cancel = async |id: &str| {
        let path = format!("/v1/task/{id}/cancel");
        parts(door.post(&path).send().await.unwrap()).await
    };
    let (status, body) = cancel(&waiting).await;
    assert_eq!(
        (status.as_u16(), &body["cancel_requested"]),
        (202, &json!(true))
    );
    let _worker = scene.work();
    door.until(&waiting, "cancelled").await;
    let running = door
        .submit(&json!({"type": "slow", "payload": 60_000}))
        .await;
    door.until(&running, "processing").await;
    cancel(&running).await;
    door.until(&running, "cancelled").await;
    let result = format!("/v1/task/{running}/result");
    let answer = door.get(&result).send().await.unwrap();
    assert_problem(answer, 422, "task-cancelled").await;
    let (status, body) = cancel(&running).await;
    assert_eq!(
        (status.as_u16(), &body["status"]),
        (200, &json!("cancelled"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_is_unknown_once_every_partition_has_passed_its_birth_and_gone_with_its_day() {
    let scene = Scene::new("door_unknown").await;
    let door = scene.open(&[]);
    let nobody = millrace_schemas::TaskId::mint().to_string();
    let path = format!("/v1/task/{nobody}/status");
    let (status, body) = parts(door.get(&path).send().await.unwrap()).await;
    assert_eq!(
        (status.as_u16(), &body["status"]),
        (200, &json!("accepted")),
        "it may be on its way"
    );
    let _worker = scene.work();
    let began = Instant::now();
    loop {
        let answer = door.get(&path).send().await.unwrap();
        if answer.status() == 404 {
            assert_problem(answer, 404, "not-found").await;
            break;
        }
        assert!(began.elapsed() < crate::scene::DEADLINE);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let old = millrace_schemas::TaskId::mint_at(1_600_000_000_000);
    let answer = door
        .get(&format!("/v1/task/{old}/result"))
        .send()
        .await
        .unwrap();
    assert_problem(answer, 410, "gone").await;
}
