//! Records of every released version lie in topics, and today's reader reads them.

use std::collections::HashSet;
use std::path::PathBuf;

use apache_avro::Schema;
use millrace_schemas::{
    CURRENT_FINGERPRINT, CURRENT_SCHEMA, Decoders, Framing, TaskEvent, encode, released,
};
use serde_json::Value;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("avro/released")
        .join(name)
}

/// The event that a version's sample holds; a field that the version did not have is left out.
fn expected(version: u32) -> TaskEvent {
    let json = std::fs::read(file(&format!("v{version}.sample.json"))).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let optional_text = |name: &str| json[name].as_str().map(str::to_owned);
    let text = |name: &str| optional_text(name).unwrap();
    TaskEvent {
        task_id: text("task_id").parse().unwrap(),
        task_type: text("task_type"),
        tenant: text("tenant"),
        key: optional_text("key"),
        dedup_key: optional_text("dedup_key"),
        submitted_at: json["submitted_at"].as_i64().unwrap(),
        run_at: json["run_at"].as_i64(),
        deadline: json["deadline"].as_i64(),
        content_type: text("content_type"),
        reply: json["reply"].as_bool().unwrap_or_default(),
        callback: optional_text("callback"),
        payload: text("payload").into_bytes(),
    }
}

#[test]
fn todays_reader_reads_the_sample_of_every_released_version() {
    let decoders = Decoders::new();
    for schema in released() {
        let sample = std::fs::read(file(&format!("v{}.sample.bin", schema.version))).unwrap();
        assert_eq!(
            sample[2..10],
            schema.fingerprint.to_le_bytes(),
            "version {}",
            schema.version
        );
        let decoded = decoders.decode(&sample).unwrap();
        assert_eq!(
            decoded.into_owned(),
            expected(schema.version),
            "version {}",
            schema.version
        );
    }
}

/// The first sample was written by another implementation of Avro, fastavro 1.13.
#[test]
fn the_encoder_writes_the_current_sample_byte_for_byte() {
    let version = released().last().unwrap().version;
    let mut bytes = Vec::new();
    encode(
        &expected(version).as_ref(),
        Framing::SingleObject,
        &mut bytes,
    );
    assert_eq!(
        bytes,
        std::fs::read(file(&format!("v{version}.sample.bin"))).unwrap()
    );
}

#[test]
fn the_newest_released_version_is_the_current_schema() {
    let newest = released().last().unwrap();
    assert_eq!(newest.json, CURRENT_SCHEMA);
    assert_eq!(newest.fingerprint, CURRENT_FINGERPRINT);
}

#[test]
fn versions_count_from_one_and_differ_on_the_wire() {
    let versions: Vec<_> = released().iter().map(|schema| schema.version).collect();
    assert!(versions.iter().copied().eq(1..=versions.len() as u32));
    let fingerprints: HashSet<_> = released().iter().map(|schema| schema.fingerprint).collect();
    assert_eq!(fingerprints.len(), versions.len());
}

#[test]
fn every_released_version_is_known_from_the_start_by_its_own_fingerprint() {
    let mut decoders = Decoders::new();
    for schema in released() {
        assert!(decoders.knows(schema.fingerprint));
        assert_eq!(decoders.learn(schema.json), Ok(schema.fingerprint));
        Schema::parse_str(schema.json).unwrap();
    }
}

#[test]
fn every_file_of_a_released_version_is_in_the_list() {
    let files = std::fs::read_dir(file("")).unwrap();
    let schemas = files
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .path()
                .extension()
                .is_some_and(|e| e == "avsc")
        })
        .count();
    assert_eq!(schemas, released().len());
}
