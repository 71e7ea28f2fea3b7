//! Prometheus's own judgement of the metrics and of the rules.

use crate::{repository, scrape, suite};
use std::io::Write;
use std::process::{Command, Stdio};

#[test]
fn promtool_has_nothing_to_say_about_any_metric() {
    if !suite::can_run("promtool check metrics", "promtool") {
        return;
    }
    for target in scrape::targets() {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let text = scrape::text_of(&target);
        promtool
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.trim().is_empty(),
            "{target}: {said}"
        );
    }
}

#[test]
fn promtool_accepts_configuration_and_rules() {
    if !suite::can_run("promtool check rules", "promtool") {
        return;
    }
    promtool(&["check", "config", "prometheus.yml"], "docker/prometheus");
    promtool(
        &["check", "rules", "millrace.yml"],
        "docker/prometheus/rules",
    );
}

#[test]
fn every_alert_fires_when_it_should_and_not_before() {
    if !suite::can_run("promtool test rules", "promtool") {
        return;
    }
    promtool(
        &[
            "test",
            "rules",
            "millrace_test.yml",
            "millrace_work_test.yml",
            "millrace_door_test.yml",
        ],
        "docker/prometheus/rules",
    );
}

fn promtool(arguments: &[&str], folder: &str) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(repository(folder))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "promtool {arguments:?}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
