//! Lines that do not become events.

use millrace_devstack::EmbeddedBroker;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::Value;

use super::scene::{Scene, numbered};

fn rejects(scene: &Scene) -> Vec<Value> {
    let text = std::fs::read_to_string(scene.path("rejects")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_first_rejected_line_stops_after_everything_before_it_is_acknowledged() {
    let scene = Scene::new();
    let file = scene.file(
        "a.ndjson",
        format!("{}\n{{\"n\":}}\n{}", numbered(1_000), numbered(5)),
    );
    let ended = scene.emit(&[&file]);
    assert_eq!((ended.code, ended.counts()), (1, (1_001, 1_000, 1)));
    assert_eq!(scene.count(), 1_000);
    let place = format!("{file}:1002:6: rejected: broken JSON: expected value");
    assert!(ended.words.contains(&place), "{}", ended.words);
    assert!(
        ended
            .words
            .contains("every event before it is acknowledged")
    );
    assert!(
        ended
            .words
            .contains("--from-line 1002, or leave it out with --from-line 1003")
    );
    let ended = scene.emit(&["--from-line", "1003", &file]);
    assert_eq!(
        (ended.code, ended.counts()),
        (0, (5, 5, 0)),
        "{}",
        ended.words
    );
    assert_eq!(scene.count(), 1_005);
}

#[test]
fn with_a_rejects_file_the_others_are_sent_and_the_rejected_written_down() {
    let scene = Scene::new();
    let file = scene.file(
        "a.ndjson",
        b"{\"id\":1}\n[1]\n\n{\"id\":null}\n{\"x\":1}\n{\"id\":\"\xff\"}\n{\"id\":2.5}\r\n{\"id\":{}}\n{\"id\":2}\n",
    );
    let path = scene.path("rejects");
    let ended = scene.emit(&[
        "--dedup-field",
        "/id",
        "--rejects",
        path.to_str().unwrap(),
        &file,
    ]);
    assert_eq!(
        (ended.code, ended.counts()),
        (1, (8, 2, 6)),
        "{}",
        ended.words
    );
    assert!(ended.words.contains("6 rejected: see "), "{}", ended.words);
    let rejects = rejects(&scene);
    let found: Vec<_> = rejects
        .iter()
        .map(|reject| {
            (
                reject["line"].as_u64().unwrap(),
                reject["column"].as_u64().unwrap(),
                reject["raw"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (2, 1, "[1]"),
            (4, 7, "{\"id\":null}"),
            (5, 1, "{\"x\":1}"),
            (6, 8, "{\"id\":\"\u{fffd}\"}"),
            (7, 7, "{\"id\":2.5}"),
            (8, 7, "{\"id\":{}}"),
        ]
    );
    assert!(
        rejects
            .iter()
            .all(|reject| reject["file"] == *file && reject["reason"].is_string())
    );
    let keys: Vec<_> = rejects[0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["column", "file", "line", "raw", "reason"]);
    assert_eq!(scene.payloads(), ["{\"id\":1}", "{\"id\":2}"]);
}

#[test]
fn an_event_over_the_size_limit_is_rejected_however_long_its_line() {
    let scene = Scene::new();
    let fits = format!("{{\"a\":\"{}\"}}\n", "x".repeat(800));
    let over_when_encoded = format!("{{\"a\":\"{}\"}}\n", "x".repeat(985));
    let very_long = format!("{{\"a\":\"{}\"}}\n", "x".repeat(3_000_000));
    let file = scene.file(
        "a",
        [fits.as_str(), &over_when_encoded, &very_long, &fits].concat(),
    );
    let path = scene.path("rejects");
    let ended = scene.emit(&[
        "--max-event-bytes",
        "1000",
        "--rejects",
        path.to_str().unwrap(),
        &file,
    ]);
    assert_eq!(
        (ended.code, ended.counts()),
        (1, (4, 2, 2)),
        "{}",
        ended.words
    );
    let rejects = rejects(&scene);
    assert!(
        rejects[0]["reason"]
            .as_str()
            .unwrap()
            .contains("more than the 1000 allowed")
    );
    assert_eq!(rejects[0]["raw"].as_str().unwrap().len(), 993);
    assert!(
        rejects[1]["reason"]
            .as_str()
            .unwrap()
            .contains("has 3000008 bytes")
    );
    assert!(rejects[1]["raw"].as_str().unwrap().len() < 1_000_000);
}

#[test]
fn a_large_event_below_the_default_limit_arrives() {
    let scene = Scene::new();
    let line = format!("{{\"a\":\"{}\"}}", "x".repeat(999_800));
    let ended = scene.emit_input(&["-"], line.as_bytes());
    assert_eq!(
        (ended.code, ended.counts()),
        (0, (1, 1, 0)),
        "{}",
        ended.words
    );
    assert_eq!(scene.payloads(), [line]);
}

#[test]
fn a_key_that_no_consumer_would_take_is_rejected_here() {
    let scene = Scene::new();
    let ended = scene.emit_input(&["--key-field", "/k", "-"], br#"{"k":"a\u0000b"}"#);
    assert_eq!((ended.code, ended.counts()), (1, (1, 0, 1)));
    assert!(ended.words.contains("-:1:1: rejected: "), "{}", ended.words);
}

#[test]
fn a_csv_row_with_the_wrong_number_of_fields_is_rejected_by_its_physical_line() {
    let scene = Scene::new();
    let file = scene.file("a.csv", "a,b\n\"1\n1\",2\n3\n4,5\n");
    let path = scene.path("rejects");
    let ended = scene.emit(&["--rejects", path.to_str().unwrap(), &file]);
    assert_eq!(
        (ended.code, ended.counts()),
        (1, (3, 2, 1)),
        "{}",
        ended.words
    );
    let rejects = rejects(&scene);
    assert_eq!(
        (&rejects[0]["line"], &rejects[0]["raw"]),
        (&4.into(), &"3".into())
    );
}

fn refuse_one_batch(broker: &EmbeddedBroker) {
    let too_large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    broker.fail_next(RDKafkaApiKey::Produce, too_large, 1);
}

#[test]
fn an_event_that_the_broker_refuses_is_rejected_with_its_place() {
    let scene = Scene::new();
    refuse_one_batch(&scene.broker);
    let ended = scene.emit_input(&["-"], b"{\"n\":1}\n");
    assert_eq!(
        (ended.code, ended.counts()),
        (1, (1, 0, 1)),
        "{}",
        ended.words
    );
    assert!(
        ended
            .words
            .contains("-:1:1: rejected: the broker refused the event"),
        "{}",
        ended.words
    );
    assert!(ended.words.contains("max.message.bytes"), "{}", ended.words);
}

#[test]
fn an_event_that_the_broker_refuses_is_written_down_with_its_text() {
    let scene = Scene::new();
    refuse_one_batch(&scene.broker);
    let path = scene.path("rejects");
    let ended = scene.emit_input(&["--rejects", path.to_str().unwrap(), "-"], b"{\"n\":1}\n");
    assert_eq!(
        (ended.code, ended.counts()),
        (1, (1, 0, 1)),
        "{}",
        ended.words
    );
    assert_eq!(rejects(&scene)[0]["raw"], "{\"n\":1}");
}
