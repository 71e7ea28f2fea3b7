//! The few numbers of librdkafka's statistics that a worker uses, parsed without the rest.
//!
//! Specification: librdkafka, STATISTICS.md. Values below zero mean "not known".

use std::collections::BTreeMap;

use serde::Deserialize;

/// What the client knows about one partition that it fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct PartitionStatistics {
    /// One past the last record in the log.
    #[serde(default = "unknown")]
    pub hi_offset: i64,
    /// One past the last record that readers of committed data may see.
    #[serde(default = "unknown")]
    pub ls_offset: i64,
    /// The group's offset in Kafka.
    #[serde(default = "unknown")]
    pub committed_offset: i64,
    /// Whether the client fetches it at all.
    #[serde(default)]
    pub desired: bool,
}

const fn unknown() -> i64 {
    -1001
}

impl PartitionStatistics {
    /// The end of the log for a reader of committed data, when it is known.
    #[must_use]
    pub const fn end(&self) -> Option<i64> {
        if self.ls_offset >= 0 {
            Some(self.ls_offset)
        } else if self.hi_offset >= 0 {
            Some(self.hi_offset)
        } else {
            None
        }
    }
}

/// What a worker uses of one report.
#[derive(Debug)]
pub struct Statistics {
    /// Of the worker's topic, by number.
    pub partitions: BTreeMap<i32, PartitionStatistics>,
    /// Whether the client is connected to any broker.
    pub a_broker_is_up: bool,
    /// Whether the group has come to rest: nothing is about to be given or taken.
    pub group_is_steady: bool,
}

#[derive(Deserialize, Default)]
struct Group {
    #[serde(default)]
    join_state: String,
}

#[derive(Deserialize)]
struct Client {
    #[serde(default)]
    cgrp: Group,
    #[serde(default)]
    brokers: BTreeMap<String, Broker>,
    #[serde(default)]
    topics: BTreeMap<String, Topic>,
}

#[derive(Deserialize)]
struct Broker {
    #[serde(default)]
    state: String,
}

#[derive(Deserialize)]
struct Topic {
    #[serde(default)]
    partitions: BTreeMap<String, PartitionStatistics>,
}

/// Reads the partitions of `topic`; the client's own pseudo-partition −1 is left out.
///
/// # Errors
/// When the text is not what librdkafka documents.
pub fn read(json: &[u8], topic: &str) -> Result<Statistics, serde_json::Error> {
    let mut client: Client = serde_json::from_slice(json)?;
    let found = client.topics.remove(topic).map(|topic| topic.partitions);
    Ok(Statistics {
        partitions: found
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(number, statistics)| {
                Some((number.parse().ok().filter(|n: &i32| *n >= 0)?, statistics))
            })
            .collect(),
        group_is_steady: client.cgrp.join_state == "steady",
        a_broker_is_up: client.brokers.values().any(|broker| broker.state == "UP"),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::read;

    #[test]
    fn the_numbers_of_a_partition_are_found_and_the_pseudo_partition_is_not() {
        let json = br#"{"topics":{"tasks":{"partitions":{
            "0":{"hi_offset":12,"ls_offset":11,"eof_offset":11,"committed_offset":-1001,"desired":true,"x":1},
            "-1":{"hi_offset":-1001}}},"other":{"partitions":{"0":{}}}}}"#;
        let found = read(json, "tasks").unwrap().partitions;
        assert_eq!(found.len(), 1);
        assert_eq!(found[&0].end(), Some(11));
        assert!(found[&0].desired);
        assert_eq!(found[&0].committed_offset, -1001);
    }

    #[test]
    fn a_partition_without_numbers_is_unknown() {
        let json = br#"{"topics":{"t":{"partitions":{"3":{}}}}}"#;
        let found = read(json, "t").unwrap().partitions;
        assert_eq!(found[&3].end(), None);
        assert!(!found[&3].desired);
    }

    #[test]
    fn brokers_answer_as_long_as_one_of_them_is_connected() {
        let up = |json: &str| read(json.as_bytes(), "t").unwrap().a_broker_is_up;
        assert!(up(
            r#"{"brokers":{"b/1":{"state":"DOWN"},"b/2":{"state":"UP"}}}"#
        ));
        assert!(!up(
            r#"{"brokers":{"b/1":{"state":"DOWN"},"b/2":{"state":"TRY_CONNECT"}}}"#
        ));
        assert!(!up("{}"));
    }
}
