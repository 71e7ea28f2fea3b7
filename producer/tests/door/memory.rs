//! What many callers together may hold: bodies, results that nobody reads, tasks that are followed.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use millrace_producer::v1::SubmitRequest;
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use crate::grpc::{client, problem};
use crate::scene::{DEADLINE, Door, Scene, assert_problem, parts};

const LONG: usize = 900_000;

/// Hands over a task with a long result and waits until it is there.
async fn with_long_result(door: &Door) -> String {
    let task = json!({"type": "echo", "payload": "x".repeat(LONG)});
    let id = door.submit(&task).await;
    door.until(&id, "success").await;
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_into_the_memory_for_bodies_is_refused_whichever_way_it_comes() {
    let scene = Scene::new("door_memory").await;
    let door = scene.open(&["--max-body-memory", "200000"]);
    let text = "x".repeat(300_000);
    let task = json!({"type": "echo", "payload": text});
    let answer = door.post("/v1/task/submit").json(&task).send().await;
    assert_problem(answer.unwrap(), 503, "unavailable").await;
    let lines = door
        .post("/v1/tasks")
        .header("content-type", "application/x-ndjson")
        .body(format!("{task}\n"));
    let (status, said) = parts(lines.send().await.unwrap()).await;
    assert_eq!(status, 200);
    assert_eq!(said["error"]["type"], "/problems/unavailable", "{said}");
    let mut client = client(&door).await;
    let call = SubmitRequest {
        r#type: "echo".to_owned(),
        payload: serde_json::to_vec(&text).unwrap(),
        ..SubmitRequest::default()
    };
    let refused = client.submit(call).await.unwrap_err();
    assert_eq!(
        (refused.code(), &*problem(&refused)),
        (Code::Unavailable, "unavailable")
    );
    // What was refused holds nothing.
    for _ in 0..20 {
        door.submit(&json!({"type": "echo", "payload": "x".repeat(100_000)}))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_that_nobody_reads_are_bounded_and_their_connections_end() {
    let scene = Scene::new("door_unread").await;
    // Room for two long results.
    let door = scene.open(&["--max-body-memory", "2500000"]);
    let _worker = scene.work();
    let id = with_long_result(&door).await;
    let path = format!("/v1/task/{id}/result");
    // Each asks for more than the system takes off the front door's hands, and reads nothing.
    let began = Instant::now();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(20);
    let mut unread = Vec::new();
    for _ in 0..2 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let address: std::net::SocketAddr = door.address().parse().unwrap();
        socket.connect(&address.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(socket.into()).unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        unread.push(stream);
    }
    let mut refused = false;
    while !refused {
        let (status, _) = parts(door.get(&path).send().await.unwrap()).await;
        refused = status == 503;
        assert!(refused || status == 200, "{status}");
        assert!(began.elapsed() < Duration::from_secs(25), "never bounded");
    }
    let cheap = json!({"type": "echo"});
    door.submit(&cheap).await;
    // After a while they are given up.
    loop {
        let (status, _) = parts(door.get(&path).send().await.unwrap()).await;
        if status == 200 && began.elapsed() > Duration::from_secs(29) {
            break;
        }
        assert!(began.elapsed() < DEADLINE, "{status}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let read = join_all(unread.iter_mut().map(async |stream| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        all.len()
    }));
    for length in read.await {
        assert!(length < 20 * LONG, "all of it was written");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_are_followed_are_bounded_over_all_streams() {
    let scene = Scene::new("door_followed").await;
    let door = scene.open(&["--max-followed", "10"]);
    let mut ids = Vec::new();
    for _ in 0..11 {
        ids.push(door.submit(&json!({"type": "echo"})).await);
    }
    let follow = |ids: &[String]| {
        door.get(&format!("/v1/events?ids={}", ids.join(",")))
            .send()
    };
    assert_problem(follow(&ids).await.unwrap(), 503, "unavailable").await;
    let first = follow(&ids[..6]).await.unwrap();
    assert_eq!(first.status(), 200);
    assert_problem(follow(&ids[6..]).await.unwrap(), 503, "unavailable").await;
    let second = follow(&ids[6..10]).await.unwrap();
    assert_eq!(second.status(), 200);
    drop(first);
    let began = Instant::now();
    while follow(&ids[6..]).await.unwrap().status() != 200 {
        assert!(began.elapsed() < DEADLINE, "a closed stream follows on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
