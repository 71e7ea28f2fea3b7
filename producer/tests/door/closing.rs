//! A front door that is told to end: each of its streams has a last word, and what was accepted is answered.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use millrace_producer::v1::submit_stream_response::Answer;
use millrace_producer::v1::{SubmitRequest, WatchRequest};
use reqwest::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tonic::Code;

use crate::grpc::{client, problem};
use crate::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(20);

/// What is sent from now on, one after the other.
fn sent<T: Send + 'static>() -> (mpsc::Sender<T>, impl stream::Stream<Item = T> + Send) {
    let (sender, receiver) = mpsc::channel(4);
    let sent = stream::unfold(receiver, async |mut receiver: mpsc::Receiver<T>| {
        Some((receiver.recv().await?, receiver))
    });
    (sender, sent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_stream_has_a_last_word_when_its_front_door_closes() {
    let scene = Scene::new("door_closing").await;
    let mut door = scene.open(&[]);
    let id = door.submit(&json!({"type": "echo"})).await;

    let url = format!("ws://{}/v1/task/{id}/ws", door.address());
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    let first = timeout(PATIENCE, socket.next()).await.unwrap();
    assert!(matches!(first, Some(Ok(Message::Text(_)))), "{first:?}");

    let (tasks, requests) = sent();
    let mut client = client(&door).await;
    let task = SubmitRequest {
        r#type: "echo".to_owned(),
        payload: b"1".to_vec(),
        ..SubmitRequest::default()
    };
    tasks.send(task.clone()).await.unwrap();
    let mut answers = client.submit_stream(requests).await.unwrap().into_inner();
    let first = timeout(PATIENCE, answers.message()).await.unwrap();
    let first = first.unwrap().and_then(|answer| answer.answer);
    assert!(matches!(first, Some(Answer::TaskId(_))), "{first:?}");

    let (lines, body) = sent();
    lines
        .send("{\"type\":\"echo\"}\n".to_owned())
        .await
        .unwrap();
    let answer = door
        .post("/v1/tasks")
        .header("content-type", "application/x-ndjson")
        .body(Body::wrap_stream(body.map(Ok::<_, std::io::Error>)))
        .send();
    let mut told = answer.await.unwrap().bytes_stream();
    let mut line = async || -> Option<Value> {
        let chunk = timeout(PATIENCE, told.next()).await.unwrap()?;
        Some(serde_json::from_slice(&chunk.unwrap()).unwrap())
    };
    assert_eq!(line().await.unwrap()["status"], "accepted");

    door.terminate();
    let close = loop {
        match timeout(PATIENCE, socket.next()).await.unwrap() {
            Some(Ok(Message::Close(frame))) => break frame,
            Some(Ok(_)) => {}
            end => panic!("no closing word: {end:?}"),
        }
    };
    assert_eq!(u16::from(close.expect("a code").code), 1001);
    // The rest of the conversation is what RFC 6455 asks for.
    while let Some(Ok(_)) = timeout(PATIENCE, socket.next()).await.unwrap() {}
    let status = timeout(PATIENCE, answers.message())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(
        (status.code(), &*problem(&status)),
        (Code::Unavailable, "unavailable")
    );
    let last = line().await.expect("a last line");
    assert_eq!(
        (&last["status"], &last["error"]["type"]),
        (&json!("refused"), &json!("/problems/unavailable"))
    );
    assert!(line().await.is_none());
    assert!(timeout(PATIENCE, door.ended()).await.unwrap().success());
    drop((tasks, lines));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_larger_than_the_burst_is_taken_as_far_as_it_goes() {
    let scene = Scene::new("door_burst").await;
    let door = scene.open(&["--tenant-rate", "0.01", "--tenant-burst", "50"]);
    let lines = "{\"type\":\"echo\"}\n".repeat(60);
    let answer = door
        .post("/v1/tasks")
        .header("content-type", "application/x-ndjson")
        .body(lines)
        .send();
    let text = answer.await.unwrap().text().await.unwrap();
    let answers: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), 60);
    for (place, answer) in answers.iter().enumerate() {
        let expected = if place < 50 { "accepted" } else { "refused" };
        assert_eq!(answer["status"], expected, "{place}: {answer}");
    }
    assert_eq!(answers[59]["error"]["type"], "/problems/rate-limited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_many_tasks_leave_the_database_to_others() {
    let scene = Scene::new("door_first_looks").await;
    let door = scene.open(&[]);
    let mint = || millrace_schemas::TaskId::mint().to_string();
    // They are eighty thousand questions at once, four times as many as may wait at the desk.
    let client = client(&door).await;
    let streams = (0..8).map(|_| {
        let mut client = client.clone();
        let task_ids = (0..10_000).map(|_| mint()).collect();
        async move {
            client
                .watch(WatchRequest { task_ids })
                .await
                .unwrap()
                .into_inner()
        }
    });
    let streams = join_all(streams).await;
    for _ in 0..50 {
        let path = format!("/v1/task/{}/status", mint());
        assert_eq!(door.get(&path).send().await.unwrap().status(), 200);
    }
    drop(streams);
}
