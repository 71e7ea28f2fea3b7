//! Where a test plays: a topic, a group and a schema of its own, workers in this process, commands of the binary.

use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Parser;
use millrace_consumer::{RunArgs, Worker, worker};
use millrace_devstack::{PrivatePostgres, TestDb, Topics};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::eventually;

/// Sessions short enough for a test, under the classic protocol.
pub const SHORT_SESSIONS: [&str; 4] = [
    "-X",
    "session.timeout.ms=6000",
    "-X",
    "heartbeat.interval.ms=300",
];

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    run: RunArgs,
}

enum Postgres {
    Shared(TestDb),
    Own(Box<PrivatePostgres>),
}

pub struct Stage {
    pub kafka: String,
    pub topic: String,
    pub group: String,
    pub schema: String,
    postgres: Postgres,
}

/// A worker on a thread of its own.
pub struct Working {
    stop: CancellationToken,
    thread: Option<JoinHandle<Result<u8, String>>>,
}

impl Working {
    /// Stops it in good order; its exit code.
    pub fn stop(mut self) -> u8 {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap().unwrap()
    }

    /// Whether it goes on.
    pub fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A command that has ended.
pub struct Ended {
    pub code: i32,
    pub output: String,
    pub words: String,
}

impl Ended {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.output)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.output, self.words))
    }
}

impl Stage {
    /// On the servers that the tests share.
    pub async fn shared(name: &str, partitions: i32) -> Stage {
        let kafka = millrace_devstack::test_kafka().await.unwrap();
        let database = TestDb::new(name).await.unwrap();
        Stage::set(name, kafka, Postgres::Shared(database), partitions).await
    }

    /// With a Postgres of its own, that the test may stop.
    pub async fn with_own_postgres(name: &str, kafka: String, partitions: i32) -> Stage {
        let own = PrivatePostgres::start_temp().await.unwrap();
        Stage::set(name, kafka, Postgres::Own(Box::new(own)), partitions).await
    }

    /// On a Kafka of the test's own.
    pub async fn on_kafka(name: &str, kafka: String, partitions: i32) -> Stage {
        let database = TestDb::new(name).await.unwrap();
        Stage::set(name, kafka, Postgres::Shared(database), partitions).await
    }

    async fn set(name: &str, kafka: String, postgres: Postgres, partitions: i32) -> Stage {
        let schema = match &postgres {
            Postgres::Shared(shared) => shared.schema.clone(),
            Postgres::Own(_) => "own".to_owned(),
        };
        let topic = format!("{name}-{}", uuid::Uuid::new_v4().simple());
        let stage = Stage {
            kafka,
            group: format!("workers-of-{topic}"),
            topic,
            schema,
            postgres,
        };
        stage
            .topics()
            .create(&stage.topic, partitions, &[])
            .await
            .unwrap();
        let migrated = stage.consumer(&["migrate"]);
        assert_eq!(migrated.code, 0, "{}", migrated.words);
        stage
    }

    pub fn topics(&self) -> Topics {
        Topics::of(&self.kafka).unwrap()
    }

    pub fn own_postgres(&mut self) -> &mut PrivatePostgres {
        match &mut self.postgres {
            Postgres::Own(own) => own,
            Postgres::Shared(_) => panic!("others use it, too"),
        }
    }

    pub fn database_url(&self) -> String {
        match &self.postgres {
            Postgres::Shared(shared) => shared.url.clone(),
            Postgres::Own(own) => own.url(),
        }
    }

    /// Starts a worker in this process; `handlers` registers what it can do.
    pub fn work(&self, flags: &[&str], handlers: impl FnOnce(Worker) -> Worker) -> Working {
        let url = self.database_url();
        let mut line = vec![
            "worker",
            "--kafka",
            &self.kafka,
            "--database-url",
            &url,
            "--schema",
            &self.schema,
            "--topic",
            &self.topic,
            "--group",
            &self.group,
            "--allow-unreplicated",
            "--metrics-listen",
            "127.0.0.1:0",
        ];
        line.extend(flags);
        let run = Flags::try_parse_from(line).unwrap().run;
        let (run, prepared) = handlers(Worker::new(run)).prepare().unwrap();
        let stop = CancellationToken::new();
        let stops = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let code = runtime.block_on(worker::run_until(&run, prepared, stops));
            runtime.shutdown_background();
            code.map_err(|error| format!("{error:#}"))
        });
        Working {
            stop,
            thread: Some(thread),
        }
    }

    /// The binary with the stage's settings in its environment, and nothing of the machine's.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_consumer"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("MILLRACE_") || text == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command
            .env("KAFKA_BOOTSTRAP_SERVERS", &self.kafka)
            .env("DATABASE_URL", self.database_url())
            .env("MILLRACE_TOPIC", &self.topic)
            .env("MILLRACE_GROUP", &self.group)
            .env("MILLRACE_SCHEMA", &self.schema)
            .env("MILLRACE_ALLOW_UNREPLICATED", "1")
            .stdin(Stdio::null());
        command
    }

    /// A command of the binary, run to its end.
    pub fn consumer(&self, arguments: &[&str]) -> Ended {
        let output = self.command().args(arguments).output().unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            output: String::from_utf8(output.stdout).unwrap(),
            words: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = PgConnection::connect(&self.database_url()).await?;
        let path = format!("SET search_path TO {}", self.schema);
        sqlx::query(AssertSqlSafe(path))
            .execute(&mut connection)
            .await?;
        Ok(connection)
    }

    pub async fn execute(&self, statement: &'static str) {
        let mut connection = self.connect().await.unwrap();
        sqlx::raw_sql(statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }

    /// The `bigint` that a query gives.
    pub async fn number(&self, query: &'static str) -> i64 {
        let mut connection = self.connect().await.unwrap();
        sqlx::query_scalar(query)
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    /// Waits until a query gives this number.
    pub async fn until(&self, query: &'static str, wanted: i64, seconds: u64) {
        let mut last = None;
        let deadline = std::time::Instant::now() + Duration::from_secs(seconds);
        eventually(query, seconds + 5, async || {
            let found = self.number(query).await;
            last = Some(found);
            assert!(
                std::time::Instant::now() < deadline,
                "{query}: {found} instead of {wanted} after {seconds} s"
            );
            (found == wanted).then_some(())
        })
        .await;
    }

    /// Who claims each partition that somebody holds.
    pub async fn claims(&self) -> std::collections::BTreeMap<i32, uuid::Uuid> {
        let mut connection = self.connect().await.unwrap();
        sqlx::query_as("SELECT partition, claim FROM partition_progress WHERE claim IS NOT NULL")
            .fetch_all(&mut connection)
            .await
            .unwrap()
            .into_iter()
            .collect()
    }

    /// The books balance, and every record is accounted for: `consumer audit` says so.
    pub fn assert_books(&self) {
        let audit = self.consumer(&["audit", "--format", "json"]);
        assert_eq!(audit.code, 0, "{}\n{}", audit.output, audit.words);
        let deep = self.consumer(&["audit", "--deep"]);
        assert_eq!(deep.code, 0, "{}\n{}", deep.output, deep.words);
    }
}

pub const RESULTS: &str = "SELECT count(*) FROM task_results";
pub const SUCCESSES: &str = "SELECT count(*) FROM task_results WHERE status = 'success'";
pub const PARKED: &str = "SELECT count(*) FROM parked_tasks";
pub const LETTERS: &str = "SELECT count(*) FROM dead_letters";
