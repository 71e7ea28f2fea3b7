//! Requests that are slow, endless, oversized, malformed or half-closed: each harms only itself.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::scene::{Door, Scene, parts};

async fn connect(door: &Door) -> TcpStream {
    TcpStream::connect(door.address()).await.unwrap()
}

/// What comes back until the other side closes, or nothing comes for so long.
async fn rest(stream: &mut TcpStream, patience: Duration) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(read)) = tokio::time::timeout(patience, stream.read(&mut buffer)).await {
        if read == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Somebody else is served promptly meanwhile.
async fn assert_serves(door: &Door) {
    let began = Instant::now();
    let answer = door.post("/v1/task/submit").json(&json!({"type": "echo"}));
    let (status, body) = parts(answer.send().await.unwrap()).await;
    assert_eq!(status.as_u16(), 202, "{body}");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

const HEAD: &str = "POST /v1/task/submit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_slow_to_come_ends_by_itself() {
    let scene = Scene::new("door_slow").await;
    let door = scene.open(&[]);
    let mut slow_heads = Vec::new();
    for _ in 0..200 {
        let mut stream = connect(&door).await;
        stream
            .write_all(b"GET /v1/task/x/status HTT")
            .await
            .unwrap();
        slow_heads.push(stream);
    }
    let mut slow_body = connect(&door).await;
    let head = format!("{HEAD}Content-Length: 100\r\n\r\n{{\"type\"");
    slow_body.write_all(head.as_bytes()).await.unwrap();
    assert_serves(&door).await;
    let answer = rest(&mut slow_body, Duration::from_secs(45)).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("did not arrive within"), "{answer}");
    for stream in &mut slow_heads {
        let answer = rest(stream, Duration::from_secs(45)).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
            "{answer}"
        );
    }
    assert_serves(&door).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_or_oversized_request_is_cut_short() {
    let scene = Scene::new("door_endless").await;
    let door = scene.open(&[]);
    // A body whose length is told is refused before it comes.
    let mut told = connect(&door).await;
    let head = format!("{HEAD}Content-Length: 100000000000\r\n\r\n");
    told.write_all(head.as_bytes()).await.unwrap();
    told.write_all(&[b' '; 8192]).await.unwrap();
    let answer = rest(&mut told, Duration::from_secs(10)).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // One whose length is not, as soon as it is too long.
    let mut chunked = connect(&door).await;
    let head = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    chunked.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(65_536));
    let mut sent = 0;
    while chunked.write_all(chunk.as_bytes()).await.is_ok() && sent < 1_000 {
        sent += 1;
    }
    assert!(sent < 1_000, "64 MiB were taken");
    // Heads that are too long, or have too many lines.
    for head in [
        format!(
            "GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
            "a".repeat(100_000)
        ),
        format!(
            "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
            "A: b\r\n".repeat(500)
        ),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000)),
    ] {
        let mut stream = connect(&door).await;
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = rest(&mut stream, Duration::from_secs(10)).await;
        let code: u16 = answer
            .get(9..12)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        assert!([0, 400, 414, 431].contains(&code), "{answer}");
    }
    assert_serves(&door).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_deep_nesting_and_half_closed_connections_harm_nobody() {
    let scene = Scene::new("door_nonsense").await;
    let door = scene.open(&[]);
    for nonsense in [
        "\0\0\0\0\0\0\0\0".to_owned(),
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame".to_owned(),
        format!("{HEAD}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        format!("{HEAD}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{HEAD}Transfer-Encoding: chunked\r\n\r\nZZ\r\n"),
    ] {
        let mut stream = connect(&door).await;
        let _ = stream.write_all(nonsense.as_bytes()).await;
        let answer = rest(&mut stream, Duration::from_secs(3)).await;
        assert!(!answer.starts_with("HTTP/1.1 5"), "{nonsense:?}: {answer}");
    }
    let deep = format!(
        r#"{{"type":"t","payload":{}{}}}"#,
        "[".repeat(500_000),
        "]".repeat(500_000)
    );
    let request = door
        .post("/v1/task/submit")
        .header("content-type", "application/json");
    let (status, body) = parts(request.body(deep).send().await.unwrap()).await;
    assert_eq!(status.as_u16(), 400, "{body}");
    // A client that has said all it has to say still hears the answer.
    let mut half = connect(&door).await;
    let task = r#"{"type":"echo"}"#;
    let request = format!("{HEAD}Content-Length: {}\r\n\r\n{task}", task.len());
    half.write_all(request.as_bytes()).await.unwrap();
    half.shutdown().await.unwrap();
    let answer = rest(&mut half, Duration::from_secs(10)).await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert_serves(&door).await;
}
