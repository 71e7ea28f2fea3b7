#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use super::{KafkaArgs, topic_name};
use crate::error::SettingError;
use crate::role::Role;

const CONSUMER: Role<'_> = Role::Consumer { group: "workers" };
const ROLES: [Role<'_>; 4] = [Role::Producer, Role::FrontDoor, CONSUMER, Role::Admin];

fn args() -> KafkaArgs {
    KafkaArgs::new("localhost:9092", "tasks")
}

fn get(args: &KafkaArgs, role: Role<'_>, name: &str) -> Option<String> {
    args.client_config(role)
        .unwrap()
        .get(name)
        .map(str::to_owned)
}

#[test]
fn a_missing_address_names_the_flag_and_the_variable() {
    for kafka in [None, Some(String::new()), Some(" ".to_owned())] {
        let args = KafkaArgs { kafka, ..args() };
        let told = args.client_config(Role::Producer).unwrap_err().to_string();
        assert!(told.contains("--kafka is missing"), "{told}");
        assert!(told.contains("KAFKA_BOOTSTRAP_SERVERS"), "{told}");
        assert!(told.contains(".millrace/env"), "{told}");
    }
}

#[test]
fn a_producer_is_acknowledged_by_all_and_partitions_as_java_does() {
    for (name, value) in [
        ("bootstrap.servers", "localhost:9092"),
        ("client.id", "millrace-producer"),
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("partitioner", "murmur2_random"),
        ("compression.type", "lz4"),
        ("linger.ms", "5"),
        ("queue.buffering.max.kbytes", "65536"),
        ("allow.auto.create.topics", "false"),
    ] {
        assert_eq!(
            get(&args(), Role::Producer, name).as_deref(),
            Some(value),
            "{name}"
        );
    }
    assert_eq!(get(&args(), Role::Producer, "group.id"), None);
}

#[test]
fn a_consumer_commits_only_what_it_stored_and_never_jumps() {
    for (name, value) in [
        ("client.id", "millrace-consumer"),
        ("group.id", "workers"),
        ("enable.auto.commit", "true"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
        ("isolation.level", "read_committed"),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("enable.partition.eof", "true"),
        ("statistics.interval.ms", "1000"),
        ("fetch.queue.backoff.ms", "5"),
        ("queued.min.messages", "20000"),
        ("queued.max.messages.kbytes", "16384"),
        ("fetch.message.max.bytes", "262144"),
        ("fetch.max.bytes", "8388608"),
        ("allow.auto.create.topics", "false"),
    ] {
        assert_eq!(
            get(&args(), CONSUMER, name).as_deref(),
            Some(value),
            "{name}"
        );
    }
    assert_eq!(get(&args(), CONSUMER, "session.timeout.ms"), None);
    assert_eq!(get(&args(), CONSUMER, "partitioner"), None);
}

#[test]
fn librdkafka_accepts_the_settings_of_every_role() {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::producer::BaseProducer;

    let classic = args();
    let consumer_protocol = args().with_property("group.protocol", "consumer");
    for args in [classic, consumer_protocol] {
        let consumer: BaseConsumer = args.client_config(CONSUMER).unwrap().create().unwrap();
        assert_eq!(consumer.assignment().unwrap().count(), 0);
        let _producer: BaseProducer = args
            .client_config(Role::Producer)
            .unwrap()
            .create()
            .unwrap();
    }
}

#[test]
fn the_new_group_protocol_leaves_assignment_and_sessions_to_the_broker() {
    let args = args().with_property("group.protocol", "consumer");
    assert_eq!(get(&args, CONSUMER, "partition.assignment.strategy"), None);
    assert_eq!(
        get(&args, CONSUMER, "group.protocol").as_deref(),
        Some("consumer")
    );
    for name in [
        "session.timeout.ms",
        "heartbeat.interval.ms",
        "partition.assignment.strategy",
    ] {
        let refused = args.clone().with_property(name, "6000");
        let told = refused.client_config(CONSUMER).unwrap_err().to_string();
        assert!(
            told.contains(name) && told.contains("on the broker"),
            "{told}"
        );
    }
    let classic = self::args().with_property("session.timeout.ms", "6000");
    assert_eq!(
        get(&classic, CONSUMER, "session.timeout.ms").as_deref(),
        Some("6000")
    );
}

#[test]
fn a_property_that_a_guarantee_depends_on_is_refused_by_every_name() {
    for (name, value) in [
        ("enable.auto.commit", "false"),
        ("auto.commit.enable", "false"),
        ("enable.auto.offset.store", "true"),
        ("auto.offset.reset", "latest"),
        ("enable.idempotence", "false"),
        ("acks", "1"),
        ("request.required.acks", "0"),
        ("partitioner", "consistent_random"),
        ("group.id", "others"),
        ("isolation.level", "read_uncommitted"),
        ("transactional.id", "t"),
        ("enable.partition.eof", "false"),
        ("statistics.interval.ms", "0"),
        ("bootstrap.servers", "elsewhere:9092"),
        ("metadata.broker.list", "elsewhere:9092"),
        ("partition.assignment.strategy", "range"),
        ("allow.auto.create.topics", "true"),
    ] {
        for role in ROLES {
            let error = args()
                .with_property(name, value)
                .client_config(role)
                .unwrap_err();
            let SettingError::Protected {
                value: shown,
                why,
                instead,
                ..
            } = &error
            else {
                panic!("{name}: {error:?}");
            };
            assert_eq!(shown, value);
            assert!(!why.is_empty() && !instead.is_empty());
        }
    }
}

#[test]
fn a_refusal_says_what_why_and_what_instead() {
    let error = args()
        .with_property("acks", "1")
        .client_config(Role::Producer)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "-X acks=1 is refused: an acknowledged event could be lost with one broker; \
         use acks=all, or leave it out"
    );
}

#[test]
fn a_value_that_changes_nothing_is_let_through() {
    for (name, value) in [
        ("acks", "-1"),
        ("auto.offset.reset", "error"),
        ("isolation.level", "read_committed"),
    ] {
        assert!(
            args()
                .with_property(name, value)
                .client_config(CONSUMER)
                .is_ok(),
            "{name}"
        );
    }
}

#[test]
fn other_properties_override_the_defaults_by_any_of_their_names() {
    let changed = args()
        .with_property("compression.codec", "zstd")
        .with_property("queue.buffering.max.ms", "1")
        .with_property("max.partition.fetch.bytes", "1024")
        .with_property("message.max.bytes", "2000000")
        .with_property("client.id", "mine")
        .with_property("client.rack", "a")
        .with_property("client.rack", "b");
    for (name, value) in [
        ("compression.type", "zstd"),
        ("linger.ms", "1"),
        ("message.max.bytes", "2000000"),
        ("client.id", "mine"),
        ("client.rack", "b"),
    ] {
        assert_eq!(
            get(&changed, Role::Producer, name).as_deref(),
            Some(value),
            "{name}"
        );
    }
    assert_eq!(
        get(&changed, CONSUMER, "fetch.message.max.bytes").as_deref(),
        Some("1024")
    );
    assert_eq!(get(&changed, Role::Producer, "compression.codec"), None);
}

#[test]
fn what_librdkafka_does_not_know_is_refused_at_start_without_the_secret() {
    let told = |name, value| {
        args()
            .with_property(name, value)
            .client_config(Role::Producer)
            .unwrap_err()
            .to_string()
    };
    assert!(told("linger.mss", "5").contains("-X linger.mss=5 is refused"));
    assert!(told("linger.ms", "soon").contains("-X linger.ms=soon is refused"));
    let secret = told("sasl.passwordd", "hunter2");
    assert!(
        secret.contains("***") && !secret.contains("hunter2"),
        "{secret}"
    );
}

#[test]
fn secrets_are_not_in_the_debug_text() {
    let args = args().with_property("sasl.password", "hunter2");
    assert!(!format!("{args:?}").contains("hunter2"));
    assert_eq!(
        get(&args, Role::Admin, "sasl.password").as_deref(),
        Some("hunter2")
    );
}

#[test]
fn a_topic_is_named_as_kafka_allows() {
    assert_eq!(topic_name("tasks.dlq-2_x"), Ok("tasks.dlq-2_x".to_owned()));
    for name in ["", ".", "..", "a b", "ä", &"x".repeat(250)] {
        assert!(topic_name(name).is_err(), "{name:?}");
    }
}
