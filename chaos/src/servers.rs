//! Kafka and Postgres of devstack, each behind a line of ours.
//!
//! Workers know the lines' addresses alone: brokers advertise them on a listener of their own. The harness
//! and the checker go straight to the servers, so that what they see is not what they have done to a line.

use std::sync::Arc;
use std::time::Duration;

use millrace_devstack::{
    ApacheCluster, KafkaOptions, PrivatePostgres, ProcessMark, Topics, Tuning,
};
use nix::sys::signal::Signal;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::Mutex;

use crate::error::ChaosError;
use crate::plan::Target;
use crate::proxy::{Line, Weather};

const HEAP_MIB: u32 = 256;
const ROLE_PASSWORD: &str = "chaos";

/// The servers of all rounds. Dropping them ends them.
pub struct Servers {
    kafka: Arc<Mutex<ApacheCluster>>,
    postgres: Arc<Mutex<PrivatePostgres>>,
    broker_lines: Vec<Line>,
    postgres_line: Line,
    bootstrap: String,
    url: String,
}

impl Servers {
    /// Starts so many brokers, and Postgres.
    ///
    /// # Errors
    /// When a server does not start.
    pub async fn start(brokers: usize) -> Result<Self, ChaosError> {
        let mut broker_lines = Vec::with_capacity(brokers);
        for _ in 0..brokers {
            broker_lines.push(open_line().await?);
        }
        let options = broker_lines.iter().map(|line| KafkaOptions {
            heap_mib: HEAP_MIB,
            tuning: Tuning::QuickStart,
            by_way_of: Some(line.port()),
            properties: vec![
                ("num.network.threads".to_owned(), "2".to_owned()),
                ("num.io.threads".to_owned(), "4".to_owned()),
            ],
        });
        let (kafka, postgres) = tokio::try_join!(
            ApacheCluster::start_temp(options.collect()),
            PrivatePostgres::start_temp()
        )?;
        for (index, line) in broker_lines.iter().enumerate() {
            line.lead_to(kafka.broker(index).map_or(0, |node| node.outside_port()));
        }
        let postgres_line = open_line().await?;
        postgres_line.lead_to(postgres.port());
        Ok(Self {
            bootstrap: kafka.bootstrap(),
            url: postgres.url(),
            kafka: Arc::new(Mutex::new(kafka)),
            postgres: Arc::new(Mutex::new(postgres)),
            broker_lines,
            postgres_line,
        })
    }

    /// The brokers themselves.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The brokers by way of their lines.
    #[must_use]
    pub fn bootstrap_by_line(&self) -> String {
        let addresses: Vec<String> = self
            .broker_lines
            .iter()
            .map(|line| format!("127.0.0.1:{}", line.port()))
            .collect();
        addresses.join(",")
    }

    /// The database itself.
    #[must_use]
    pub fn database_url(&self) -> &str {
        &self.url
    }

    /// The database by way of its line, for this role.
    #[must_use]
    pub fn database_url_by_line(&self, role: &str) -> String {
        let port = self.postgres_line.port();
        format!("postgres://{role}:{ROLE_PASSWORD}@127.0.0.1:{port}/postgres")
    }

    /// Makes roles for workers, one each, so that the database can tell who wrote.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn make_roles(&self, roles: impl Iterator<Item = String>) -> Result<(), ChaosError> {
        let statements: String = roles
            .map(|role| format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{ROLE_PASSWORD}';"))
            .collect();
        let mut connection = connect(&self.url, "public").await?;
        sqlx::raw_sql(AssertSqlSafe(statements))
            .execute(&mut connection)
            .await?;
        Ok(())
    }

    /// Makes a round's topic, fully replicated.
    ///
    /// # Errors
    /// When the brokers refuse.
    pub async fn make_topic(&self, name: &str, partitions: i32) -> Result<(), ChaosError> {
        let replicas = i32::try_from(self.broker_lines.len()).unwrap_or(1);
        let topics = Topics::of(&self.bootstrap)?;
        Ok(topics
            .create_replicated(name, partitions, replicas, &[])
            .await?)
    }

    fn lines(&self, target: Target) -> Vec<&Line> {
        match target {
            Target::Postgres => vec![&self.postgres_line],
            Target::Brokers => self.broker_lines.iter().collect(),
            Target::Broker(index) => self.broker_lines.get(index).into_iter().collect(),
        }
    }

    /// Cuts all connections of these lines.
    pub fn cut(&self, target: Target) {
        for line in self.lines(target) {
            line.cut();
        }
    }

    /// Changes the weather of these lines.
    pub fn set(&self, target: Target, weather: Weather) {
        for line in self.lines(target) {
            line.set(weather);
        }
    }

    /// SIGKILL to a broker, and a start after `down`. Returns once it answers again.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn kill_broker(&self, index: usize, down: Duration) -> Result<(), ChaosError> {
        let mut kafka = self.kafka.lock().await;
        let Some(broker) = kafka.broker_mut(index) else {
            return Ok(());
        };
        broker.kill().await?;
        tokio::time::sleep(down).await;
        Ok(broker.start_again().await?)
    }

    /// SIGKILL to the database, and a start after `down`. Returns once it answers again.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn kill_postgres(&self, down: Duration) -> Result<(), ChaosError> {
        let mut postgres = self.postgres.lock().await;
        postgres.kill().await?;
        tokio::time::sleep(down).await;
        Ok(postgres.start_again().await?)
    }

    /// The processes of a broker.
    pub async fn broker_processes(&self, index: usize) -> Vec<ProcessMark> {
        let kafka = self.kafka.lock().await;
        let node = kafka.broker(index);
        node.and_then(|node| node.mark()).into_iter().collect()
    }

    /// The processes of the database: the server and all its backends.
    pub async fn postgres_processes(&self) -> Vec<ProcessMark> {
        let mark = self.postgres.lock().await.mark();
        mark.map_or_else(Vec::new, |mark| {
            let mut all = vec![mark];
            all.extend(mark.children());
            all
        })
    }

    /// How many brokers there are.
    #[must_use]
    pub fn brokers(&self) -> usize {
        self.broker_lines.len()
    }

    /// Everything flows and runs again. What is being started is waited for.
    pub async fn heal(&self) {
        for line in &self.broker_lines {
            line.heal();
        }
        self.postgres_line.heal();
        for index in 0..self.brokers() {
            thaw(&self.broker_processes(index).await);
        }
        thaw(&self.postgres_processes().await);
    }
}

/// SIGSTOP to all of them.
pub fn freeze(processes: &[ProcessMark]) {
    for process in processes {
        process.signal(Signal::SIGSTOP);
    }
}

/// SIGCONT to all of them.
pub fn thaw(processes: &[ProcessMark]) {
    for process in processes {
        process.signal(Signal::SIGCONT);
    }
}

/// A connection that sees the tables of `schema`.
///
/// # Errors
/// When the database does not answer within five seconds.
pub async fn connect(url: &str, schema: &str) -> Result<PgConnection, sqlx::Error> {
    let connecting = PgConnection::connect(url);
    let timed = tokio::time::timeout(Duration::from_secs(5), connecting).await;
    let mut connection = timed.map_err(|_| sqlx::Error::PoolTimedOut)??;
    sqlx::query(AssertSqlSafe(format!("SET search_path = {schema}")))
        .execute(&mut connection)
        .await?;
    Ok(connection)
}

async fn open_line() -> Result<Line, ChaosError> {
    Line::open()
        .await
        .map_err(ChaosError::io("listen on a port of 127.0.0.1"))
}
