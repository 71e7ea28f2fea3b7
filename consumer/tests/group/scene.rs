//! A broker, a database and the binary: what one test works with, and ends with it.

use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use millrace_devstack::{EmbeddedBroker, PrivatePostgres, ProcessMark, TestDb, Topics};
use nix::sys::signal::Signal;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::worker::Worker;

/// How long a test waits for anything.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Short sessions and short waits, so that a round of the group takes no longer than it has to.
const QUICK: [&str; 6] = [
    "-X",
    "session.timeout.ms=1500",
    "-X",
    "heartbeat.interval.ms=200",
    "-X",
    "fetch.wait.max.ms=10",
];

/// The broker of a scene.
pub enum Kafka {
    Embedded(EmbeddedBroker),
    Apache(Topics),
}

/// Where the schema of a scene lies.
enum Postgres {
    Shared(TestDb),
    Own(Box<PrivatePostgres>),
}

pub struct Scene {
    pub kafka: Kafka,
    pub bootstrap: String,
    pub topic: String,
    pub group: String,
    pub schema: String,
    postgres: Postgres,
}

/// A command that has ended.
pub struct Ended {
    pub code: i32,
    pub output: String,
    pub words: String,
}

impl Ended {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.output)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.output, self.words))
    }
}

impl Scene {
    /// On an embedded broker of its own, with the topic created and the tables migrated.
    pub async fn embedded(name: &str, partitions: i32) -> Scene {
        let shared = TestDb::new(name).await.unwrap();
        Scene::with_embedded(Postgres::Shared(shared), partitions).await
    }

    /// The same with a Postgres of its own, that the test may stop.
    pub async fn with_own_postgres(partitions: i32) -> Scene {
        let own = PrivatePostgres::start_temp().await.unwrap();
        Scene::with_embedded(Postgres::Own(Box::new(own)), partitions).await
    }

    async fn with_embedded(postgres: Postgres, partitions: i32) -> Scene {
        let broker = EmbeddedBroker::start().unwrap();
        let bootstrap = broker.bootstrap().to_owned();
        let scene = Scene::of(Kafka::Embedded(broker), bootstrap, postgres);
        let Kafka::Embedded(broker) = &scene.kafka else {
            panic!("just made")
        };
        broker.create_topic(&scene.topic, partitions).unwrap();
        scene.migrate();
        scene
    }

    /// On the shared Apache Kafka; `None` where it cannot run.
    pub async fn apache(name: &str, partitions: i32) -> Option<Scene> {
        if !millrace_devstack::can_run_apache_kafka("consumer/tests/group")
            .await
            .unwrap()
        {
            return None;
        }
        let bootstrap = millrace_devstack::test_kafka().await.unwrap();
        let topics = Topics::of(&bootstrap).unwrap();
        let shared = TestDb::new(name).await.unwrap();
        let scene = Scene::of(Kafka::Apache(topics), bootstrap, Postgres::Shared(shared));
        scene.create_topic(partitions).await;
        scene.migrate();
        Some(scene)
    }

    fn of(kafka: Kafka, bootstrap: String, postgres: Postgres) -> Scene {
        let schema = match &postgres {
            Postgres::Shared(shared) => shared.schema.clone(),
            Postgres::Own(_) => "own".to_owned(),
        };
        Scene {
            kafka,
            bootstrap,
            topic: format!("{schema}-topic"),
            group: format!("{schema}-group"),
            schema,
            postgres,
        }
    }

    pub fn topics(&self) -> &Topics {
        match &self.kafka {
            Kafka::Apache(topics) => topics,
            Kafka::Embedded(_) => panic!("the embedded broker knows no administration"),
        }
    }

    pub async fn create_topic(&self, partitions: i32) {
        let kept = [("retention.ms", "86400000")];
        let topics = self.topics();
        topics.create(&self.topic, partitions, &kept).await.unwrap();
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

    /// The binary with the scene's settings in its environment, and nothing of the machine's.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_consumer"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("MILLRACE_") || text == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command
            .env("KAFKA_BOOTSTRAP_SERVERS", &self.bootstrap)
            .env("DATABASE_URL", self.database_url())
            .env("MILLRACE_TOPIC", &self.topic)
            .env("MILLRACE_GROUP", &self.group)
            .env("MILLRACE_SCHEMA", &self.schema)
            .env("MILLRACE_ALLOW_UNREPLICATED", "1")
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        finish(self.command(arguments))
    }

    pub fn migrate(&self) {
        let ended = self.run(&["migrate"]);
        assert_eq!(ended.code, 0, "{}", ended.words);
    }

    /// The command of a worker.
    pub fn worker_command(&self, flags: &[&str]) -> Command {
        let mut command = self.command(&["run", "--metrics-listen", "127.0.0.1:0"]);
        command.args(QUICK).args(flags);
        command
    }

    /// Starts a worker.
    pub fn worker(&self, flags: &[&str]) -> Worker {
        Worker::start(self.worker_command(flags))
    }

    /// Runs a worker until everything is read and written, or stands still.
    pub async fn drain(&self, flags: &[&str]) -> Ended {
        let mut command = self.worker_command(&["--exit-when-idle", "1s"]);
        command.args(flags);
        let mut worker = Worker::start(command);
        let code = worker.ended().await;
        Ended {
            code,
            output: String::new(),
            words: worker.words(),
        }
    }

    pub async fn database(&self) -> PgConnection {
        let mut connection = PgConnection::connect(&self.database_url()).await.unwrap();
        let path = format!("SET search_path TO {}", self.schema);
        sqlx::query(AssertSqlSafe(path))
            .execute(&mut connection)
            .await
            .unwrap();
        connection
    }

    pub async fn execute(&self, statement: &str) {
        let mut connection = self.database().await;
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap();
    }

    /// The `bigint` that a query gives.
    pub async fn number(&self, query: &str) -> i64 {
        let mut connection = self.database().await;
        sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    /// The texts that a query gives.
    pub async fn texts(&self, query: &str) -> Vec<String> {
        let mut connection = self.database().await;
        sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
            .fetch_all(&mut connection)
            .await
            .unwrap()
    }

    pub async fn results(&self) -> i64 {
        self.number("SELECT count(*) FROM task_results").await
    }

    pub async fn until_results(&self, wanted: i64) {
        eventually(&format!("{wanted} results"), async || {
            let found = self.results().await;
            assert!(found <= wanted, "{found} results, only {wanted} were sent");
            (found == wanted).then_some(())
        })
        .await;
    }

    /// The position of a partition, if it has one.
    pub async fn position(&self, partition: i32) -> Option<i64> {
        let mut connection = self.database().await;
        sqlx::query_scalar("SELECT next_offset FROM partition_progress WHERE partition = $1")
            .bind(partition)
            .fetch_optional(&mut connection)
            .await
            .unwrap()
    }

    pub async fn until_position(&self, partition: i32, wanted: i64) {
        eventually(&format!("position {wanted} of {partition}"), async || {
            let found = self.position(partition).await;
            (found == Some(wanted)).then_some(())
        })
        .await;
    }

    /// How many workers hold partitions; `None` while some partition is nobody's.
    pub async fn owners(&self, partitions: i64) -> Option<i64> {
        let claimed = "SELECT count(*) FROM partition_progress WHERE claim IS NOT NULL";
        if self.number(claimed).await < partitions {
            return None;
        }
        let owners = "SELECT count(DISTINCT owner) FROM partition_progress";
        Some(self.number(owners).await)
    }

    pub async fn until_owners(&self, partitions: i64, wanted: i64) {
        eventually(&format!("{wanted} owners"), async || {
            (self.owners(partitions).await == Some(wanted)).then_some(())
        })
        .await;
    }
}

/// Runs a command that ends by itself; one that does not is killed at the deadline.
pub fn finish(mut command: Command) -> Ended {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mark = ProcessMark::of(child.id());
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if end.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout)
            && let Some(mark) = mark
        {
            mark.signal(Signal::SIGKILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(ended);
    watchdog.join().unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        output: String::from_utf8(output.stdout).unwrap(),
        words: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Waits for what `look` looks for.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}
