//! The dashboard refers to what exists, and every panel explains itself.
//!
//! The rules are those of Grafana's dashboard linter, as far as they concern a provisioned
//! dashboard with one Prometheus data source.

use crate::queries::{self, dashboard, references, template_labels};
use crate::{read, scrape};
use serde_json::Value;
use std::collections::BTreeSet;

fn panels() -> Vec<Value> {
    let panels = dashboard()["panels"].as_array().unwrap().clone();
    panels
        .into_iter()
        .filter(|panel| panel["type"] != "row")
        .collect()
}

#[test]
fn the_dashboard_can_be_provisioned_and_linked_to() {
    let dashboard = dashboard();
    assert_eq!(dashboard["title"], "Millrace: lag and throughput");
    assert_eq!(dashboard["uid"], "millrace-lag-throughput");
    assert!(
        dashboard["id"].is_null(),
        "an id belongs to one Grafana, a uid to the dashboard"
    );
    assert_eq!(dashboard["schemaVersion"], 39);
    assert_eq!(dashboard["editable"], false);
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "panel ids differ: {panel}"
        );
    }
}

#[test]
fn every_panel_has_title_description_unit_and_a_current_type() {
    for panel in panels() {
        let title = panel["title"].as_str().unwrap();
        assert!(!title.is_empty(), "{panel}");
        let description = panel["description"].as_str().unwrap_or_default();
        assert!(
            description.contains("orry"),
            "{title}: the description says when to worry: {description:?}"
        );
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
        assert!(unit.is_some_and(|unit| !unit.is_empty()), "{title}: unit");
        let kind = panel["type"].as_str().unwrap();
        assert!(
            matches!(kind, "timeseries" | "stat" | "table"),
            "{title}: {kind}"
        );
    }
}

#[test]
fn panels_do_not_overlap_and_fit_the_grid() {
    let mut taken = BTreeSet::new();
    for panel in dashboard()["panels"].as_array().unwrap() {
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(
                    taken.insert((x, y)),
                    "{} covers another panel",
                    panel["title"]
                );
            }
        }
    }
}

#[test]
fn data_source_job_instance_group_and_topic_are_chosen_by_variables() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["datasource", "job", "instance", "group", "topic"]);
    for variable in &variables[1..] {
        assert_eq!(variable["allValue"], ".+", "{}", variable["name"]);
        assert_eq!(variable["datasource"]["uid"], "${datasource}");
    }
    for panel in panels() {
        assert_eq!(
            panel["datasource"]["uid"], "${datasource}",
            "{}",
            panel["title"]
        );
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(
                target["datasource"]["uid"], "${datasource}",
                "{}",
                panel["title"]
            );
        }
    }
    let provisioned = read("docker/grafana/provisioning/datasources/prometheus.yaml");
    let uid = variables[0]["current"]["value"].as_str().unwrap();
    assert!(
        provisioned.contains(&format!("uid: {uid}\n")),
        "the default data source exists"
    );
}

#[test]
fn every_selector_keeps_to_the_chosen_job_and_instance_and_rates_to_the_interval() {
    for query in queries::of_dashboard() {
        let selectors = query.written.matches('{').count();
        for matcher in [r#"job=~"$job""#, r#"instance=~"$instance""#] {
            assert_eq!(
                query.written.matches(matcher).count(),
                selectors,
                "{}",
                query.place
            );
        }
        if query.written.contains("rate(") {
            assert!(
                query.written.contains("[$__rate_interval]"),
                "{}",
                query.place
            );
        }
    }
}

#[test]
fn panels_and_variables_name_only_metrics_and_labels_of_a_live_scrape() {
    let live = scrape::label_names(&scrape::of_targets());
    let has_producer = live.contains_key("millrace_emit_read_total");
    for query in queries::of_dashboard() {
        if query.row == "Producer" && !has_producer && scrape::given_targets().is_some() {
            continue;
        }
        let references = references(&query.expr);
        let mut all_labels = BTreeSet::new();
        for (metric, labels) in references.labels_by_name {
            let known = live
                .get(&metric)
                .unwrap_or_else(|| panic!("{}: no metric {metric} in a scrape", query.place));
            let unknown: Vec<_> = labels.difference(known).collect();
            assert!(
                unknown.is_empty(),
                "{}: {metric} has no label {unknown:?}",
                query.place
            );
            all_labels.extend(known.iter().cloned());
        }
        let kept = references.kept.unwrap_or(all_labels);
        for label in template_labels(&query.legend, "{{", "}}") {
            assert!(
                kept.contains(&label),
                "{}: no label {label} to show",
                query.place
            );
        }
    }
    for variable in &dashboard()["templating"]["list"].as_array().unwrap()[1..] {
        let query = variable["query"]["query"].as_str().unwrap();
        let inner = query
            .strip_prefix("label_values(")
            .unwrap()
            .strip_suffix(')')
            .unwrap();
        let (selector, label) = inner.rsplit_once(", ").unwrap();
        let metric = selector.split('{').next().unwrap();
        let known = live
            .get(metric)
            .unwrap_or_else(|| panic!("no metric {metric}"));
        assert!(known.contains(label), "{metric} has no label {label}");
    }
}

#[test]
fn every_metric_of_the_table_is_on_the_dashboard_or_in_an_alert() {
    let mut used = BTreeSet::new();
    let rules = queries::of_rules().into_iter().map(|rule| rule.expr);
    let panels = queries::of_dashboard().into_iter().map(|query| query.expr);
    for expr in rules.chain(panels) {
        used.extend(references(&expr).labels_by_name.into_keys());
    }
    for definition in millrace_telemetry::definitions() {
        let bucket = format!("{}_bucket", definition.name);
        let sum = format!("{}_sum", definition.name);
        let shown = [definition.name, &bucket, &sum]
            .iter()
            .any(|name| used.contains(*name));
        assert!(shown, "nobody looks at {}", definition.name);
    }
}
