//! The same by HTTP/2, frame by frame: calls whose message never comes, is packed, or does not fit, and a flood.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::rough::{assert_serves, connect};
use crate::scene::{Door, Scene};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;

/// A frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literals without indexing (RFC 7541, section 6.2.2).
fn headers(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in pairs {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

fn call(stream: u32, flags: u8, more: &[(&str, &str)]) -> Vec<u8> {
    let mut pairs = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "x"),
        (":path", "/millrace.v1.Tasks/Submit"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    pairs.extend(more);
    frame(HEADERS, flags, stream, &headers(&pairs))
}

struct Spoken(TcpStream);

impl Spoken {
    async fn with(door: &Door) -> Self {
        let mut stream = connect(door).await;
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        Self(stream)
    }

    async fn say(&mut self, frames: &[u8]) {
        self.0.write_all(frames).await.unwrap();
    }

    /// The next frame that is no matter of course: its kind and payload; none when the connection ended.
    async fn hear(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await.ok()?;
            match head[3] {
                SETTINGS if head[4] & ACK == 0 => {
                    let _ = self.0.write_all(&frame(SETTINGS, ACK, 0, &[])).await;
                }
                // Pings are answered, windows passed over.
                6 if head[4] & ACK == 0 => {
                    let _ = self.0.write_all(&frame(6, ACK, 0, &payload)).await;
                }
                kind @ (DATA | HEADERS | RST_STREAM | GOAWAY) => return Some((kind, payload)),
                _ => {}
            }
        }
    }
}

fn message(length: u32, some: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(length.to_be_bytes());
    bytes.extend(some);
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_message_does_not_come_or_is_packed_is_answered() {
    let scene = Scene::new("door_h2_slow").await;
    let door = scene.open(&[]);
    let mut packed = Spoken::with(&door).await;
    packed
        .say(&call(1, END_HEADERS, &[("grpc-encoding", "gzip")]))
        .await;
    packed
        .say(&frame(DATA, END_STREAM, 1, &[1, 0, 0, 0, 2, 31, 139]))
        .await;
    let heard = timeout(Duration::from_secs(10), packed.hear()).await;
    assert!(matches!(heard, Ok(Some((HEADERS, _)))), "{heard:?}");
    let began = Instant::now();
    let mut slow = Spoken::with(&door).await;
    slow.say(&call(1, END_HEADERS, &[])).await;
    slow.say(&frame(DATA, 0, 1, &message(1_000, b"some"))).await;
    assert_serves(&door).await;
    // A byte now and then does not make it a message.
    let heard = loop {
        match timeout(Duration::from_secs(2), slow.hear()).await {
            Ok(heard) => break heard,
            Err(_) => slow.say(&frame(DATA, 0, 1, b" ")).await,
        }
        assert!(began.elapsed() < Duration::from_secs(45), "never answered");
    };
    assert!(matches!(heard, Some((HEADERS, _))), "{heard:?}");
    assert!(began.elapsed() > Duration::from_secs(25));
    assert_serves(&door).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_small_calls_as_a_connection_may_have_come_at_once() {
    let scene = Scene::new("door_h2_many").await;
    let door = scene.open(&[]);
    let mut many = Spoken::with(&door).await;
    let mut frames = Vec::new();
    // SubmitRequest's fields 1 and 2, type and payload. The end comes apart, as many clients send it.
    let task = message(9, b"\x0a\x04echo\x12\x011");
    for stream in (1..2_000).step_by(2) {
        frames.extend(call(stream, END_HEADERS, &[]));
        frames.extend(frame(DATA, 0, stream, &task));
    }
    for stream in (1..2_000).step_by(2) {
        frames.extend(frame(DATA, END_STREAM, stream, &[]));
    }
    many.say(&frames).await;
    let mut answers = 0;
    while answers < 1_000 {
        match timeout(Duration::from_secs(30), many.hear()).await {
            Ok(Some((DATA, _))) => answers += 1,
            Ok(Some((HEADERS, _))) => {}
            other => panic!("{answers} answers, then {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_taken_back_at_once_end_their_connection_only() {
    let scene = Scene::new("door_h2_flood").await;
    let door = scene.open(&[]);
    let mut flood = Spoken::with(&door).await;
    let mut frames = Vec::new();
    for stream in (1..20_000).step_by(2) {
        frames.extend(call(stream, END_HEADERS, &[]));
        frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let (mut reading, mut writing) = flood.0.into_split();
    let write = async { writing.write_all(&frames).await };
    let read = async {
        let mut sink = Vec::new();
        let ended = timeout(Duration::from_secs(20), reading.read_to_end(&mut sink)).await;
        ended.is_ok()
    };
    let (_, ended) = tokio::join!(write, read);
    assert!(ended, "10,000 resets are taken");
    assert_serves(&door).await;
    // Frames that make no sense end theirs as well.
    for nonsense in [
        frame(DATA, 0, 7, b"of no stream"),
        frame(HEADERS, END_HEADERS, 1, &[0xff; 64]),
        frame(9, 0, 1, b"goes on with nothing"),
    ] {
        flood = Spoken::with(&door).await;
        flood.say(&nonsense).await;
        let heard = timeout(Duration::from_secs(10), flood.hear()).await;
        assert!(
            matches!(heard, Ok(Some((GOAWAY | RST_STREAM, _)) | None)),
            "{heard:?}"
        );
    }
    assert_serves(&door).await;
}
