//! The series of handlers, outcomes and parking: closed lists, there from the start.

use crate::read;
use crate::scrape::{Samples, samples};
use millrace_telemetry::{
    AttemptOutcome, ConsumerMetrics, HandlerMetrics, LatencyBatch, Outcome, render,
};
use std::collections::BTreeSet;
use std::time::Duration;

fn shown() -> Samples {
    samples(&render())
}

/// The values of `label` among the series of `metric` that have all of `labels`.
fn values_of(metric: &str, label: &str, labels: &[(&str, &str)]) -> BTreeSet<String> {
    let shown = shown();
    let of_metric = shown.get(metric).into_iter().flatten();
    of_metric
        .filter(|s| {
            labels
                .iter()
                .all(|(k, v)| s.labels.get(*k).is_some_and(|l| l == v))
        })
        .map(|sample| sample.labels[label].clone())
        .collect()
}

fn value_of(metric: &str, labels: &[(&str, &str)]) -> f64 {
    let shown = shown();
    let found = shown[metric]
        .iter()
        .find(|s| labels.iter().all(|(k, v)| s.labels[*k] == *v));
    found
        .unwrap_or_else(|| panic!("no {metric} {labels:?}"))
        .value
}

/// The texts that `as_str` of this enum gives, read from the code that writes them to the table.
fn texts_of(enumeration: &str) -> BTreeSet<String> {
    let rows = read("store/src/rows.rs");
    let start = rows
        .find(&format!("impl {enumeration} {{"))
        .unwrap_or_else(|| panic!("store/src/rows.rs has no {enumeration}"));
    let body = &rows[start..];
    let arms = &body[body.find("fn as_str").unwrap()..];
    let arms = &arms[..arms.find("\n    }\n").unwrap()];
    arms.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn with_other(mut texts: BTreeSet<String>) -> BTreeSet<String> {
    assert!(!texts.is_empty());
    texts.insert("other".to_owned());
    texts
}

#[test]
fn every_reason_and_every_kind_of_parking_is_a_label_at_zero() {
    let _consumer = ConsumerMetrics::new("g", "closed-lists", &[]);
    let of_topic = [("topic", "closed-lists")];
    let reasons = values_of("millrace_dead_letters_total", "reason", &of_topic);
    assert_eq!(reasons, with_other(texts_of("Reason")));
    let kinds = values_of("millrace_tasks_parked_total", "kind", &of_topic);
    assert_eq!(kinds, with_other(texts_of("ParkKind")));
}

#[test]
fn tasks_are_counted_by_type_and_outcome_and_strangers_together() {
    let consumer = ConsumerMetrics::new("g", "by-type", &["first", "second"]);
    consumer.tasks_of(1, Outcome::Expired, 3);
    consumer.tasks("second", Outcome::Expired, 4);
    consumer.tasks_of(2, Outcome::Expired, 5);
    consumer.tasks("a stranger", Outcome::Expired, 6);

    let expired = |task_type: &str| {
        let labels = [
            ("topic", "by-type"),
            ("task_type", task_type),
            ("outcome", "expired"),
        ];
        value_of("millrace_tasks_total", &labels)
    };
    assert_eq!(expired("first"), 0.0);
    assert_eq!(expired("second"), 7.0);
    assert_eq!(expired("other"), 11.0);
    let outcomes = values_of("millrace_tasks_total", "outcome", &[("topic", "by-type")]);
    let all = [
        "success",
        "failed",
        "cancelled",
        "expired",
        "duplicate",
        "dead_letter",
        "parked",
    ];
    assert_eq!(outcomes, all.map(str::to_owned).into());
}

#[test]
fn each_outcome_is_counted_under_its_own_name() {
    let consumer = ConsumerMetrics::new("g", "own-name", &[]);
    for (outcome, label) in [
        (Outcome::Success, "success"),
        (Outcome::Failed, "failed"),
        (Outcome::Cancelled, "cancelled"),
        (Outcome::Expired, "expired"),
        (Outcome::Duplicate, "duplicate"),
        (Outcome::DeadLetter, "dead_letter"),
        (Outcome::Parked, "parked"),
    ] {
        let labels = [("topic", "own-name"), ("outcome", label)];
        assert_eq!(value_of("millrace_tasks_total", &labels), 0.0);
        consumer.tasks_of(0, outcome, 2);
        assert_eq!(value_of("millrace_tasks_total", &labels), 2.0, "{label}");
    }
}

#[test]
fn a_batch_of_attempts_counts_and_times_each_attempt_of_its_type_once() {
    let handlers = HandlerMetrics::new(&["idle", "busy"]);
    let mut batch = handlers.batch();
    let all = [
        (AttemptOutcome::Success, "success"),
        (AttemptOutcome::Retry, "retry"),
        (AttemptOutcome::Permanent, "permanent"),
        (AttemptOutcome::Panic, "panic"),
        (AttemptOutcome::Timeout, "timeout"),
        (AttemptOutcome::Cancelled, "cancelled"),
        (AttemptOutcome::Abandoned, "abandoned"),
    ];
    for (times, (outcome, _)) in (1..).zip(all) {
        for _ in 0..times {
            batch.record(1, outcome, Duration::from_millis(4));
        }
    }
    handlers.attempts(&mut batch);
    handlers.attempts(&mut batch);

    for (times, (_, label)) in (1..).zip(all) {
        let of = |task_type: &str| {
            let labels = [("task_type", task_type), ("outcome", label)];
            value_of("millrace_attempts_total", &labels)
        };
        assert_eq!(of("busy"), f64::from(times), "{label}");
        assert_eq!(of("idle"), 0.0, "{label}");
    }
    let seconds = |name: &str| {
        let metric = format!("millrace_handler_seconds_{name}");
        value_of(&metric, &[("task_type", "busy")])
    };
    assert_eq!(seconds("count"), 28.0);
    assert!((seconds("sum") - 28.0 * 0.004).abs() < 1e-9);
    let below = |bound: &str| {
        let labels = [("task_type", "busy"), ("le", bound)];
        value_of("millrace_handler_seconds_bucket", &labels)
    };
    assert_eq!(below("0.003"), 0.0);
    assert_eq!(below("0.005"), 28.0);
}

#[test]
fn a_type_that_nobody_registered_is_other() {
    let handlers = HandlerMetrics::new(&["unregistered-sibling"]);
    let other = [("task_type", "other"), ("outcome", "abandoned")];
    let count = || value_of("millrace_attempts_total", &other);
    let before = count();
    let mut batch = handlers.batch();
    batch.record(usize::MAX, AttemptOutcome::Abandoned, Duration::ZERO);
    let mut took = LatencyBatch::default();
    took.record(Duration::from_millis(1));

    handlers.attempts(&mut batch);
    handlers.of(1).attempts(AttemptOutcome::Abandoned, 2);
    handlers.of(1).handler_seconds(&mut took);

    // The sample values of this process count here, too.
    assert!(count() >= before + 3.0);
    let sibling = [
        ("task_type", "unregistered-sibling"),
        ("outcome", "abandoned"),
    ];
    assert_eq!(value_of("millrace_attempts_total", &sibling), 0.0);
}
