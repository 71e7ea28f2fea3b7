//! Formats, packings and standard input.

use std::collections::BTreeSet;
use std::io::Write;

use super::scene::{Scene, numbered};

fn gzip(text: &str) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap()
}

#[test]
fn each_line_becomes_an_event_whose_payload_is_the_line_as_it_stands() {
    let scene = Scene::new();
    let file = scene.file("a.ndjson", "{\"b\": 1,  \"a\":\"é\"}\r\n\n{}\n");
    let ended = scene.emit(&["--tenant", "acme", &file]);
    assert_eq!(
        (ended.code, ended.counts()),
        (0, (2, 2, 0)),
        "{}",
        ended.words
    );
    assert!(ended.summary["seconds"].is_f64() && ended.summary["events_per_s"].is_f64());
    assert_eq!(scene.payloads(), ["{\"b\": 1,  \"a\":\"é\"}", "{}"]);
    for record in scene.received() {
        let event = &record.event;
        assert_eq!(
            (event.task_type.as_str(), event.tenant.as_str()),
            ("edit", "acme")
        );
        assert_eq!(event.content_type, "application/json");
        assert_eq!(
            (&event.key, &event.dedup_key, event.reply),
            (&None, &None, false)
        );
        assert_eq!(record.key, None);
        let age = event.submitted_at / 1000 - i64::try_from(event.task_id.born_ms()).unwrap();
        assert!(
            (-5..1000).contains(&age),
            "born {age} ms before it was submitted"
        );
        assert_eq!(record.headers["task_id"], event.task_id.to_string());
        assert_eq!(record.headers["tenant"], "acme");
        assert_eq!(record.headers["reply"], "false");
    }
}

#[test]
fn a_csv_row_becomes_an_object_of_strings_in_the_headers_order() {
    let scene = Scene::new();
    let file = scene.file("a.csv", "id,name\r\n1,\"a, \"\"b\"\"\nc\"\r\n2,\r\n");
    let ended = scene.emit(&["--key-field", "/id", &file]);
    assert_eq!(
        (ended.code, ended.counts()),
        (0, (2, 2, 0)),
        "{}",
        ended.words
    );
    assert_eq!(
        scene.payloads(),
        [
            r#"{"id":"1","name":"a, \"b\"\nc"}"#,
            r#"{"id":"2","name":""}"#
        ]
    );
}

#[test]
fn several_files_are_sent_in_order_whatever_they_are_packed_with() {
    let scene = Scene::new();
    let one = scene.file(
        "1.ndjson.gz",
        [gzip("{\"n\":1}\n"), gzip("{\"n\":2}\n")].concat(),
    );
    let two = scene.file(
        "2",
        zstd::stream::encode_all(&b"{\"n\":3}\n"[..], 3).unwrap(),
    );
    let three = scene.file("3.csv.gz", gzip("n\n4\n"));
    let ended = scene.emit(&[&one, &two, &three]);
    assert_eq!(
        (ended.code, ended.counts()),
        (0, (4, 4, 0)),
        "{}",
        ended.words
    );
    assert_eq!(
        scene.payloads(),
        [r#"{"n":"4"}"#, r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#]
    );
}

#[test]
fn standard_input_may_be_plain_or_packed() {
    let scene = Scene::new();
    assert_eq!(
        scene.emit_input(&["-"], b"{\"n\":1}\n{\"n\":2}").counts(),
        (2, 2, 0)
    );
    assert_eq!(
        scene.emit_input(&[], &gzip("{\"n\":3}\n")).counts(),
        (1, 1, 0)
    );
    assert_eq!(scene.emit_input(&["-"], b"n,m\n4,5\n").counts(), (1, 1, 0));
    assert_eq!(scene.emit_input(&["-"], b"").counts(), (0, 0, 0));
    assert_eq!(
        scene.payloads(),
        [
            r#"{"n":"4","m":"5"}"#,
            r#"{"n":1}"#,
            r#"{"n":2}"#,
            r#"{"n":3}"#
        ]
    );
}

#[test]
fn events_of_a_slow_input_are_acknowledged_while_it_is_open() {
    let scene = Scene::new();
    let mut child = scene.spawn(&["-"]);
    let mut input = child.stdin.take().unwrap();
    for n in 1..=3 {
        writeln!(input, "{{\"n\":{n}}}").unwrap();
        input.flush().unwrap();
        scene.wait_for_count(n);
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_large_file_arrives_whole_and_ids_ascend() {
    let scene = Scene::new();
    let file = scene.file("a.ndjson.gz", gzip(&numbered(50_000)));
    let ended = scene.emit(&[&file]);
    assert_eq!(
        (ended.code, ended.counts()),
        (0, (50_000, 50_000, 0)),
        "{}",
        ended.words
    );
    let received = scene.received();
    let ids: BTreeSet<_> = received.iter().map(|record| record.event.task_id).collect();
    let payloads: BTreeSet<_> = received.iter().map(|record| record.payload()).collect();
    assert_eq!((ids.len(), payloads.len()), (50_000, 50_000));
    for pair in received
        .windows(2)
        .filter(|pair| pair[0].partition == pair[1].partition)
    {
        assert!(pair[0].event.task_id < pair[1].event.task_id);
    }
}

#[test]
fn a_packed_file_that_was_cut_off_is_told_after_what_could_be_read() {
    let scene = Scene::new();
    let mut packed = gzip(&numbered(100_000));
    packed.truncate(packed.len() / 2);
    let file = scene.file("a.ndjson.gz", packed);
    let ended = scene.emit(&[&file]);
    let (read, acknowledged, rejected) = ended.counts();
    assert_eq!((ended.code, rejected), (1, 0));
    assert!(read > 0 && read == acknowledged && read < 100_000);
    assert!(
        ended
            .words
            .contains(&format!("cannot be read behind line {read}")),
        "{}",
        ended.words
    );
    assert!(
        ended.words.contains(&format!("--from-line {}", read + 1)),
        "{}",
        ended.words
    );
}

#[test]
fn the_confluent_wire_format_carries_the_schema_id() {
    let scene = Scene::new();
    let ended = scene.emit_input(&["--schema-id", "7", "-"], b"{\"n\":1}\n");
    assert_eq!(ended.code, 0, "{}", ended.words);
    let received = scene.received();
    assert!(received[0].framed.starts_with(&[0, 0, 0, 0, 7]));
    assert_eq!(received[0].payload(), "{\"n\":1}");
}

#[test]
fn the_summary_is_a_table_unless_json_is_asked_for() {
    let scene = Scene::new();
    let file = scene.file("a", "{}\n");
    let output = scene
        .command(&["--format", "table", &file])
        .output()
        .unwrap();
    let refused = String::from_utf8(output.stderr).unwrap();
    assert!(
        refused.contains("cannot be used multiple times"),
        "{refused}"
    );
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_producer"))
        .args([
            "emit",
            "--type",
            "t",
            "--allow-unreplicated",
            "--kafka",
            scene.broker.bootstrap(),
            &file,
        ])
        .output()
        .unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    for name in [
        "read",
        "acknowledged",
        "rejected",
        "seconds",
        "events_per_s",
    ] {
        assert!(table.contains(name), "{table}");
    }
}
