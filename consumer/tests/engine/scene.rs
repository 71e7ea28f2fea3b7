//! A broker, a database, and workers in this very process, so that a test sees what its handlers do.

use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use millrace_consumer::handlers::Prepared;
use millrace_consumer::{RunArgs, Worker, worker};
use millrace_devstack::{EmbeddedBroker, TestDb};
use millrace_schemas::{Framing, TaskEvent, TaskId, encode};
use millrace_store::position::Consumer;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio_util::sync::CancellationToken;

/// How long a test waits for anything.
pub const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    run: RunArgs,
}

pub struct Scene {
    tables: TestDb,
    pub schema: String,
    pub broker: EmbeddedBroker,
    pub topic: String,
    pub group: String,
}

/// A worker on a thread of its own.
pub struct Working {
    stop: CancellationToken,
    kill: CancellationToken,
    thread: Option<JoinHandle<Option<u8>>>,
}

impl Working {
    /// Stops it in good order; its exit code.
    pub fn stop(mut self) -> u8 {
        self.stop.cancel();
        self.join().unwrap()
    }

    /// Drops it where it stands: nothing is written, given back or said any more.
    pub fn kill(mut self) {
        self.kill.cancel();
        self.join();
    }

    fn join(&mut self) -> Option<u8> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

impl Scene {
    pub async fn new(name: &str, partitions: i32) -> Scene {
        let tables = TestDb::new(name).await.unwrap();
        let schema = tables.schema.clone();
        let scene = Scene {
            topic: format!("{schema}-topic"),
            group: format!("{schema}-group"),
            tables,
            schema,
            broker: EmbeddedBroker::start().unwrap(),
        };
        scene.broker.create_topic(&scene.topic, partitions).unwrap();
        let at = millrace_store::Database::new(&scene.url(), &scene.schema).unwrap();
        millrace_store::migrate(
            &at,
            millrace_store::days::Retention {
                result_days: 30,
                dedup_days: 7,
            },
        )
        .await
        .unwrap();
        scene
    }

    pub fn url(&self) -> String {
        self.tables.url.clone()
    }

    /// Who the workers are, as the tables name them.
    pub fn consumer(&self) -> Consumer {
        Consumer {
            group: self.group.clone(),
            topic: self.topic.clone(),
        }
    }

    /// Starts a worker; `handlers` registers what it can do.
    pub fn work(&self, flags: &[&str], handlers: impl FnOnce(Worker) -> Worker) -> Working {
        let url = self.url();
        let mut line = vec![
            "worker",
            "--kafka",
            self.broker.bootstrap(),
            "--database-url",
            &url,
            "--schema",
            &self.schema,
            "--topic",
            &self.topic,
            "--group",
            &self.group,
            "--allow-unreplicated",
            "-X",
            "session.timeout.ms=6000",
            "-X",
            "heartbeat.interval.ms=200",
            "-X",
            "fetch.wait.max.ms=10",
        ];
        if !flags.contains(&"--metrics-listen") {
            line.extend(["--metrics-listen", "127.0.0.1:0"]);
        }
        line.extend(flags);
        let args = Flags::try_parse_from(line).unwrap().run;
        let (args, prepared): (RunArgs, Prepared) = handlers(Worker::new(args)).prepare().unwrap();
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let (stops, kills) = (stop.clone(), kill.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let code = runtime.block_on(async {
                tokio::select! {
                    code = worker::run_until(&args, prepared, stops) => Some(code.unwrap()),
                    () = kills.cancelled() => None,
                }
            });
            runtime.shutdown_background();
            code
        });
        Working {
            stop,
            kill,
            thread: Some(thread),
        }
    }

    /// Sends events, each to the partition of its key, in order.
    pub async fn send(&self, events: &[TaskEvent]) {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", self.broker.bootstrap())
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "2")
            .create()
            .unwrap();
        let mut deliveries = Vec::new();
        for event in events {
            let mut value = Vec::new();
            encode(&event.as_ref(), Framing::SingleObject, &mut value);
            let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&self.topic);
            let event = event.as_ref();
            record.payload = Some(&value);
            record.key = event.record_key();
            deliveries.push(producer.send_result(record).map_err(|(e, _)| e).unwrap());
        }
        for delivery in deliveries {
            delivery.await.unwrap().map_err(|(error, _)| error).unwrap();
        }
    }

    pub async fn connect(&self) -> PgConnection {
        let mut connection = PgConnection::connect(&self.url()).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("SET search_path TO {}", self.schema)))
            .execute(&mut connection)
            .await
            .unwrap();
        connection
    }

    /// The number that a query gives.
    pub async fn number(&self, query: &'static str) -> i64 {
        let mut connection = self.connect().await;
        let row = sqlx::query(query).fetch_one(&mut connection).await.unwrap();
        row.try_get(0).unwrap()
    }

    /// Waits until a query gives this number.
    pub async fn until(&self, query: &'static str, wanted: i64) {
        self.until_within(DEADLINE, query, wanted).await;
    }

    /// The same with a deadline of its own.
    pub async fn until_within(&self, limit: Duration, query: &'static str, wanted: i64) {
        let began = Instant::now();
        loop {
            let found = self.number(query).await;
            if found == wanted {
                return;
            }
            assert!(
                began.elapsed() < limit,
                "{query}: {found} instead of {wanted}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The books of all partitions balance, and the tables hold what they say.
    pub async fn assert_books(&self) {
        let mut connection = self.connect().await;
        let audits = millrace_store::audit::partitions(&mut connection, &self.consumer())
            .await
            .unwrap();
        for audit in audits {
            assert!(audit.balanced(), "{audit:?}: {:?}", audit.findings());
        }
    }
}

/// An event of a type, with a key and a number as its payload.
pub fn event(task_type: &str, key: Option<&str>, number: usize) -> TaskEvent {
    TaskEvent {
        task_id: TaskId::mint(),
        task_type: task_type.to_owned(),
        tenant: "default".to_owned(),
        key: key.map(str::to_owned),
        dedup_key: None,
        submitted_at: now_micros(),
        run_at: None,
        deadline: None,
        content_type: "application/json".to_owned(),
        reply: false,
        callback: None,
        payload: format!("{{\"n\":{number}}}").into_bytes(),
    }
}

pub fn now_micros() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_micros()).unwrap()
}

pub const RESULTS: &str = "SELECT count(*) FROM task_results";
pub const SUCCESSES: &str = "SELECT count(*) FROM task_results WHERE status = 'success'";
pub const PARKED: &str = "SELECT count(*) FROM parked_tasks";

/// Waits until something holds.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
