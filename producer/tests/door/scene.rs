//! A broker, a schema, front doors and a worker; all of it ends with the test.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use millrace_consumer::{Context, RunArgs, TaskError, Worker};
use millrace_devstack::{EmbeddedBroker, TestDb};
use millrace_store::days::Retention;
use millrace_store::{Database, Purpose, migrate};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use tokio_util::sync::CancellationToken;

/// Everything a test waits for is bounded by this.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct Scene {
    pub broker: EmbeddedBroker,
    pub database: Database,
    pub client: Client,
    pub url: String,
    pub schema: String,
    topic: String,
    group: String,
    _tables: Option<TestDb>,
}

/// A running front door.
pub struct Door {
    child: Child,
    pub base: String,
    client: Client,
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    run: RunArgs,
}

/// A worker on a thread of its own.
pub struct Working {
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<u8>>,
}

impl Drop for Working {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn echo(input: Value, _: Context) -> Result<Value, TaskError> {
    Ok(input)
}

async fn refuse(input: Value, _: Context) -> Result<Value, TaskError> {
    Err(TaskError::permanent(format!("never {input}")))
}

/// Takes as many milliseconds as its input says, and says half-way that it is half-way.
async fn slow(ms: u64, context: Context) -> Result<u64, TaskError> {
    tokio::time::sleep(Duration::from_millis(ms / 2)).await;
    context.progress(0.5, "half-way");
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(ms / 2)) => Ok(ms),
        _ = context.cancelled() => Err(TaskError::permanent("stopped")),
    }
}

/// What it knows of its trace.
async fn trace(_: Value, context: Context) -> Result<Option<String>, TaskError> {
    Ok(context.traceparent().map(str::to_owned))
}

impl Scene {
    pub async fn new(name: &str) -> Scene {
        let tables = TestDb::new(name).await.unwrap();
        let (url, schema) = (tables.url.clone(), tables.schema.clone());
        Scene::at(url, schema, Some(tables)).await
    }

    /// A schema at an address of one's own.
    pub async fn at(url: String, schema: String, tables: Option<TestDb>) -> Scene {
        let database = Database::new(&url, &schema).unwrap();
        let retention = Retention {
            result_days: 30,
            dedup_days: 7,
        };
        migrate(&database, retention).await.unwrap();
        // The first test of the process installs it for all.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let broker = EmbeddedBroker::start().unwrap();
        let topic = format!("{schema}-topic");
        broker.create_topic(&topic, 4).unwrap();
        Scene {
            broker,
            database,
            client: Client::builder().timeout(DEADLINE).build().unwrap(),
            url,
            group: format!("{schema}-group"),
            schema,
            topic,
            _tables: tables,
        }
    }

    fn flags(&self) -> [String; 13] {
        [
            "--kafka",
            self.broker.bootstrap(),
            "--database-url",
            &self.url,
            "--schema",
            &self.schema,
            "--topic",
            &self.topic,
            "--group",
            &self.group,
            "--allow-unreplicated",
            "--metrics-listen",
            "127.0.0.1:0",
        ]
        .map(str::to_owned)
    }

    /// `producer`, in this scene.
    pub fn producer(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_producer"));
        for name in ["RUST_LOG", "MILLRACE_SCHEMA_ID", "MILLRACE_LISTEN"] {
            command.env_remove(name);
        }
        command
            .env("DATABASE_URL", &self.url)
            .env("MILLRACE_SCHEMA", &self.schema)
            .args(arguments);
        command
    }

    /// Opens a front door and waits until it listens.
    pub fn open(&self, flags: &[&str]) -> Door {
        let mut command = self.producer(&["serve"]);
        if !flags.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut child = command
            .args(self.flags())
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut told = Vec::new();
        let base = loop {
            let line = lines
                .next()
                .unwrap_or_else(|| panic!("no front door: {told:#?}"))
                .unwrap();
            if let Some(base) = line.strip_prefix("front door at ") {
                break base.to_owned();
            }
            told.push(line);
        };
        // Somebody has to read what it says.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                eprintln!("door: {line}");
            }
        });
        Door {
            child,
            base,
            client: self.client.clone(),
        }
    }

    /// Starts a worker that knows `echo`, `refuse`, `slow` and `trace`.
    pub fn work(&self) -> Working {
        self.work_with(&["--callbacks-allow-private", "--callbacks-scale", "0.02"])
    }

    /// The same, with these flags.
    pub fn work_with(&self, flags: &[&str]) -> Working {
        let quick = [
            "-X",
            "session.timeout.ms=6000",
            "-X",
            "heartbeat.interval.ms=200",
            "-X",
            "fetch.wait.max.ms=10",
        ];
        let mut line = vec!["worker".to_owned()];
        line.extend(self.flags());
        line.extend(quick.map(str::to_owned));
        line.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let args = Flags::try_parse_from(line).unwrap().run;
        let (args, prepared) = Worker::new(args)
            .register("echo", echo)
            .register("refuse", refuse)
            .register("slow", slow)
            .register("trace", trace)
            .prepare()
            .unwrap();
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime
                .block_on(millrace_consumer::worker::run_until(
                    &args, prepared, stopping,
                ))
                .unwrap()
        });
        Working {
            stop,
            thread: Some(thread),
        }
    }

    /// One number from the tables.
    pub async fn number(&self, query: &str) -> i64 {
        let mut connection = self.database.connect(Purpose::Operations).await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    pub async fn sql(&self, statements: &str) {
        let mut connection = self.database.connect(Purpose::Operations).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap();
    }
}

impl Door {
    /// Tells it to end.
    pub fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    }

    /// How it ended, once it has.
    pub async fn ended(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Resident memory of its process, in bytes.
    pub fn memory(&self) -> i64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
        kilobytes.parse::<i64>().unwrap() * 1_024
    }

    pub fn address(&self) -> String {
        self.base.trim_start_matches("http://").to_owned()
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.base))
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.base))
    }

    /// Hands over a task and returns its id.
    pub async fn submit(&self, task: &Value) -> String {
        let answer = self
            .post("/v1/task/submit")
            .json(task)
            .send()
            .await
            .unwrap();
        let (status, body) = parts(answer).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        assert_eq!(body["status"], "accepted");
        body["task_id"].as_str().unwrap().to_owned()
    }

    /// Waits until the task has this status.
    pub async fn until(&self, id: &str, status: &str) -> Value {
        let began = Instant::now();
        loop {
            let path = format!("/v1/task/{id}/status?wait=1s");
            let (_, body) = parts(self.get(&path).send().await.unwrap()).await;
            if body["status"] == status {
                return body;
            }
            assert!(began.elapsed() < DEADLINE, "{id} is not {status}: {body}");
        }
    }
}

/// The status and the body of an answer, as JSON where it is.
pub async fn parts(answer: Response) -> (StatusCode, Value) {
    let status = answer.status();
    let text = answer.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, body)
}

/// An answer that is a problem of this kind.
pub async fn assert_problem(answer: Response, status: u16, kind: &str) -> Value {
    let content_type = answer.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let (found, body) = parts(answer).await;
    assert_eq!(found.as_u16(), status, "{body}");
    assert_eq!(content_type, "application/problem+json", "{body}");
    assert_eq!(body["type"], format!("/problems/{kind}"), "{body}");
    assert_eq!(body["status"], status, "{body}");
    body
}
