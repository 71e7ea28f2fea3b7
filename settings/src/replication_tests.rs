#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use rdkafka::admin::{ConfigEntry, ConfigResource, ConfigSource, OwnedResourceSpecifier};
use rdkafka::mocking::MockCluster;

use super::{
    MIN_INSYNC, ReplicationError, Shortfall, UNCLEAN, check_replication, check_within, shortfalls,
};
use crate::kafka::KafkaArgs;

fn described(entries: &[(&str, &str)]) -> ConfigResource {
    let entry = |(name, value): &(&str, &str)| ConfigEntry {
        name: (*name).to_owned(),
        value: Some((*value).to_owned()),
        source: ConfigSource::Default,
        is_read_only: false,
        is_default: true,
        is_sensitive: false,
    };
    ConfigResource {
        specifier: OwnedResourceSpecifier::Topic("tasks".to_owned()),
        entries: entries.iter().map(entry).collect(),
    }
}

#[test]
fn two_replicas_in_sync_and_clean_elections_are_enough() {
    let config = described(&[
        (MIN_INSYNC, "2"),
        (UNCLEAN, "false"),
        ("retention.ms", "-1"),
    ]);
    assert_eq!(shortfalls(2, &config), []);
    assert_eq!(shortfalls(3, &config), []);
}

#[test]
fn kafkas_defaults_on_one_broker_fall_short_twice() {
    let config = described(&[(MIN_INSYNC, "1"), (UNCLEAN, "false")]);
    let found = shortfalls(1, &config);
    let told = |property, found: &str| Shortfall {
        property,
        found: found.to_owned(),
        expected: "2 or more",
    };
    assert_eq!(
        found,
        [told("replication factor", "1"), told(MIN_INSYNC, "1")]
    );
    let error = ReplicationError::Weak {
        topic: "tasks".to_owned(),
        shortfalls: found,
    };
    assert_eq!(
        error.to_string(),
        "topic tasks can lose acknowledged events: replication factor is 1, expected 2 or more; \
         min.insync.replicas is 1, expected 2 or more; correct it, or accept that with \
         --allow-unreplicated"
    );
}

#[test]
fn an_unclean_election_or_a_broker_that_does_not_tell_falls_short() {
    let unclean = described(&[(MIN_INSYNC, "2"), (UNCLEAN, "true")]);
    assert_eq!(shortfalls(3, &unclean).len(), 1);
    let silent = shortfalls(3, &described(&[]));
    assert_eq!(silent.len(), 2);
    assert!(
        silent
            .iter()
            .all(|shortfall| shortfall.found == "not told by the broker")
    );
}

#[tokio::test]
async fn a_missing_topic_is_told_with_how_to_create_it_and_is_not_created() {
    let cluster = MockCluster::new(1).unwrap();
    let kafka = KafkaArgs::new(&cluster.bootstrap_servers(), "absent");
    for _ in 0..2 {
        let error = check_replication(&kafka).await.unwrap_err();
        assert!(
            matches!(&error, ReplicationError::TopicMissing { .. }),
            "{error}"
        );
        let told = error.to_string();
        assert!(told.contains("--create --topic absent"), "{told}");
    }
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_not_taken_for_a_sound_one() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("tasks", 1, 1).unwrap();
    let kafka = KafkaArgs::new(&cluster.bootstrap_servers(), "tasks");
    let error = check_within(&kafka, Duration::from_secs(2))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ReplicationError::Unanswered { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("of topic tasks"), "{error}");
}

#[tokio::test]
async fn with_allow_unreplicated_nothing_is_asked() {
    let kafka = KafkaArgs {
        allow_unreplicated: true,
        ..KafkaArgs::new("127.0.0.1:1", "tasks")
    };
    assert!(check_replication(&kafka).await.is_ok());
}
