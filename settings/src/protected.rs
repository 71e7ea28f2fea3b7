//! The librdkafka properties that cannot be passed through, because a guarantee depends on them.
//!
//! Each says what would break and what to use instead. A value that changes nothing is let through
//! where people are likely to carry it over from another configuration.

use crate::error::SettingError;
use crate::property::Property;

struct Rule {
    name: &'static str,
    /// Values that keep the guarantee.
    harmless: &'static [&'static str],
    why: &'static str,
    instead: &'static str,
}

const fn rule(
    name: &'static str,
    harmless: &'static [&'static str],
    why: &'static str,
    instead: &'static str,
) -> Rule {
    Rule {
        name,
        harmless,
        why,
        instead,
    }
}

const LEAVE: &str = "leave it out";

const RULES: [Rule; 14] = [
    rule(
        "bootstrap.servers",
        &[],
        "the brokers have a flag of their own",
        "use --kafka",
    ),
    rule(
        "group.id",
        &[],
        "the group has a flag of its own",
        "use --group",
    ),
    rule(
        "enable.auto.commit",
        &["true"],
        "offsets are committed in the background, but only those whose result is durable",
        LEAVE,
    ),
    rule(
        "enable.auto.offset.store",
        &["false"],
        "an offset would be committed before its result is durable",
        LEAVE,
    ),
    rule(
        "auto.offset.reset",
        &["error"],
        "a truncated or recreated log would be skipped or read again in silence",
        "use `consumer run --start` for the first start and `consumer position set` later",
    ),
    rule(
        "enable.partition.eof",
        &["true"],
        "the worker knows the log's end by it",
        LEAVE,
    ),
    rule(
        "statistics.interval.ms",
        &[],
        "lag is measured by it",
        LEAVE,
    ),
    rule(
        "isolation.level",
        &["read_committed"],
        "records of aborted transactions would run",
        LEAVE,
    ),
    rule(
        "partition.assignment.strategy",
        &["cooperative-sticky"],
        "the worker gives partitions up one by one",
        "use cooperative-sticky, or group.protocol=consumer",
    ),
    rule(
        "enable.idempotence",
        &["true"],
        "a retry could write an event twice",
        LEAVE,
    ),
    rule(
        "acks",
        &["all", "-1"],
        "an acknowledged event could be lost with one broker",
        "use acks=all, or leave it out",
    ),
    rule(
        "partitioner",
        &["murmur2_random"],
        "events of one key would go to other partitions than those of Java producers",
        LEAVE,
    ),
    rule(
        "transactional.id",
        &[],
        "events are not sent in transactions",
        LEAVE,
    ),
    rule(
        "allow.auto.create.topics",
        &["false"],
        "a misspelt topic would be created with the broker's defaults",
        "create the topic first",
    ),
];

/// What the group protocol of KIP-848 sets on the broker instead.
const REFUSED_UNDER_CONSUMER_PROTOCOL: [&str; 4] = [
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "partition.assignment.strategy",
    "group.protocol.type",
];

/// Whether the new group protocol was asked for.
pub(crate) fn is_consumer_protocol(properties: &[Property]) -> bool {
    properties
        .iter()
        .rfind(|property| property.name() == "group.protocol")
        .is_some_and(|property| property.value().eq_ignore_ascii_case("consumer"))
}

pub(crate) fn check(properties: &[Property]) -> Result<(), SettingError> {
    let consumer_protocol = is_consumer_protocol(properties);
    for property in properties {
        let refuse = |why, instead| SettingError::Protected {
            name: property.name().to_owned(),
            value: property.shown_value().to_owned(),
            why,
            instead,
        };
        if consumer_protocol && REFUSED_UNDER_CONSUMER_PROTOCOL.contains(&property.name()) {
            return Err(refuse(
                "with group.protocol=consumer the broker decides it",
                "set it on the broker (group.consumer.*), or use group.remote.assignor",
            ));
        }
        let broken = RULES.iter().find(|rule| {
            rule.name == property.name() && !rule.harmless.contains(&property.value())
        });
        if let Some(rule) = broken {
            return Err(refuse(rule.why, rule.instead));
        }
    }
    Ok(())
}
