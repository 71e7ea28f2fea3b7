//! Which Kafka a stack uses: `embedded`, `apache`, or the address of a cluster.

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
    /// A cluster that somebody else runs, as `host:port[,host:port…]`.
    Given(String),
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
