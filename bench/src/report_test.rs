//! The report's names are fixed, and what is missed is said.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its case has failed"
)]

use std::collections::BTreeSet;

use crate::machine::Machine;
use crate::measurements::Measurements;
use crate::report::Report;

fn machine() -> Machine {
    Machine {
        processor: "a processor".to_owned(),
        processors: 2,
        memory_gib: 4.0,
        kernel: "6".to_owned(),
        data_in_memory: false,
        rustc: "rustc".to_owned(),
        librdkafka: "2".to_owned(),
        kafka: None,
        postgres: "15".to_owned(),
        postgres_settings: vec!["fsync=on".to_owned()],
        command: "bench".to_owned(),
    }
}

#[test]
fn the_json_has_the_agreed_keys() {
    let (machine, details) = (machine(), Measurements::default());
    let json = serde_json::to_value(Report::new(&machine, &details)).unwrap();
    let keys: BTreeSet<&str> = json
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let agreed = [
        "copy_rows_per_s",
        "copy2_rows_per_s",
        "drain_events_per_s",
        "pipeline_events_per_s",
        "pipeline_dedup_events_per_s",
        "emit_events_per_s",
        "produce_events_per_s",
        "latency_p50_ms",
        "latency_p99_ms",
        "worker_peak_rss_mib",
        "ratio_pipeline_to_copy",
        "lanes_core_tasks_per_s",
        "lanes_executor_tasks_per_s",
        "lanes_pipeline_events_per_s",
        "lanes_pipeline_echo_events_per_s",
        "lanes_pipeline_keyless_events_per_s",
        "lanes_pipeline_dedup_events_per_s",
        "lanes_ratio_to_pipeline",
        "lanes_1000_keys_seconds",
        "lanes_100_keys_seconds",
        "lanes_1_key_seconds",
        "lanes_1_key_ratio_to_handlers",
        "door_route_requests_per_s",
        "door_produce_events_per_s",
        "door_single_tasks_per_s",
        "door_bulk10_tasks_per_s",
        "door_bulk100_tasks_per_s",
        "door_streams_tasks_per_s",
        "door_submit_p50_ms",
        "door_submit_p99_ms",
        "door_result_p50_ms",
        "door_result_p99_ms",
        "door_waiters_rss_mib",
        "claims",
        "machine",
        "details",
    ];
    assert_eq!(keys, BTreeSet::from(agreed));
}

#[test]
fn a_missed_goal_is_named() {
    let details = Measurements {
        events: 1_000_000,
        copy_seconds: vec![5.0],
        produce_seconds: vec![2.0],
        emit: vec![crate::emit::Emitted {
            seconds: 4.0,
            wall_seconds: 5.0,
            peak_rss_mib: 1.0,
        }],
        ..Measurements::default()
    };
    let machine = machine();
    let table = Report::new(&machine, &details).table().unwrap();
    assert!(table.contains("200,000"), "{table}");
    assert!(
        table
            .lines()
            .any(|line| line.contains("emit / bare") && line.ends_with("MISSED")),
        "{table}"
    );
}
