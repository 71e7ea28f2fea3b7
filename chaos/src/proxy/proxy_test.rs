#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{Line, Weather};

const LIMIT: Duration = Duration::from_secs(10);

/// A server that repeats what it hears, behind a line.
async fn echo_behind_a_line() -> Line {
    let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let line = Line::open().await.unwrap();
    line.lead_to(server.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    line
}

async fn connect(line: &Line) -> TcpStream {
    TcpStream::connect(("127.0.0.1", line.port()))
        .await
        .unwrap()
}

async fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"ping").await?;
    let mut answer = [0; 4];
    timeout(LIMIT, stream.read_exact(&mut answer))
        .await
        .unwrap()?;
    assert_eq!(&answer, b"ping");
    Ok(())
}

#[tokio::test]
async fn bytes_flow_both_ways_and_a_cut_ends_only_what_was_connected() {
    let line = echo_behind_a_line().await;
    let mut old = connect(&line).await;
    ask(&mut old).await.unwrap();
    line.cut();
    assert!(ask(&mut old).await.is_err());
    ask(&mut connect(&line).await).await.unwrap();
}

#[tokio::test]
async fn a_hole_holds_bytes_back_and_delivers_them_when_it_is_healed() {
    let line = echo_behind_a_line().await;
    let mut stream = connect(&line).await;
    ask(&mut stream).await.unwrap();
    line.set(Weather {
        hole: true,
        ..Weather::default()
    });
    stream.write_all(b"held").await.unwrap();
    let mut answer = [0; 4];
    let early = timeout(Duration::from_millis(200), stream.read_exact(&mut answer)).await;
    assert!(early.is_err());
    line.heal();
    timeout(LIMIT, stream.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"held");
}

#[tokio::test]
async fn a_line_that_refuses_closes_new_connections_and_keeps_old_ones() {
    let line = echo_behind_a_line().await;
    let mut old = connect(&line).await;
    ask(&mut old).await.unwrap();
    line.set(Weather {
        refuse: true,
        ..Weather::default()
    });
    assert!(ask(&mut connect(&line).await).await.is_err());
    ask(&mut old).await.unwrap();
}

#[tokio::test]
async fn a_slow_line_takes_its_time() {
    let line = echo_behind_a_line().await;
    line.set(Weather {
        latency: Duration::from_millis(60),
        bytes_per_s: Some(100),
        ..Weather::default()
    });
    let mut stream = connect(&line).await;
    let began = Instant::now();
    ask(&mut stream).await.unwrap();
    // Each way 60 ms, and 4 bytes at 100 bytes a second.
    assert!(
        began.elapsed() >= Duration::from_millis(190),
        "{:?}",
        began.elapsed()
    );
}
