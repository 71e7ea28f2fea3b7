//! The servers of a run: a fresh private Postgres, and a fresh Apache Kafka once it is needed.
//!
//! Both are durable as in production (Postgres with `fsync` and `synchronous_commit`, Kafka with its
//! own defaults and one node), keep their data in temporary folders and end with this process. Kafka
//! is started late, so that nothing runs beside the bare COPY.

use anyhow::Context as _;
use millrace_devstack::{ApacheKafka, KafkaOptions, PrivatePostgres};
use millrace_settings::KafkaArgs;
use sqlx::{Connection as _, PgConnection};

/// Partitions of every topic.
pub const PARTITIONS: i32 = 12;

/// Postgres, and perhaps Kafka.
pub struct Servers {
    /// The private Postgres.
    pub postgres: PrivatePostgres,
    kafka: Option<ApacheKafka>,
}

impl Servers {
    /// Starts Postgres.
    ///
    /// # Errors
    /// Says what is missing.
    pub async fn start() -> anyhow::Result<Self> {
        let postgres = PrivatePostgres::start_temp()
            .await
            .context("starting Postgres")?;
        Ok(Self {
            postgres,
            kafka: None,
        })
    }

    /// Postgres' address.
    pub fn url(&self) -> String {
        self.postgres.url()
    }

    /// Has Postgres write out what it holds, and make the files of its log ready to be written again.
    ///
    /// # Errors
    /// It cannot.
    pub async fn checkpoint(&self) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(&self.url()).await?;
        sqlx::raw_sql("CHECKPOINT").execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// Starts Apache Kafka.
    ///
    /// # Errors
    /// Says what is missing.
    pub async fn start_kafka(&mut self) -> anyhow::Result<()> {
        let kafka = ApacheKafka::start_temp(KafkaOptions::default())
            .await
            .context("starting Apache Kafka")?;
        self.kafka = Some(kafka);
        Ok(())
    }

    /// Apache Kafka.
    ///
    /// # Errors
    /// When it has not been started.
    pub fn kafka(&self) -> anyhow::Result<&ApacheKafka> {
        self.kafka.as_ref().context("Apache Kafka is not running")
    }

    /// The settings of a client of this topic.
    ///
    /// # Errors
    /// When Kafka has not been started.
    pub fn topic(&self, name: &str) -> anyhow::Result<KafkaArgs> {
        Ok(KafkaArgs::new(&self.kafka()?.bootstrap(), name))
    }
}
