//! Which Kafka a stack uses: `embedded`, `apache` with one broker or three, or the address of a cluster.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The value of `KAFKA=` and `--kafka`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KafkaChoice {
    /// librdkafka's in-process broker.
    Embedded,
    /// Apache Kafka, one node.
    Apache,
    /// Apache Kafka with three brokers.
    ApacheThree,
    /// A cluster that somebody else runs, as `host:port[,host:port…]`.
    Given(String),
}

impl KafkaChoice {
    /// This choice with so many brokers, 1 or 3. Only devstack's own Apache Kafka has a choice.
    ///
    /// # Errors
    /// Says what can be had.
    pub fn with_brokers(self, brokers: u8) -> Result<Self, String> {
        match (self, brokers) {
            (Self::Apache | Self::ApacheThree, 3) => Ok(Self::ApacheThree),
            (Self::Apache | Self::ApacheThree, 1) => Ok(Self::Apache),
            (other @ (Self::Embedded | Self::Given(_)), 1) => Ok(other),
            (_, 3) => Err("BROKERS=3 needs KAFKA=apache".to_owned()),
            (_, other) => Err(format!("BROKERS={other} is neither 1 nor 3")),
        }
    }

    /// Copies of each topic that are made there; -1 leaves it to the cluster.
    #[must_use]
    pub const fn replicas(&self) -> i32 {
        match self {
            Self::Embedded | Self::Apache => 1,
            Self::ApacheThree => 3,
            Self::Given(_) => -1,
        }
    }
}

impl FromStr for KafkaChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(Self::Embedded),
            "apache" => Ok(Self::Apache),
            address if address.split(',').all(is_address) => Ok(Self::Given(address.to_owned())),
            other => Err(format!("`{other}` is none of: embedded, apache, host:port")),
        }
    }
}

impl fmt::Display for KafkaChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Apache => "apache",
            Self::ApacheThree => "apache, three brokers",
            Self::Given(address) => address,
        })
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_brokers_are_those_of_apache_kafka() {
        assert_eq!(
            KafkaChoice::Apache.with_brokers(3),
            Ok(KafkaChoice::ApacheThree)
        );
        assert_eq!(
            KafkaChoice::Embedded.with_brokers(1),
            Ok(KafkaChoice::Embedded)
        );
        assert!(KafkaChoice::Embedded.with_brokers(3).is_err());
        assert!(KafkaChoice::Apache.with_brokers(2).is_err());
    }

    #[test]
    fn a_choice_is_a_name_or_an_address_and_reads_back_what_it_prints() {
        for text in ["embedded", "apache", "kafka-1:9092,kafka-2:9092"] {
            assert_eq!(
                text.parse::<KafkaChoice>().map(|choice| choice.to_string()),
                Ok(text.into())
            );
        }
        for text in ["", "redpanda", "kafka:", ":9092", "kafka:port", "a:1,b"] {
            assert!(text.parse::<KafkaChoice>().is_err(), "{text}");
        }
    }
}
