//! A stack that stays when the command that started it ends.
//!
//! Starting is idempotent: a running stack is used as it is, one that died is cleared away first.
//! A start that fails half-way ends what it had started.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::process::{Lifetime, ServerProcess, ServerSpec, lock_file};
use crate::stack::{ensure_topics, schema_for, three_brokers};
use crate::{
    ApacheCluster, ApacheKafka, DevstackError, KafkaChoice, KafkaOptions, PrivatePostgres,
    ProcessMark, RunningServer, StackEnv, StackRecord,
};

const BROKER_READY: Duration = Duration::from_secs(30);

/// How a call to [`Background::up`] found things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing ran; it was started.
    Nothing,
    /// It ran, and was left alone.
    Running,
    /// Some of its servers had died; the rest was ended, and it was started again.
    Remains,
}

/// The stack of one folder.
pub struct Background {
    dir: PathBuf,
    broker_program: PathBuf,
}

impl Background {
    /// The stack of `dir`; `broker_program` is the `devstack` binary, run for the embedded broker.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn of(dir: &Path, broker_program: PathBuf) -> Result<Self, DevstackError> {
        let dir = std::path::absolute(dir).map_err(DevstackError::path("resolve", dir))?;
        fs::create_dir_all(&dir).map_err(DevstackError::path("create", &dir))?;
        Ok(Self {
            dir,
            broker_program,
        })
    }

    /// The file of `export` lines.
    #[must_use]
    pub fn env_file(&self) -> PathBuf {
        self.dir.join("env")
    }

    /// Makes the stack run, with its topics; not yet migrated. `database_url` is used as it is,
    /// if given, instead of a private Postgres.
    ///
    /// # Errors
    /// When another Kafka is asked for than the one that runs, or a server cannot be started.
    pub async fn up(
        &self,
        choice: &KafkaChoice,
        database_url: Option<String>,
    ) -> Result<(StackRecord, Found), DevstackError> {
        let _only_one = self.lock().await?;
        let former = StackRecord::load(&self.dir)?;
        let mut found = Found::Nothing;
        if let Some(record) = former {
            if record.is_running() {
                if record.kafka != *choice {
                    return Err(DevstackError::OtherStack {
                        runs: record.kafka.to_string(),
                        wanted: choice.to_string(),
                    });
                }
                return Ok((record, Found::Running));
            }
            record.stop().await;
            found = Found::Remains;
        }
        // This shell may still have the variables of a stack that has ended.
        let home = self.dir.join("postgres");
        let given = database_url.filter(|url| !PrivatePostgres::is_url_of(&home, url));
        let mut servers = Vec::new();
        match self.start_servers(choice, given, &mut servers).await {
            Ok(env) => {
                let record = StackRecord {
                    kafka: choice.clone(),
                    env,
                    servers,
                };
                record.env.write(&self.env_file())?;
                record.save(&self.dir)?;
                Ok((record, found))
            }
            Err(error) => {
                for server in servers.iter().rev() {
                    server
                        .mark
                        .stop(Signal::SIGINT, Duration::from_secs(20))
                        .await;
                }
                Err(error)
            }
        }
    }

    /// Ends the stack. Returns the names of what still ran.
    ///
    /// # Errors
    /// When its record cannot be read or deleted.
    pub async fn down(&self) -> Result<Vec<String>, DevstackError> {
        let _only_one = self.lock().await?;
        let Some(record) = StackRecord::load(&self.dir)? else {
            return Ok(Vec::new());
        };
        let ended = record.stop().await.into_iter().map(str::to_owned).collect();
        StackRecord::delete(&self.dir)?;
        Ok(ended)
    }

    async fn lock(&self) -> Result<File, DevstackError> {
        lock_file(self.dir.join("lock")).await
    }

    async fn start_servers(
        &self,
        choice: &KafkaChoice,
        database_url: Option<String>,
        servers: &mut Vec<RunningServer>,
    ) -> Result<StackEnv, DevstackError> {
        let database_url = match database_url {
            Some(url) => url,
            None => {
                let (postgres, mark) =
                    PrivatePostgres::start_background(self.dir.join("postgres")).await?;
                servers.push(server("Postgres", mark, true));
                postgres.url()
            }
        };
        let kafka = match choice {
            KafkaChoice::Embedded => {
                let (address, mark) = self.start_embedded().await?;
                servers.push(server("embedded broker", mark, false));
                address
            }
            KafkaChoice::Apache => {
                let options = KafkaOptions::default();
                let (node, mark) =
                    ApacheKafka::start_background(self.dir.join("kafka"), options).await?;
                servers.push(server("Apache Kafka", mark, false));
                node.bootstrap()
            }
            KafkaChoice::ApacheThree => {
                let dir = self.dir.join("kafka-three");
                let (cluster, marks) =
                    ApacheCluster::start_background(dir, three_brokers()).await?;
                for mark in marks {
                    servers.push(server("Apache Kafka", mark, false));
                }
                cluster.bootstrap()
            }
            KafkaChoice::Given(address) => address.clone(),
        };
        ensure_topics(choice, &kafka).await?;
        Ok(StackEnv {
            kafka,
            database_url,
            schema: schema_for(choice),
        })
    }

    async fn start_embedded(&self) -> Result<(String, ProcessMark), DevstackError> {
        let file = self.dir.join("broker.address");
        // An address of a former broker must not be taken for the new one's.
        let _ = fs::remove_file(&file);
        let mut command = Command::new(&self.broker_program);
        command
            .arg("broker")
            .arg("--address-file")
            .arg(&file)
            .current_dir("/");
        let log = self.dir.join("broker.log");
        let spec = ServerSpec {
            name: "the embedded broker",
            stop_signal: Signal::SIGTERM,
            log: log.clone(),
            temp_dir: None,
            lifetime: Lifetime::Background,
        };
        let mut process = ServerProcess::spawn(command, spec)?;
        let deadline = Instant::now() + BROKER_READY;
        loop {
            if let Ok(address) = fs::read_to_string(&file) {
                return Ok((address.trim().to_owned(), process.leave_running()));
            }
            process.check()?;
            if Instant::now() >= deadline {
                process.kill().await?;
                return Err(DevstackError::TooSlow {
                    what: "the start of the embedded broker".to_owned(),
                    limit: BROKER_READY,
                    log: Some(log),
                });
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn server(name: &str, mark: ProcessMark, stops_on_interrupt: bool) -> RunningServer {
    RunningServer {
        name: name.to_owned(),
        mark,
        stops_on_interrupt,
    }
}
