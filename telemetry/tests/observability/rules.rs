//! Alert rules refer to what exists, and each has a runbook section and a test.

use crate::queries::{self, references, template_labels};
use crate::{read, scrape};
use std::collections::BTreeSet;

#[test]
fn alerts_name_only_metrics_and_labels_of_a_live_scrape() {
    if scrape::given_targets().is_some() {
        // A worker has no producer's metrics; the dashboard's test knows which rows to expect.
        return;
    }
    let live = scrape::label_names(&scrape::of_targets());
    for rule in queries::of_rules() {
        for (metric, labels) in references(&rule.expr).labels_by_name {
            let known = live
                .get(&metric)
                .unwrap_or_else(|| panic!("{}: no metric {metric} in a scrape", rule.alert));
            let unknown: Vec<_> = labels.difference(known).collect();
            assert!(
                unknown.is_empty(),
                "{}: {metric} has no label {unknown:?}",
                rule.alert
            );
        }
    }
}

#[test]
fn an_alert_says_what_is_wrong_how_bad_it_is_and_where_to_read_on() {
    let runbook = read("docs/OPERATIONS.md");
    for rule in queries::of_rules() {
        let severity = rule.labels.get("severity").map(String::as_str);
        assert!(
            matches!(severity, Some("critical" | "warning")),
            "{}",
            rule.alert
        );
        for annotation in ["summary", "description"] {
            assert!(
                rule.annotations.contains_key(annotation),
                "{}: {annotation}",
                rule.alert
            );
        }
        let anchor = format!("docs/OPERATIONS.md#{}", rule.alert.to_lowercase());
        assert_eq!(rule.annotations.get("runbook"), Some(&anchor));
        let heading = format!("\n### {}\n", rule.alert);
        assert!(
            runbook.contains(&heading),
            "docs/OPERATIONS.md has no section {}",
            rule.alert
        );
    }
}

#[test]
fn an_alert_text_names_only_labels_that_the_alert_has() {
    for rule in queries::of_rules() {
        let references = references(&rule.expr);
        let all_labels = references
            .labels_by_name
            .values()
            .flatten()
            .cloned()
            .collect();
        // `up` keeps all its labels; a grouping keeps those it names.
        let mut labels: BTreeSet<String> = references.kept.unwrap_or(all_labels);
        if rule.expr.starts_with("up{") {
            labels.extend(["job".to_owned(), "instance".to_owned()]);
        }
        for text in rule.annotations.values() {
            for label in template_labels(text, "$labels.", " ") {
                assert!(
                    labels.contains(&label),
                    "{}: no label {label} in {text}",
                    rule.alert
                );
            }
        }
    }
}

#[test]
fn every_alert_has_a_test() {
    let tests = read("docker/prometheus/rules/millrace_test.yml")
        + &read("docker/prometheus/rules/millrace_work_test.yml")
        + &read("docker/prometheus/rules/millrace_door_test.yml");
    for rule in queries::of_rules() {
        let line = format!("alertname: {}\n", rule.alert);
        assert!(tests.contains(&line), "no promtool test of {}", rule.alert);
    }
}

#[test]
fn the_runbook_lists_every_metric() {
    let runbook = read("docs/OPERATIONS.md");
    for definition in millrace_telemetry::definitions() {
        let cell = format!("| `{}` |", definition.name);
        assert!(
            runbook.contains(&cell),
            "docs/OPERATIONS.md does not list {}",
            definition.name
        );
    }
}
