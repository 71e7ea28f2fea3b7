//! Where a test plays: a topic, a group and a schema of its own, and the two real binaries.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use millrace_devstack::{TestDb, Topics, test_kafka};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::process::Process;

pub const PARTITIONS: i32 = 12;
/// Sessions short enough for a test, and the heartbeats that keep them.
pub const SHORT_SESSIONS: [&str; 4] = [
    "-X",
    "session.timeout.ms=1500",
    "-X",
    "heartbeat.interval.ms=300",
];

/// One test's place.
pub struct Stage {
    pub kafka: String,
    pub database_url: String,
    pub schema: String,
    pub topic: String,
    pub group: String,
    folder: tempfile::TempDir,
    started: AtomicUsize,
    _database: Option<TestDb>,
}

impl Stage {
    /// On the servers that the tests share.
    pub async fn shared(name: &str) -> Stage {
        let database = TestDb::new(name).await.unwrap();
        let (url, schema) = (database.url.clone(), database.schema.clone());
        let kafka = test_kafka().await.unwrap();
        Stage::set(name, kafka, url, schema, Some(database)).await
    }

    /// On servers of the test's own.
    pub async fn on(name: &str, kafka: String, database_url: String) -> Stage {
        Stage::set(name, kafka, database_url, "millrace".to_owned(), None).await
    }

    async fn set(
        name: &str,
        kafka: String,
        database_url: String,
        schema: String,
        database: Option<TestDb>,
    ) -> Stage {
        let topic = format!("{name}-{}", uuid::Uuid::new_v4().simple());
        Topics::of(&kafka)
            .unwrap()
            .create(&topic, PARTITIONS, &[])
            .await
            .unwrap();
        let stage = Stage {
            kafka,
            database_url,
            schema,
            group: format!("workers-of-{topic}"),
            topic,
            folder: tempfile::Builder::new()
                .prefix("millrace-survival-")
                .tempdir()
                .unwrap(),
            started: AtomicUsize::new(0),
            _database: database,
        };
        let migrated = stage.consumer(&["migrate"]);
        assert!(migrated.status.success(), "{migrated:?}");
        stage
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of `lines` edits.
    pub fn edits(&self, lines: u64) -> PathBuf {
        crate::input::write(&self.path("edits.ndjson"), lines)
    }

    /// A worker with short sessions.
    pub fn worker(&self, flags: &[&str]) -> Process {
        self.worker_at(&self.database_url, flags)
    }

    /// As `worker`, with another way to the database.
    pub fn worker_at(&self, database_url: &str, flags: &[&str]) -> Process {
        let mut command = self.command("consumer");
        command
            .env("DATABASE_URL", database_url)
            .arg("run")
            .args(SHORT_SESSIONS)
            .args(["--metrics-listen", "127.0.0.1:0"])
            .args(flags);
        self.start(command, "worker")
    }

    /// `producer emit` of a file, in the background.
    pub fn emitting(&self, file: &Path, flags: &[&str]) -> Process {
        let mut command = self.command("producer");
        command
            .args(["emit", "--type", "edit", "--format", "json"])
            .args(flags)
            .arg(file);
        self.start(command, "emit")
    }

    /// `producer emit` of a file, all of it acknowledged.
    pub async fn emit(&self, file: &Path, flags: &[&str]) {
        let mut emitting = self.emitting(file, flags);
        assert_eq!(emitting.exit(300).await, 0, "{}", emitting.words());
    }

    /// A command of `consumer`, run to its end.
    pub fn consumer(&self, arguments: &[&str]) -> Output {
        self.command("consumer").args(arguments).output().unwrap()
    }

    /// A connection that sees the stage's tables.
    pub async fn connect(&self) -> PgConnection {
        self.try_connect().await.unwrap()
    }

    /// As `connect`, when the database is there.
    pub async fn try_connect(&self) -> Result<PgConnection, sqlx::Error> {
        let connecting = PgConnection::connect(&self.database_url);
        let timed = tokio::time::timeout(Duration::from_secs(5), connecting).await;
        let mut connection = timed.map_err(|_| sqlx::Error::PoolTimedOut)??;
        let path = format!("SET search_path = {}", self.schema);
        sqlx::query(AssertSqlSafe(path))
            .execute(&mut connection)
            .await?;
        Ok(connection)
    }

    /// Where all partitions stand together; none while the database is away.
    pub async fn settled(&self) -> Option<i64> {
        let mut connection = self.try_connect().await.ok()?;
        let sum = "SELECT coalesce(sum(next_offset), 0)::bigint FROM partition_progress";
        sqlx::query_scalar(sum)
            .fetch_one(&mut connection)
            .await
            .ok()
    }

    /// Waits until so many offsets are settled.
    pub async fn settles(&self, count: u64, seconds: u64) -> Duration {
        let (wanted, began) = (i64::try_from(count).unwrap(), Instant::now());
        let mut again = tokio::time::interval(Duration::from_millis(50));
        loop {
            let settled = self.settled().await;
            if settled.is_some_and(|settled| settled >= wanted) {
                return began.elapsed();
            }
            assert!(
                began.elapsed() < Duration::from_secs(seconds),
                "{settled:?} of {wanted} offsets settled within {seconds} s"
            );
            again.tick().await;
        }
    }

    /// The partitions that rows say this worker holds.
    pub async fn held_by(&self, pid: u32) -> Vec<i32> {
        let mut connection = self.connect().await;
        sqlx::query_scalar(
            "SELECT partition FROM partition_progress \
             WHERE claim IS NOT NULL AND owner LIKE '%:' || $1 ORDER BY partition",
        )
        .bind(pid.to_string())
        .fetch_all(&mut connection)
        .await
        .unwrap()
    }

    fn command(&self, binary: &str) -> Command {
        let built = Path::new(env!("CARGO_BIN_EXE_consumer")).with_file_name(binary);
        let program = std::env::var_os("MILLRACE_SURVIVAL_BINARIES")
            .map_or(built, |folder| Path::new(&folder).join(binary));
        assert!(
            program.exists(),
            "{} is not built: cargo build --workspace --bins",
            program.display()
        );
        let mut command = Command::new(program);
        for (name, _) in std::env::vars() {
            if name.starts_with("MILLRACE_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command
            .env("KAFKA_BOOTSTRAP_SERVERS", &self.kafka)
            .env("DATABASE_URL", &self.database_url)
            .env("MILLRACE_SCHEMA", &self.schema)
            .env("MILLRACE_TOPIC", &self.topic)
            .env("MILLRACE_GROUP", &self.group)
            .env("MILLRACE_ALLOW_UNREPLICATED", "1");
        command
    }

    fn start(&self, command: Command, what: &str) -> Process {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        Process::start(
            command,
            format!("{what}-{number}"),
            self.folder.path().to_owned(),
        )
    }
}
