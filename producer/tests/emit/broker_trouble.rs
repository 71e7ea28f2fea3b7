//! Brokers that are away, slow or refuse.

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::scene::{Scene, numbered};

#[test]
fn a_missing_topic_is_told_and_not_created() {
    let scene = Scene::new();
    let ended = scene.emit_input(&["--topic", "nowhere", "-"], b"{}\n");
    assert_eq!(ended.code, 2);
    assert!(
        ended.words.contains("topic nowhere does not exist"),
        "{}",
        ended.words
    );
    let again = scene.emit_input(&["--topic", "nowhere", "-"], b"{}\n");
    assert_eq!(again.code, 2, "the question made the topic");
}

#[test]
fn an_unreachable_broker_is_told_with_its_address() {
    let scene = Scene::new();
    let file = scene.file("a", "{}\n");
    let output = scene
        .command(&["--kafka", "127.0.0.1:1", &file])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(
        words.contains("no broker at 127.0.0.1:1 answered"),
        "{words}"
    );
}

#[test]
fn a_topic_of_one_replica_is_refused_unless_allowed() {
    let scene = Scene::new();
    let file = scene.file("a", "{}\n");
    let output = scene
        .command(&[&file])
        .env_remove("MILLRACE_ALLOW_UNREPLICATED")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(scene.count(), 0);
}

#[test]
fn a_property_that_a_law_depends_on_is_refused() {
    let scene = Scene::new();
    let ended = scene.emit_input(&["-X", "acks=1", "-"], b"{}\n");
    assert_eq!(ended.code, 2);
    assert!(ended.words.contains("acks"), "{}", ended.words);
}

#[test]
fn a_delivery_that_timed_out_is_unknown_and_not_failed() {
    let scene = Scene::new();
    let away = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
    scene
        .broker
        .fail_next(RDKafkaApiKey::Produce, away, 100_000);
    let file = scene.file("a", numbered(10));
    let ended = scene.emit(&[
        "-X",
        "message.timeout.ms=1500",
        "-X",
        "retry.backoff.max.ms=100",
        &file,
    ]);
    assert_eq!(
        (ended.code, ended.counts()),
        (1, (10, 0, 0)),
        "{}",
        ended.words
    );
    assert_eq!(ended.summary["unknown"], 10);
    assert!(
        ended.words.contains("unknown, not failed"),
        "{}",
        ended.words
    );
    assert!(ended.words.contains("--from-line 1"), "{}", ended.words);
}

#[test]
fn a_short_trouble_of_the_broker_is_waited_out_and_nothing_is_there_twice() {
    let scene = Scene::new();
    let away = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND;
    scene.broker.fail_next(RDKafkaApiKey::Produce, away, 3);
    let ended = scene.emit_input(&["--key-field", "/n", "-"], numbered(1_000).as_bytes());
    assert_eq!(
        (ended.code, ended.counts()),
        (0, (1_000, 1_000, 0)),
        "{}",
        ended.words
    );
    assert_eq!(scene.count(), 1_000);
}

#[test]
fn a_full_queue_slows_the_reading_and_drops_nothing() {
    let scene = Scene::new();
    let flags = ["-X", "queue.buffering.max.messages=10", "-"];
    let ended = scene.emit_input(&flags, numbered(5_000).as_bytes());
    assert_eq!(
        (ended.code, ended.counts()),
        (0, (5_000, 5_000, 0)),
        "{}",
        ended.words
    );
    assert_eq!(scene.count(), 5_000);
}
