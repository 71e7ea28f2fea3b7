//! Kafka and Postgres for demos, tests and benches, with nothing to prepare by hand.
//!
//! Servers listen on 127.0.0.1 and free ports only, keep their data in a folder that the caller
//! names (or a temporary one), never run Postgres as root, and end with the process that started
//! them, also when that process is killed, unless they are put in the background on purpose.
//!
//! Nothing here is linked into the `producer` and `consumer` binaries.

mod apache_cluster;
mod apache_kafka;
mod background;
mod broker_guard;
mod class_archive;
pub mod demo;
mod embedded_broker;
mod error;
mod java;
mod kafka_choice;
mod kafka_config;
mod kafka_jars;
mod kafka_options;
mod mock_cluster;
mod mock_log;
mod ports;
mod postgres;
mod postgres_account;
mod postgres_programs;
mod process;
mod process_mark;
mod stack;
mod stack_env;
mod stack_record;
mod test_db;
mod test_kafka;
mod topics;
mod unread;

pub use apache_cluster::ApacheCluster;
pub use apache_kafka::ApacheKafka;
pub use background::{Background, Found};
pub use broker_guard::{EmbeddedState, GuardOptions};
pub use embedded_broker::EmbeddedBroker;
pub use error::DevstackError;
pub use java::Java;
pub use kafka_choice::KafkaChoice;
pub use kafka_jars::KafkaJars;
pub use kafka_options::{KafkaOptions, Tuning};
pub use postgres::PrivatePostgres;
pub use process_mark::ProcessMark;
pub use stack::{Stack, StackKafka, embedded_with_topics, ensure_topics, schema_for};
pub use stack_env::{DLQ_TOPIC, GROUP, PARTITIONS, StackEnv, TOPIC};
pub use stack_record::{RunningServer, StackRecord};
pub use test_db::TestDb;
pub use test_kafka::{can_run_apache_kafka, test_kafka};
pub use topics::Topics;
