//! Many tasks in one request: an answer for each, in order.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::scene::{Scene, assert_problem, parts};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_array_is_answered_item_by_item() {
    let scene = Scene::new("door_array").await;
    let door = scene.open(&["--max-bulk-tasks", "100"]);
    let tasks: Vec<Value> = (0..100)
        .map(|n| json!({"type": "echo", "payload": n}))
        .collect();
    let (status, body) = parts(door.post("/v1/tasks").json(&tasks).send().await.unwrap()).await;
    assert_eq!((status.as_u16(), &body["accepted"]), (202, &json!(100)));
    let mixed = json!([{"type": "echo"}, {"payload": 1}, 7, {"type": "echo", "run_at": "x"}]);
    let (status, body) = parts(door.post("/v1/tasks").json(&mixed).send().await.unwrap()).await;
    assert_eq!((status.as_u16(), &body["accepted"]), (207, &json!(1)));
    let items = body["items"].as_array().unwrap();
    assert_eq!(items.len(), 4);
    assert_eq!(items[3]["error"]["at"], "/run_at");
    let too_many: Vec<Value> = (0..101).map(|_| json!({"type": "echo"})).collect();
    let answer = door.post("/v1/tasks").json(&too_many).send().await.unwrap();
    assert_problem(answer, 413, "too-large").await;
    let answer = door
        .post("/v1/tasks")
        .json(&json!({"type": "echo"}))
        .send()
        .await
        .unwrap();
    assert_problem(answer, 400, "bad-request").await;
    let empty = parts(
        door.post("/v1/tasks")
            .json(&json!([]))
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!((empty.0.as_u16(), &empty.1["accepted"]), (202, &json!(0)));
    let _worker = scene.work();
    let last = door.submit(&json!({"type": "echo"})).await;
    door.until(&last, "success").await;
    let successes = "SELECT count(*) FROM task_results WHERE status = 'success'";
    while scene.number(successes).await < 102 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_answered_while_it_is_sent() {
    let scene = Scene::new("door_stream").await;
    let door = scene.open(&[]);
    let (lines, receiver) = mpsc::channel::<String>(1);
    let body = futures_util::stream::unfold(receiver, |mut receiver| async {
        let line = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(line), receiver))
    });
    let sending = door
        .post("/v1/tasks")
        .header("content-type", "application/x-ndjson")
        .body(Body::wrap_stream(body))
        .send();
    let first = lines.send("{\"type\":\"echo\",\"payload\":1}\n\n{\"type\"".to_owned());
    let (answer, _) = tokio::join!(sending, first);
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    let mut answers = answer.bytes_stream();
    let mut next = async || -> Value {
        let chunk = tokio::time::timeout(Duration::from_secs(20), answers.next()).await;
        serde_json::from_slice(&chunk.expect("an answer").expect("one more").unwrap()).unwrap()
    };
    assert_eq!(next().await["status"], "accepted", "before the stream ends");
    lines
        .send(":\"echo\"}\nno task\n".to_owned())
        .await
        .unwrap();
    let mut rest = Vec::new();
    drop(lines);
    while let Some(chunk) = answers.next().await {
        rest.extend_from_slice(&chunk.unwrap());
    }
    let rest: Vec<Value> = rest
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let words: Vec<_> = rest
        .iter()
        .map(|answer| answer["status"].as_str().unwrap())
        .collect();
    assert_eq!(words, ["accepted", "refused"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_lines_are_twenty_thousand_tasks() {
    let scene = Scene::new("door_lines").await;
    let door = scene.open(&[]);
    let lines: String = (0..20_000)
        .map(|n| {
            format!(
                "{{\"type\":\"echo\",\"payload\":{n},\"key\":\"k{}\"}}\n",
                n % 50
            )
        })
        .collect();
    let answer = door
        .post("/v1/tasks")
        .header("content-type", "application/x-ndjson")
        .body(lines)
        .send()
        .await
        .unwrap();
    let text = answer.text().await.unwrap();
    assert_eq!(text.lines().count(), 20_000);
    let accepted = text.lines().filter(|line| line.contains("\"accepted\""));
    assert_eq!(accepted.count(), 20_000);
}
