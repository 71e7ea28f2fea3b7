//! Pace, progress and what can be scraped while events go out.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::scene::{Scene, numbered};

#[test]
fn the_rate_is_kept() {
    let scene = Scene::new();
    let file = scene.file("a", numbered(1_000));
    let ended = scene.emit(&["--rate", "1000", &file]);
    assert_eq!((ended.code, ended.counts()), (0, (1_000, 1_000, 0)));
    let seconds = ended.summary["seconds"].as_f64().unwrap();
    assert!(
        (0.9..3.0).contains(&seconds),
        "{seconds} s for 1,000 events at 1,000/s"
    );
}

#[test]
fn off_a_terminal_progress_is_a_line_every_few_seconds() {
    let scene = Scene::new();
    let file = scene.file("a", numbered(600));
    let ended = scene.emit(&["--rate", "100", "--log-format", "json", &file]);
    let line = ended
        .words
        .lines()
        .find(|line| line.contains("emitting"))
        .unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert!(
        (400..=600).contains(&line["acknowledged"].as_u64().unwrap()),
        "{line}"
    );
    assert!(
        line["events_per_s"].is_u64() && line["left"].is_string(),
        "{line}"
    );
}

#[test]
fn counts_can_be_scraped_while_events_go_out() {
    let scene = Scene::new();
    let mut child = scene.spawn(&["--metrics-listen", "127.0.0.1:0", "-"]);
    let mut input = child.stdin.take().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    let address = loop {
        line.clear();
        assert!(
            log.read_line(&mut line).unwrap() > 0,
            "no address was printed"
        );
        if let Some((_, rest)) = line.split_once("http://") {
            break rest.split('/').next().unwrap().trim().to_owned();
        }
    };
    input.write_all(numbered(20).as_bytes()).unwrap();
    input.flush().unwrap();
    scene.wait_for_count(20);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let sample = "millrace_emit_acknowledged_total{topic=\"tasks\"} 20";
    while !get(&address, "/metrics").contains(sample) {
        assert!(
            std::time::Instant::now() < deadline,
            "{}",
            get(&address, "/metrics")
        );
    }
    assert!(get(&address, "/metrics").contains("millrace_emit_read_total{topic=\"tasks\"} 20"));
    assert!(get(&address, "/metrics").contains("millrace_build_info"));
    assert!(get(&address, "/readyz").starts_with("HTTP/1.1 200"));
    drop(input);
    assert!(child.wait().unwrap().success());
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
