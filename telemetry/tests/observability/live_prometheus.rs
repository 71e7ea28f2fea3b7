//! A real Prometheus scrapes live targets, answers every query of the dashboard with data, and
//! evaluates every alert rule without an error.

use crate::{http, queries, repository, scrape, suite};
use serde_json::Value;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

struct Prometheus {
    process: Child,
    target: String,
    _folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    fn scraping(targets: &[String]) -> Prometheus {
        let folder = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = free.local_addr().unwrap().to_string();
        drop(free);
        let config = folder.path().join("prometheus.yml");
        std::fs::write(&config, configuration(targets)).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={target}"))
            .arg("--log.level=error")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Prometheus {
            process,
            target,
            _folder: folder,
        }
    }

    /// The `data` of an API answer; nothing while Prometheus is not up yet.
    fn api(&self, path: &str) -> Option<Value> {
        let answer = http::get(&self.target, &format!("/api/v1/{path}")).ok()?;
        let body: Value = serde_json::from_str(&answer.body).ok()?;
        assert_eq!(body["status"], "success", "{path}: {body}");
        Some(body["data"].clone())
    }

    fn series(&self, expr: &str) -> Vec<Value> {
        let data = self.api(&format!("query?query={}", http::encoded(expr)));
        let series = data.as_ref().and_then(|data| data["result"].as_array());
        series.cloned().unwrap_or_default()
    }
}

fn configuration(targets: &[String]) -> String {
    let rules = repository("docker/prometheus/rules/millrace.yml")
        .canonicalize()
        .unwrap();
    let rules = Path::new(&rules).display();
    let list = targets.join("', '");
    format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
         rule_files: ['{rules}']\n\
         scrape_configs:\n  - job_name: millrace-consumer\n    static_configs: [{{ targets: ['{list}'] }}]\n"
    )
}

/// Waits until nothing is missing any more; what is missing at the deadline fails the test.
fn wait_until_nothing_is_missing(what: &str, mut missing: impl FnMut() -> Vec<String>) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let still = missing();
        if still.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{what}:\n{}", still.join("\n"));
        std::thread::sleep(PAUSE);
    }
}

#[test]
fn a_real_prometheus_answers_every_dashboard_query_and_evaluates_every_alert() {
    if !suite::can_run("dashboard queries in a real Prometheus", "prometheus") {
        return;
    }
    let targets = scrape::targets();
    let prometheus = Prometheus::scraping(&targets);

    wait_until_nothing_is_missing("targets that are not scraped", || {
        let up = prometheus.series("up == 1");
        let is_up = |t: &&String| up.iter().any(|s| s["metric"]["instance"] == t.as_str());
        targets
            .iter()
            .filter(|target| !is_up(target))
            .cloned()
            .collect()
    });

    let has_producer = !prometheus.series("millrace_emit_read_total").is_empty();
    let expected: Vec<_> = queries::of_dashboard()
        .into_iter()
        .filter(|query| has_producer || query.row != "Producer")
        .collect();
    wait_until_nothing_is_missing("queries without data", || {
        let unanswered = expected
            .iter()
            .filter(|query| prometheus.series(&query.expr).is_empty());
        unanswered
            .map(|query| format!("{}: {}", query.place, query.expr))
            .collect()
    });

    let rules = queries::of_rules().len();
    wait_until_nothing_is_missing("alert rules without a verdict", || {
        let data = prometheus.api("rules").unwrap_or_default();
        let groups = data["groups"].as_array().cloned().unwrap_or_default();
        let all: Vec<&Value> = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().unwrap())
            .collect();
        assert_eq!(all.len(), rules);
        let unwell = all.iter().filter(|rule| rule["health"] != "ok");
        unwell
            .map(|rule| format!("{}: {}", rule["name"], rule["lastError"]))
            .collect()
    });
}
