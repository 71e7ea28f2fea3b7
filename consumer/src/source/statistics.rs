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
    /// Where the fetcher met the end of the log last.
    #[serde(default = "unknown")]
    pub eof_offset: i64,
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

#[derive(Deserialize)]
struct Client {
    #[serde(default)]
    topics: BTreeMap<String, Topic>,
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
pub fn partitions(
    json: &[u8],
    topic: &str,
) -> Result<BTreeMap<i32, PartitionStatistics>, serde_json::Error> {
    let mut client: Client = serde_json::from_slice(json)?;
    let Some(found) = client.topics.remove(topic) else {
        return Ok(BTreeMap::new());
    };
    Ok(found
        .partitions
        .into_iter()
        .filter_map(|(number, statistics)| {
            Some((number.parse().ok().filter(|n: &i32| *n >= 0)?, statistics))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::partitions;

    #[test]
    fn the_numbers_of_a_partition_are_found_and_the_pseudo_partition_is_not() {
        let json = br#"{"topics":{"tasks":{"partitions":{
            "0":{"hi_offset":12,"ls_offset":11,"eof_offset":11,"committed_offset":-1001,"desired":true,"x":1},
            "-1":{"hi_offset":-1001}}},"other":{"partitions":{"0":{}}}}}"#;
        let found = partitions(json, "tasks").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[&0].end(), Some(11));
        assert!(found[&0].desired);
        assert_eq!(found[&0].committed_offset, -1001);
    }

    #[test]
    fn a_partition_without_numbers_is_unknown() {
        let found = partitions(br#"{"topics":{"t":{"partitions":{"3":{}}}}}"#, "t").unwrap();
        assert_eq!(found[&3].end(), None);
        assert!(!found[&3].desired);
    }
}
