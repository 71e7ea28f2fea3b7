//! The compose file and everything it mounts hold together.

use crate::{read, repository};
use serde_norway::Value;
use std::collections::BTreeSet;
use std::path::Path;

fn compose() -> Value {
    let mut compose: Value = serde_norway::from_str(&read("docker/compose.yaml")).unwrap();
    compose.apply_merge().unwrap();
    compose
}

fn names(value: &Value) -> BTreeSet<String> {
    let mapping = value.as_mapping().unwrap();
    mapping
        .keys()
        .map(|key| key.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_yaml_file_parses() {
    fn check(folder: &Path, seen: &mut usize) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                check(&path, seen);
            } else if path
                .extension()
                .is_some_and(|ext| ext == "yaml" || ext == "yml")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                let parsed: Result<Value, _> = serde_norway::from_str(&text);
                parsed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                *seen += 1;
            }
        }
    }
    let mut seen = 0;
    check(&repository("docker"), &mut seen);
    assert!(
        seen >= 6,
        "compose, Prometheus, rules, their tests, two for Grafana: {seen}"
    );
}

#[test]
fn the_whole_pipeline_is_there() {
    let services = names(&compose()["services"]);
    for service in [
        "kafka",
        "postgres",
        "topics",
        "migrate",
        "producer",
        "worker",
        "door",
        "prometheus",
        "grafana",
    ] {
        assert!(services.contains(service), "{service}");
    }
    assert_eq!(compose()["services"]["worker"]["deploy"]["replicas"], 2);
}

#[test]
fn whoever_is_waited_for_exists_and_can_say_that_it_is_ready() {
    let compose = compose();
    let services = compose["services"].as_mapping().unwrap();
    for (name, service) in services {
        let Some(waits_for) = service.get("depends_on") else {
            continue;
        };
        for (other, how) in waits_for.as_mapping().unwrap() {
            let place = format!("{name:?} waits for {other:?}");
            let other = services.get(other).unwrap_or_else(|| panic!("{place}"));
            match how["condition"].as_str() {
                Some("service_healthy") => assert!(other.get("healthcheck").is_some(), "{place}"),
                Some("service_completed_successfully") => {
                    assert_eq!(other["restart"], "no", "{place}");
                }
                condition => panic!("{place}: {condition:?}"),
            }
        }
    }
}

#[test]
fn volumes_are_declared_and_mounted_files_exist() {
    let compose = compose();
    let declared = names(&compose["volumes"]);
    for (name, service) in compose["services"].as_mapping().unwrap() {
        let Some(volumes) = service.get("volumes") else {
            continue;
        };
        for volume in volumes.as_sequence().unwrap() {
            let volume = volume.as_str().unwrap();
            // `${NAME:-default}`: the default is what has to be there.
            let volume = match volume.split_once(":-") {
                Some((_, rest)) => rest.replacen('}', "", 1),
                None => volume.to_owned(),
            };
            let source = volume.split(':').next().unwrap();
            if source.starts_with('.') {
                let path = repository("docker").join(source);
                assert!(
                    path.exists(),
                    "{name:?} mounts {source}, which does not exist"
                );
            } else {
                assert!(declared.contains(source), "{name:?}: volume {source}");
            }
        }
    }
}

#[test]
fn ports_are_open_to_this_machine_only() {
    for (name, service) in compose()["services"].as_mapping().unwrap() {
        for port in service
            .get("ports")
            .and_then(Value::as_sequence)
            .into_iter()
            .flatten()
        {
            assert!(
                port.as_str().unwrap().starts_with("127.0.0.1:"),
                "{name:?}: {port:?}"
            );
        }
    }
}

#[test]
fn kafka_is_the_version_that_devstack_runs() {
    let pom = read("devstack/kafka/pom.xml");
    let kafka = pom
        .split("<groupId>org.apache.kafka</groupId>")
        .nth(1)
        .unwrap();
    let version = kafka
        .split("<version>")
        .nth(1)
        .unwrap()
        .split('<')
        .next()
        .unwrap();
    for service in ["kafka", "topics"] {
        let image = format!("apache/kafka:{version}");
        assert_eq!(compose()["services"][service]["image"], image.as_str());
    }
}

#[test]
fn prometheus_finds_the_services_at_the_port_they_listen_on() {
    let config: Value = serde_norway::from_str(&read("docker/prometheus/prometheus.yml")).unwrap();
    let services = names(&compose()["services"]);
    for job in config["scrape_configs"].as_sequence().unwrap() {
        let found = &job["dns_sd_configs"][0];
        let name = found["names"][0].as_str().unwrap();
        assert!(services.contains(name), "{name}");
        let port = found["port"].as_u64().unwrap();
        let listens = format!("0.0.0.0:{port}");
        let command = &compose()["services"][name]["command"];
        let said = command
            .as_sequence()
            .unwrap()
            .iter()
            .filter_map(Value::as_str);
        assert!(
            said.into_iter().any(|word| word.ends_with(&listens)),
            "{name} {listens}"
        );
    }
}
