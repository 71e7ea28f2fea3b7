//! Kafka and Postgres for demos, tests and benches, with nothing to prepare by hand.
//!
//! Servers listen on 127.0.0.1 and free ports only, keep their data in a folder that the caller
//! names (or a temporary one), never run Postgres as root, and end with the process that started
//! them, also when that process is killed, unless they are put in the background on purpose.
//!
//! Nothing here is linked into the `producer` and `consumer` binaries.

mod apache_kafka;
mod broker_guard;
mod embedded_broker;
mod env_file;
mod error;
mod java;
mod kafka_jars;
mod mock_knobs;
mod postgres;
mod postgres_account;
mod ports;
mod process;
mod process_mark;
mod stack_record;
mod test_db;
mod test_kafka;
mod topics;
mod unread;

pub use apache_kafka::{ApacheKafka, KafkaOptions};
pub use broker_guard::{GuardOptions, GuardedBroker};
pub use embedded_broker::EmbeddedBroker;
pub use env_file::EnvFile;
pub use error::DevstackError;
pub use java::Java;
pub use kafka_jars::KafkaJars;
pub use postgres::PrivatePostgres;
pub use process_mark::ProcessMark;
pub use stack_record::{RunningServer, StackRecord};
pub use test_db::TestDb;
pub use test_kafka::{can_run_apache_kafka, test_kafka};
pub use topics::Topics;
