//! The series of a partition are shown as long as it is owned, and not a minute longer.

use crate::scrape::{Samples, samples};
use millrace_telemetry::{ConsumerMetrics, render};
use std::time::{Duration, Instant};

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

fn shown_of(partition: &str) -> Vec<String> {
    let found = names("went-away").into_iter();
    found
        .filter_map(|(name, of)| (of == partition).then_some(name))
        .collect()
}

#[test]
fn the_series_of_a_partition_that_went_away_disappear_within_60_s_and_no_others() {
    let consumer = ConsumerMetrics::new("g", "went-away", &[]);
    let [kept, lost, unknown_lag, draining] = [0, 1, 2, 3].map(|p| consumer.partition(p));
    for partition in [&kept, &lost, &unknown_lag, &draining] {
        partition.lag(Some((7, 1.5)));
        partition.position(10);
        partition.log_end(17);
        partition.committed(9);
        partition.stopped(true);
        partition.parked(5);
        partition.frontier_age(Duration::from_secs(2));
    }
    let taken_again = consumer.partition(3);
    taken_again.lag(Some((5, 1.0)));
    assert_eq!(names("went-away").len(), 4 * 8);

    drop(lost);
    drop(draining);
    unknown_lag.lag(None);

    let deadline = Instant::now() + Duration::from_secs(60);
    while !shown_of("1").is_empty() || shown_of("2").iter().any(|name| name == LAG) {
        assert!(Instant::now() < deadline, "{:?}", names("went-away"));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(shown_of("0").len(), 8, "owned, though nothing changes");
    assert_eq!(shown_of("2").len(), 6, "only its lag is unknown");
    assert!(shown_of("3").iter().any(|name| name == LAG));
}

#[test]
fn a_lag_that_was_never_known_is_not_shown() {
    let consumer = ConsumerMetrics::new("g", "unknown-lag", &[]);
    let partition = consumer.partition(0);
    assert!(!names("unknown-lag").iter().any(|(name, _)| name == LAG));

    partition.lag(Some((3, 2.0)));
    assert!(names("unknown-lag").iter().any(|(name, _)| name == LAG));
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
