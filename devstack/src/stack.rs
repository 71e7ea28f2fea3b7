//! A whole stack that ends with its owner: for one command, a demo or a bench.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::stack_env::{DLQ_TOPIC, GROUP, PARTITIONS, TOPIC};
use crate::{
    ApacheCluster, ApacheKafka, DevstackError, EmbeddedBroker, GuardOptions, KafkaChoice,
    KafkaOptions, PrivatePostgres, StackEnv, Topics,
};

/// Kafka with its two topics, and a Postgres. Dropping it ends what it started.
pub struct Stack {
    env: StackEnv,
    kafka: StackKafka,
    postgres: PrivatePostgres,
}

/// The Kafka of a stack.
pub enum StackKafka {
    /// In this process, guarded.
    Embedded(EmbeddedBroker),
    /// A child of this process.
    Apache(Box<ApacheKafka>),
    /// Three children of this process.
    ApacheThree(Box<ApacheCluster>),
    /// Somebody else's.
    Given,
}

impl Stack {
    /// Starts a stack in temporary folders, with topics and a schema name, not yet migrated.
    ///
    /// # Errors
    /// When a server cannot be started, or the given one not be reached.
    pub async fn start_temp(choice: &KafkaChoice) -> Result<Self, DevstackError> {
        let postgres = PrivatePostgres::start_temp().await?;
        let (kafka, address) = match choice {
            KafkaChoice::Embedded => {
                let broker = embedded_with_topics()?;
                let address = broker.bootstrap().to_owned();
                (StackKafka::Embedded(broker), address)
            }
            KafkaChoice::Apache => {
                let node = ApacheKafka::start_temp(KafkaOptions::default()).await?;
                let address = node.bootstrap();
                (StackKafka::Apache(Box::new(node)), address)
            }
            KafkaChoice::ApacheThree => {
                let cluster = ApacheCluster::start_temp(three_brokers()).await?;
                let address = cluster.bootstrap();
                (StackKafka::ApacheThree(Box::new(cluster)), address)
            }
            KafkaChoice::Given(address) => (StackKafka::Given, address.clone()),
        };
        ensure_topics(choice, &address).await?;
        let schema = schema_for(choice);
        let env = StackEnv {
            kafka: address,
            database_url: postgres.url(),
            schema,
        };
        Ok(Self {
            env,
            kafka,
            postgres,
        })
    }

    /// Where everything is.
    #[must_use]
    pub fn env(&self) -> &StackEnv {
        &self.env
    }

    /// Its Kafka, to be killed or asked.
    pub fn kafka(&mut self) -> &mut StackKafka {
        &mut self.kafka
    }

    /// Its Postgres, to be killed or asked.
    pub fn postgres(&mut self) -> &mut PrivatePostgres {
        &mut self.postgres
    }
}

/// A guarded embedded broker with the two topics of a stack.
///
/// # Errors
/// When librdkafka cannot make it.
pub fn embedded_with_topics() -> Result<EmbeddedBroker, DevstackError> {
    let broker = EmbeddedBroker::start_guarded(GuardOptions::new(TOPIC, GROUP))?;
    broker.create_topic(TOPIC, PARTITIONS)?;
    broker.create_topic(DLQ_TOPIC, PARTITIONS)?;
    Ok(broker)
}

/// Three brokers that leave room for everything else on a small machine.
pub(crate) fn three_brokers() -> Vec<KafkaOptions> {
    let options = KafkaOptions {
        heap_mib: 384,
        ..KafkaOptions::default()
    };
    vec![options; 3]
}

/// Makes the two topics on a real cluster unless they exist. Nothing to do for the embedded one.
///
/// # Errors
/// When the cluster cannot be reached or refuses.
pub async fn ensure_topics(choice: &KafkaChoice, address: &str) -> Result<(), DevstackError> {
    if *choice == KafkaChoice::Embedded {
        return Ok(());
    }
    let topics = Topics::of(address)?;
    for name in [TOPIC, DLQ_TOPIC] {
        topics.ensure(name, PARTITIONS, choice.replicas()).await?;
    }
    Ok(())
}

/// The schema for a stack, one for each log: a new one for each embedded broker, whose log is new too.
#[must_use]
pub fn schema_for(choice: &KafkaChoice) -> String {
    match choice {
        KafkaChoice::Embedded => {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            format!("millrace_{}", now.as_millis())
        }
        KafkaChoice::Apache | KafkaChoice::Given(_) => "millrace".to_owned(),
        // Their log is another than the single node's, and both stay.
        KafkaChoice::ApacheThree => "millrace_three".to_owned(),
    }
}
