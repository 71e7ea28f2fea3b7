//! One `-X name=value`: a property that is passed through to librdkafka.

use std::fmt;
use std::str::FromStr;

use crate::secret;

/// A librdkafka property. Its `Debug` and `Display` mask the values of secret properties.
#[derive(Clone, PartialEq, Eq)]
pub struct Property {
    name: String,
    value: String,
}

impl Property {
    /// The property under the name that librdkafka itself uses for it, where it has several.
    pub fn new(name: &str, value: &str) -> Self {
        Self {
            name: canonical(name).to_owned(),
            value: value.to_owned(),
        }
    }

    /// The property's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The property's value, unmasked.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The value as it may be printed.
    pub fn shown_value(&self) -> &str {
        secret::shown(&self.name, &self.value)
    }
}

/// Two names of one property would otherwise both be set, and which one holds is left to chance.
fn canonical(name: &str) -> &str {
    match name {
        "metadata.broker.list" => "bootstrap.servers",
        "request.required.acks" => "acks",
        "auto.commit.enable" => "enable.auto.commit",
        "max.partition.fetch.bytes" => "fetch.message.max.bytes",
        "queue.buffering.max.ms" => "linger.ms",
        "compression.codec" => "compression.type",
        "message.send.max.retries" => "retries",
        "message.timeout.ms" => "delivery.timeout.ms",
        "max.in.flight" => "max.in.flight.requests.per.connection",
        "sasl.mechanisms" => "sasl.mechanism",
        other => other,
    }
}

impl FromStr for Property {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => Ok(Self::new(name.trim(), value)),
            _ => Err("expected NAME=VALUE, such as linger.ms=20".to_owned()),
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.shown_value())
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Property({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::Property;

    #[test]
    fn a_property_is_split_at_the_first_equals_sign() {
        let property = "sasl.jaas.config=a=b".parse();
        assert_eq!(property, Ok(Property::new("sasl.jaas.config", "a=b")));
        assert_eq!("client.rack=".parse(), Ok(Property::new("client.rack", "")));
        assert!("linger.ms".parse::<Property>().is_err());
        assert!("=5".parse::<Property>().is_err());
    }

    #[test]
    fn the_names_of_one_property_are_one_property() {
        assert_eq!(
            Property::new("compression.codec", "zstd").name(),
            "compression.type"
        );
        assert_eq!(
            Property::new("request.required.acks", "1"),
            Property::new("acks", "1")
        );
    }

    #[test]
    fn a_secret_value_is_never_printed() {
        let property = Property::new("sasl.password", "hunter2");
        assert_eq!(property.to_string(), "sasl.password=***");
        assert_eq!(format!("{property:?}"), "Property(sasl.password=***)");
        assert_eq!(property.value(), "hunter2");
    }
}
