//! Which Kafka, which topic, and how librdkafka is set up for it.

use clap::Args;
use clap::builder::BoolishValueParser;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use crate::error::SettingError;
use crate::property::Property;
use crate::protected;
use crate::role::Role;
use crate::secret;

/// Flags that say where Kafka is and how to talk to it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaArgs {
    /// Kafka's bootstrap servers, separated by commas
    ///
    /// There is no default; `make up` starts a broker and writes its address to .millrace/env.
    #[arg(long, env = "KAFKA_BOOTSTRAP_SERVERS", value_name = "HOST:PORT,...")]
    pub kafka: Option<String>,

    /// Topic of the task events
    ///
    /// It is never created by this program.
    #[arg(long, env = "MILLRACE_TOPIC", value_name = "NAME", default_value = "tasks",
          value_parser = topic_name)]
    pub topic: String,

    /// A librdkafka property, passed through as it is; repeatable
    ///
    /// Such as -X security.protocol=SASL_SSL -X compression.type=zstd. Refused are those that a
    /// guarantee depends on, such as acks and auto.offset.reset. Of two values for one property
    /// the later one holds.
    #[arg(short = 'X', value_name = "NAME=VALUE")]
    pub properties: Vec<Property>,

    /// Accept a topic that one broken disk can take away
    ///
    /// Without it the start is refused unless the topic has a replication factor of 2 or more,
    /// min.insync.replicas of 2 or more and no unclean leader election. For development only.
    #[arg(long, env = "MILLRACE_ALLOW_UNREPLICATED", value_parser = BoolishValueParser::new())]
    pub allow_unreplicated: bool,
}

impl KafkaArgs {
    /// The settings for these bootstrap servers and this topic, all else as without flags.
    pub fn new(bootstrap_servers: &str, topic: &str) -> Self {
        Self {
            kafka: Some(bootstrap_servers.to_owned()),
            topic: topic.to_owned(),
            properties: Vec::new(),
            allow_unreplicated: false,
        }
    }

    /// The same settings with one more property, as by `-X`.
    #[must_use]
    pub fn with_property(mut self, name: &str, value: &str) -> Self {
        self.properties.push(Property::new(name, value));
        self
    }

    /// The bootstrap servers, as `host:port,host:port`.
    ///
    /// # Errors
    /// [`SettingError::Missing`].
    pub fn bootstrap_servers(&self) -> Result<&str, SettingError> {
        match self.kafka.as_deref().map(str::trim) {
            Some(servers) if !servers.is_empty() => Ok(servers),
            _ => Err(SettingError::Missing {
                flag: "--kafka",
                env: "KAFKA_BOOTSTRAP_SERVERS",
                hint: "`make up` starts a broker and writes the address to .millrace/env",
            }),
        }
    }

    /// The librdkafka configuration of a client in this role: the role's settings, then those
    /// given with `-X`. Every name and value has been accepted by librdkafka.
    ///
    /// # Errors
    /// No bootstrap servers, a property that a guarantee depends on, or a property or value that
    /// librdkafka does not know.
    pub fn client_config(&self, role: Role<'_>) -> Result<ClientConfig, SettingError> {
        protected::check(&self.properties)?;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap_servers()?);
        config.set("client.id", role.client_id());
        for (name, value) in role.defaults(protected::is_consumer_protocol(&self.properties)) {
            config.set(name, value);
        }
        if let Role::Consumer { group } = role {
            config.set("group.id", group);
        }
        for property in &self.properties {
            config.set(property.name(), property.value());
        }
        config
            .create_native_config()
            .map_err(refused_by_librdkafka)?;
        Ok(config)
    }
}

fn refused_by_librdkafka(error: KafkaError) -> SettingError {
    match error {
        KafkaError::ClientConfig(_, reason, name, value) => {
            let value = secret::shown(&name, &value).to_owned();
            SettingError::Invalid {
                name: format!("-X {name}"),
                value,
                reason,
            }
        }
        other => SettingError::Invalid {
            name: "-X".to_owned(),
            value: String::new(),
            reason: other.to_string(),
        },
    }
}

/// Kafka's own rule for topic names.
fn topic_name(name: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=249).contains(&name.len())
        && name.chars().all(is_allowed)
        && name != "."
        && name != ".."
    {
        Ok(name.to_owned())
    } else {
        Err("expected 1 to 249 letters, digits, dots, underscores or hyphens".to_owned())
    }
}

#[cfg(test)]
#[path = "kafka_tests.rs"]
mod tests;
