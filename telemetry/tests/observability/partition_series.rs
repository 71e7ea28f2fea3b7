//! The series of a partition live as long as it is owned, and not a scrape longer.

use crate::scrape::{Samples, samples};
use millrace_telemetry::{ConsumerMetrics, render};

const LAG: &str = "kafka_consumergroup_lag";

fn of_topic(samples: &Samples, topic: &str) -> Vec<(String, String, f64)> {
    let mut found: Vec<_> = samples
        .iter()
        .flat_map(|(name, of_name)| of_name.iter().map(move |sample| (name, sample)))
        .filter(|(_, s)| s.labels.get("topic").is_some_and(|t| t == topic))
        .filter_map(|(name, s)| Some((name.clone(), s.labels.get("partition")?.clone(), s.value)))
        .collect();
    found.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    found
}

fn names(topic: &str) -> Vec<(String, String)> {
    let found = of_topic(&samples(&render()), topic);
    found
        .into_iter()
        .map(|(name, partition, _)| (name, partition))
        .collect()
}

#[test]
fn the_series_of_a_partition_that_went_away_disappear_at_once() {
    let consumer = ConsumerMetrics::new("g", "went-away", &[]);
    let kept = consumer.partition(1);
    let lost = consumer.partition(2);
    for partition in [&kept, &lost] {
        partition.lag(Some((7, 1.5)));
        partition.position(10);
        partition.log_end(17);
        partition.committed(9);
        partition.stopped(true);
    }
    assert_eq!(names("went-away").len(), 12);

    drop(lost);

    let left = names("went-away");
    assert_eq!(left.len(), 6);
    assert!(
        left.iter().all(|(_, partition)| partition == "1"),
        "{left:?}"
    );
}

#[test]
fn a_partition_taken_again_while_the_old_handle_drains_keeps_its_series() {
    let consumer = ConsumerMetrics::new("g", "taken-again", &[]);
    let draining = consumer.partition(0);
    draining.lag(Some((1, 0.1)));
    let taken_again = consumer.partition(0);

    drop(draining);
    assert!(names("taken-again").contains(&(LAG.to_owned(), "0".to_owned())));

    drop(taken_again);
    assert!(names("taken-again").is_empty());
}

#[test]
fn a_lag_that_is_not_known_is_not_shown() {
    let consumer = ConsumerMetrics::new("g", "unknown-lag", &[]);
    let partition = consumer.partition(0);
    assert!(!names("unknown-lag").iter().any(|(name, _)| name == LAG));

    partition.lag(Some((3, 2.0)));
    assert!(names("unknown-lag").iter().any(|(name, _)| name == LAG));

    partition.lag(None);
    assert!(!names("unknown-lag").iter().any(|(name, _)| name == LAG));
}

#[test]
fn lag_carries_the_labels_that_dashboards_know() {
    let consumer = ConsumerMetrics::new("my-group", "labels", &[]);
    let partition = consumer.partition(4);
    partition.lag(Some((3, 2.5)));

    let samples = samples(&render());
    let of = |name: &str| {
        let found = samples[name].iter().find(|s| s.labels["topic"] == "labels");
        found.unwrap()
    };
    assert_eq!(of(LAG).value, 3.0);
    assert_eq!(of("kafka_consumergroup_lag_seconds").value, 2.5);
    let labels: Vec<(&str, &str)> = of(LAG)
        .labels
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        labels,
        [
            ("consumergroup", "my-group"),
            ("partition", "4"),
            ("topic", "labels")
        ]
    );
}
