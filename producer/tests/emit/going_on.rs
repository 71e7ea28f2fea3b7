//! Starting anew after a run that did not finish: `--once` and `--from-line`.

use std::collections::BTreeMap;

use super::scene::{Scene, numbered};

#[test]
fn with_once_every_run_gives_each_line_the_same_dedup_key() {
    let scene = Scene::new();
    let text = "{\"n\":1}\n\n{\"n\":1}\n";
    let plain = scene.file("a.ndjson", text);
    let packed = scene.file(
        "b.zst",
        zstd::stream::encode_all(text.as_bytes(), 3).unwrap(),
    );
    for flags in [
        &["--once", &plain][..],
        &["--once", &packed],
        &["--once", "--from-line", "3", &plain],
    ] {
        assert_eq!(scene.emit(flags).code, 0);
    }
    let mut keys: BTreeMap<String, usize> = BTreeMap::new();
    for record in scene.received() {
        let key = record.event.dedup_key.unwrap();
        assert_eq!(record.key.as_deref(), Some(key.as_bytes()));
        *keys.entry(key).or_default() += 1;
    }
    let digest = blake3::hash(text.as_bytes()).to_hex();
    assert_eq!(
        keys,
        BTreeMap::from([(format!("{digest}:1"), 2), (format!("{digest}:3"), 3)])
    );
}

#[test]
fn once_keeps_an_ordering_key() {
    let scene = Scene::new();
    let file = scene.file("a", "{\"k\":\"u\"}\n");
    assert_eq!(scene.emit(&["--once", "--key-field", "/k", &file]).code, 0);
    let received = scene.received();
    assert_eq!(received[0].key.as_deref(), Some(&b"u"[..]));
    assert!(
        received[0]
            .event
            .dedup_key
            .as_ref()
            .unwrap()
            .ends_with(":1")
    );
}

#[test]
fn once_is_refused_where_the_input_cannot_be_read_twice() {
    let scene = Scene::new();
    assert_eq!(scene.emit_input(&["--once", "-"], b"{}\n").code, 2);
    assert_eq!(scene.emit_input(&["--once"], b"{}\n").code, 2);
    let file = scene.file("a", "{}\n");
    assert_eq!(
        scene.emit(&["--once", "--dedup-field", "/id", &file]).code,
        2
    );
    assert_eq!(scene.count(), 0);
}

#[test]
fn from_line_begins_at_that_physical_line() {
    let scene = Scene::new();
    let csv = scene.file("a.csv", "n\n\n3\n4\n");
    let ended = scene.emit(&["--from-line", "4", &csv]);
    assert_eq!((ended.code, ended.counts()), (0, (1, 1, 0)));
    let ended = scene.emit_input(&["--from-line", "9", "-"], numbered(10).as_bytes());
    assert_eq!((ended.code, ended.counts()), (0, (2, 2, 0)));
    assert_eq!(
        scene.payloads(),
        [r#"{"n":"4"}"#, r#"{"n":10}"#, r#"{"n":9}"#]
    );
}

#[test]
fn from_line_is_refused_with_several_files() {
    let scene = Scene::new();
    let file = scene.file("a", "{}\n");
    let ended = scene.emit(&["--from-line", "2", &file, &file]);
    assert_eq!(ended.code, 2);
    assert!(
        ended.words.contains("--from-line names a line of one file"),
        "{}",
        ended.words
    );
}
