//! Requests that are slow, endless, oversized, malformed or half-closed: each harms only itself.

use std::io::Write as _;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::scene::{Door, Scene, parts};

pub async fn connect(door: &Door) -> TcpStream {
    TcpStream::connect(door.address()).await.unwrap()
}

/// What a connection still has to say.
pub struct Rest {
    pub text: String,
    /// The other side closed it; else it had nothing to say for as long as was waited.
    pub closed: bool,
}

/// What comes back until the other side closes, or nothing comes for so long.
pub async fn rest(stream: &mut TcpStream, patience: Duration) -> Rest {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let closed = loop {
        match tokio::time::timeout(patience, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => break true,
            Ok(Ok(read)) => bytes.extend_from_slice(&buffer[..read]),
            Err(_) => break false,
        }
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Rest { text, closed }
}

/// Somebody else is served promptly meanwhile.
pub async fn assert_serves(door: &Door) {
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

pub const HEAD: &str =
    "POST /v1/task/submit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";

const LINES: &str = "POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n\
     Transfer-Encoding: chunked\r\n\r\n";

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_slow_to_come_ends_by_itself() {
    let scene = Scene::new("door_slow").await;
    let door = scene.open(&[]);
    // One says nothing at all, one might still become HTTP/2, one never ends its first line.
    let mut quiet = Vec::new();
    for (some, count) in [
        ("", 50),
        ("PRI * HTTP/2", 50),
        ("GET /v1/task/x/status HTT", 50),
    ] {
        for _ in 0..count {
            let mut stream = connect(&door).await;
            stream.write_all(some.as_bytes()).await.unwrap();
            quiet.push((some, stream));
        }
    }
    let mut slow_body = connect(&door).await;
    let head = format!("{HEAD}Content-Length: 100\r\n\r\n{{\"type\"");
    slow_body.write_all(head.as_bytes()).await.unwrap();
    let mut slow_line = connect(&door).await;
    let lines = format!("{LINES}8\r\n{{\"type\":\r\n");
    slow_line.write_all(lines.as_bytes()).await.unwrap();
    assert_serves(&door).await;
    let patience = Duration::from_secs(45);
    let quiet = join_all(quiet.iter_mut().map(async |(some, stream)| {
        let Rest { text, closed } = rest(stream, patience).await;
        assert!(closed, "{some:?} stays open");
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 408"),
            "{some:?}: {text}"
        );
    }));
    // A byte now and then does not make a line that ends.
    let dripping = async {
        for _ in 0..45 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if slow_line.write_all(b"1\r\n \r\n").await.is_err() {
                break;
            }
        }
        rest(&mut slow_line, Duration::from_secs(1)).await.text
    };
    let (_, body, line) = tokio::join!(quiet, rest(&mut slow_body, patience), dripping);
    assert!(body.text.starts_with("HTTP/1.1 400"), "{}", body.text);
    assert!(body.text.contains("did not arrive within"), "{}", body.text);
    assert!(line.contains("no whole line came for"), "{line}");
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
    let answer = rest(&mut told, Duration::from_secs(10)).await.text;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // One whose length is not, as soon as it is too long.
    let mut chunked = connect(&door).await;
    let head = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    chunked.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = chunked.split();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(65_536));
    let write = async {
        let mut sent = 0;
        while sent < 1_000 && writing.write_all(chunk.as_bytes()).await.is_ok() {
            sent += 1;
        }
        sent
    };
    let mut answer = [0; 12];
    let (sent, read) = tokio::join!(write, reading.read_exact(&mut answer));
    assert!(sent < 1_000, "64 MiB were taken");
    read.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    // A line without an end, too: what came before it was answered.
    let mut line = connect(&door).await;
    let lines = format!("{LINES}10\r\n{{\"type\":\"echo\"}}\n\r\n");
    line.write_all(lines.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = line.split();
    let write = async {
        let mut sent = 0;
        while sent < 1_000 && writing.write_all(chunk.as_bytes()).await.is_ok() {
            sent += 1;
        }
        sent
    };
    let read = async {
        let mut text = String::new();
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = reading.read(&mut buffer).await {
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
            if text.contains("too-large") {
                break;
            }
        }
        text
    };
    let (sent, answers) = tokio::join!(write, read);
    assert!(sent < 1_000, "64 MiB were taken");
    assert!(answers.contains("\"accepted\""), "{answers}");
    assert!(answers.contains("/problems/too-large"), "{answers}");
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
        let answer = rest(&mut stream, Duration::from_secs(10)).await.text;
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
        let answer = rest(&mut stream, Duration::from_secs(3)).await.text;
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
    // What is small on the wire does not become large here: neither one task, nor many, nor lines.
    let bomb = packed(&vec![b' '; 64 << 20]);
    for (path, content_type) in [
        ("/v1/task/submit", "application/json"),
        ("/v1/tasks", "application/json"),
        ("/v1/tasks", "application/x-ndjson"),
    ] {
        let mut stream = connect(&door).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Encoding: gzip\r\n\
             Content-Length: {}\r\n\r\n",
            bomb.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let _ = stream.write_all(&bomb).await;
        let answer = rest(&mut stream, Duration::from_secs(3)).await.text;
        assert!(answer.starts_with("HTTP/1.1 415"), "{path}: {answer}");
    }
    // Nor does one who only reads its own half hinder anybody: the body never comes, and the other half is closed.
    let mut cut = connect(&door).await;
    let request = format!("{HEAD}Content-Length: 100\r\n\r\n{{");
    cut.write_all(request.as_bytes()).await.unwrap();
    cut.shutdown().await.unwrap();
    let answer = rest(&mut cut, Duration::from_secs(10)).await;
    assert!(answer.closed, "{}", answer.text);
    // A client that has said all it has to say still hears the answer.
    let mut half = connect(&door).await;
    let task = r#"{"type":"echo"}"#;
    let request = format!("{HEAD}Content-Length: {}\r\n\r\n{task}", task.len());
    half.write_all(request.as_bytes()).await.unwrap();
    half.shutdown().await.unwrap();
    let answer = rest(&mut half, Duration::from_secs(10)).await.text;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert_serves(&door).await;
}
