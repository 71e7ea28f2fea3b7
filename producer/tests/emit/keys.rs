//! Ordering key, dedup key, and the partition that follows from them.

use std::collections::BTreeMap;

use super::scene::{PARTITIONS, Received, Scene};

fn by_payload(received: Vec<Received>) -> BTreeMap<String, Received> {
    received
        .into_iter()
        .map(|record| (record.payload().to_owned(), record))
        .collect()
}

#[test]
fn the_record_key_is_the_ordering_key_else_the_dedup_key() {
    let scene = Scene::new();
    let line = br#"{"user":"u1","id":42,"deep":{"list":[true]}}"#;
    scene.emit_input(&["--key-field", "/user", "--dedup-field", "/id", "-"], line);
    scene.emit_input(&["--dedup-field", "/deep/list/0", "-"], line);
    let mut received = scene.received();
    received.sort_by_key(|record| record.event.task_id);
    let [both, dedup_only] = &received[..] else {
        panic!("{} records", received.len())
    };
    assert_eq!(both.key.as_deref(), Some(&b"u1"[..]));
    assert_eq!(
        (both.event.key.as_deref(), both.event.dedup_key.as_deref()),
        (Some("u1"), Some("42"))
    );
    assert_eq!(dedup_only.key.as_deref(), Some(&b"true"[..]));
    assert_eq!(
        (&dedup_only.event.key, dedup_only.event.dedup_key.as_deref()),
        (&None, Some("true"))
    );
}

/// Apache Kafka's own test vectors of murmur2 (`UtilsTest.testMurmur2`): hash, then partition of 4
/// by `toPositive(hash) % 4`.
#[test]
fn keys_go_to_the_partition_that_java_clients_choose() {
    let golden = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        (
            "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
        ),
        ("abc", 479_470_107),
    ];
    let scene = Scene::new();
    let lines: String = golden
        .iter()
        .map(|(key, _)| format!("{{\"k\":\"{key}\"}}\n"))
        .collect();
    assert_eq!(
        scene
            .emit_input(&["--key-field", "/k", "-"], lines.as_bytes())
            .code,
        0
    );
    let received = by_payload(scene.received());
    for (key, hash) in golden {
        let partition = received[&format!("{{\"k\":\"{key}\"}}")].partition;
        assert_eq!(partition, (hash & i32::MAX) % PARTITIONS, "{key}");
    }
}

#[test]
fn events_of_one_key_are_in_the_order_of_the_file() {
    let scene = Scene::new();
    let lines: String = (10_000..30_000)
        .map(|n| format!("{{\"k\":{},\"n\":{n}}}\n", n % 7))
        .collect();
    assert_eq!(
        scene
            .emit_input(&["--key-field", "/k", "-"], lines.as_bytes())
            .code,
        0
    );
    let mut last: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    for record in scene.received() {
        let payload = record.payload().to_owned();
        let before = last.insert(record.key.clone().unwrap(), payload.clone());
        assert!(before.is_none_or(|before| before < payload));
    }
}
