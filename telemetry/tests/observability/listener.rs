//! The HTTP listener: what it answers, and to whom.

use crate::{http, sample_values, scrape};
use metrics::{Key, Label, Level, Metadata};
use millrace_telemetry::{Health, ProbeError, probe, serve};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn get(addr: SocketAddr, path: &'static str) -> http::Answer {
    tokio::task::spawn_blocking(move || http::get(&addr.to_string(), path))
        .await
        .unwrap()
        .unwrap()
}

async fn ask(addr: SocketAddr) -> Result<(), ProbeError> {
    tokio::task::spawn_blocking(move || probe(addr))
        .await
        .unwrap()
}

#[test]
fn every_metric_of_the_table_is_in_a_scrape_with_its_labels_and_help() {
    let text = scrape::text_of(&sample_values::listener().to_string());
    let live = scrape::label_names(&scrape::samples(&text));
    for definition in millrace_telemetry::definitions() {
        let name = definition.name;
        let count = format!("{name}_count");
        let found = live.get(name).or(live.get(&count));
        let labels = found.unwrap_or_else(|| panic!("{name} is not in the scrape"));
        for label in definition.labels {
            assert!(labels.contains(*label), "{name} has no label {label}");
        }
        assert!(
            text.contains(&format!("# HELP {name} {}\n", definition.help)),
            "{name}"
        );
    }
}

#[test]
fn a_scrape_is_text_in_the_prometheus_format() {
    let answer = http::get(&sample_values::listener().to_string(), "/metrics").unwrap();
    assert!(
        answer
            .head
            .contains("content-type: text/plain; version=0.0.4; charset=utf-8")
    );
}

#[test]
fn a_histogram_counts_each_sample_in_every_bucket_that_holds_it() {
    let samples = scrape::samples(&scrape::text_of(&sample_values::listener().to_string()));
    let mut last = 0.0;
    let of_tasks = |name: &str| {
        let of_name = samples[name].iter();
        of_name.filter(|sample| sample.labels["topic"] == "tasks")
    };
    for bucket in of_tasks("millrace_end_to_end_seconds_bucket") {
        assert!(bucket.value >= last, "{bucket:?}");
        last = bucket.value;
    }
    let all = of_tasks("millrace_end_to_end_seconds_count")
        .next()
        .unwrap();
    assert_eq!(last, all.value);
    let sum = of_tasks("millrace_end_to_end_seconds_sum").next().unwrap();
    let mean = sum.value / all.value;
    assert!((0.0015..0.0195).contains(&mean), "{mean}");
}

#[test]
fn strangers_cannot_grow_the_number_of_series() {
    let samples = scrape::samples(&scrape::text_of(&sample_values::listener().to_string()));
    let of = |name: &str, label: &str| -> Vec<String> {
        samples[name]
            .iter()
            .filter(|sample| sample.labels["topic"] == "tasks")
            .map(|sample| sample.labels[label].clone())
            .collect()
    };
    let types = of("millrace_tasks_total", "task_type");
    assert!(
        types.iter().all(|name| name == "record" || name == "other"),
        "{types:?}"
    );
    let reasons = of("millrace_dead_letters_total", "reason");
    assert!(reasons.contains(&"other".to_owned()));
    assert_eq!(reasons.len(), 10);
}

#[test]
fn a_metric_of_somebody_elses_handler_appears_beside_ours() {
    let target = sample_values::listener().to_string();
    let key = Key::from_parts(
        "letters_posted_total",
        vec![Label::new("to", "a \"friend\"\nabroad")],
    );
    let metadata = Metadata::new("postbox", Level::INFO, None);
    metrics::with_recorder(|facade| {
        facade.describe_counter(
            "letters_posted_total".into(),
            None,
            "Letters posted.".into(),
        );
        facade.register_counter(&key, &metadata).increment(3);
    });
    let text = scrape::text_of(&target);
    assert!(text.contains("# HELP letters_posted_total Letters posted.\n"));
    let samples = scrape::samples(&text);
    let posted = &samples["letters_posted_total"][0];
    assert_eq!(posted.labels["to"], "a \"friend\"\nabroad");
    assert_eq!(posted.value, 3.0);
}

#[test]
fn only_reading_is_allowed_and_only_three_paths_exist() {
    let target = sample_values::listener().to_string();
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(
            http::request(&target, "GET", path).unwrap().status,
            200,
            "{path}"
        );
        assert_eq!(
            http::request(&target, "POST", path).unwrap().status,
            405,
            "{path}"
        );
        assert_eq!(
            http::request(&target, "DELETE", path).unwrap().status,
            405,
            "{path}"
        );
    }
    assert_eq!(http::get(&target, "/").unwrap().status, 404);
}

#[tokio::test]
async fn a_process_is_ready_when_every_component_says_so_and_else_says_which_and_why() {
    let health = Health::awaiting(&["kafka", "database"]);
    let addr = serve(any_port(), health.clone(), CancellationToken::new())
        .await
        .unwrap();

    let starting = get(addr, "/readyz").await;
    assert_eq!(starting.status, 503);
    assert!(starting.head.contains("content-type: application/json"));

    health.ready("kafka", Ok(()));
    health.ready("database", Err("connection refused".to_owned()));
    let without_database: serde_json::Value =
        serde_json::from_str(&get(addr, "/readyz").await.body).unwrap();
    assert_eq!(without_database["status"], "failing");
    assert_eq!(
        without_database["components"]["database"],
        "connection refused"
    );
    assert_eq!(without_database["components"]["kafka"], "ok");

    health.ready("database", Ok(()));
    assert_eq!(get(addr, "/readyz").await.status, 200);
}

#[tokio::test]
async fn an_outage_makes_a_process_unready_but_not_dead() {
    let health = Health::awaiting(&["database"]);
    let addr = serve(any_port(), health, CancellationToken::new())
        .await
        .unwrap();

    assert_eq!(get(addr, "/readyz").await.status, 503);
    assert_eq!(get(addr, "/healthz").await.status, 200);
    ask(addr).await.unwrap();
}

#[tokio::test]
async fn a_loop_that_does_not_turn_within_its_limit_fails_the_health_check() {
    let health = Health::awaiting(&[]);
    let owner = health.heartbeat("owner loop", Duration::from_millis(40));
    let addr = serve(any_port(), health, CancellationToken::new())
        .await
        .unwrap();

    let deadline = Instant::now() + Duration::from_secs(5);
    let failure = loop {
        match ask(addr).await {
            Err(failure) => break failure.to_string(),
            Ok(()) => assert!(Instant::now() < deadline, "still healthy"),
        }
    };
    assert!(
        failure.contains("owner loop") && failure.contains("has not turned"),
        "{failure}"
    );

    let patient = Health::awaiting(&[]);
    let heart = patient.heartbeat("owner loop", Duration::from_secs(60));
    let addr = serve(any_port(), patient, CancellationToken::new())
        .await
        .unwrap();
    heart.beat();
    ask(addr).await.unwrap();
    owner.beat();
}

#[tokio::test]
async fn a_probe_of_every_address_asks_this_machine() {
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let bound = serve(everywhere, Health::awaiting(&[]), CancellationToken::new())
        .await
        .unwrap();
    ask(bound).await.unwrap();
}

#[tokio::test]
async fn the_listener_ends_with_the_process() {
    let shutdown = CancellationToken::new();
    let addr = serve(any_port(), Health::awaiting(&[]), shutdown.clone())
        .await
        .unwrap();
    ask(addr).await.unwrap();

    shutdown.cancel();

    let deadline = Instant::now() + Duration::from_secs(5);
    while !matches!(ask(addr).await, Err(ProbeError::NoAnswer { .. })) {
        assert!(Instant::now() < deadline, "still listening");
    }
}

#[tokio::test]
async fn an_address_in_use_is_an_error_for_the_caller() {
    let health = Health::awaiting(&[]);
    let taken = serve(any_port(), health.clone(), CancellationToken::new())
        .await
        .unwrap();
    let error = serve(taken, health, CancellationToken::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}
