//! Where the demo happens: servers of its own, a topic without a past, a schema of its own.
//!
//! A demo that ends brings throw-away servers. One that stays uses the stack in the background,
//! so that `devstack down` ends it. Where the log outlives the demo, as in a given cluster, the
//! demo has a topic of its own and never touches another.

use std::fs;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};

use super::summary::Kept;
use super::workers::{Crew, NAMES, log_of};
use super::{DemoError, Plan};
use crate::process::run_tool;
use crate::{
    Background, DevstackError, GROUP, KafkaChoice, PARTITIONS, PrivatePostgres, RunningServer,
    Stack, StackEnv, StackRecord, TOPIC, Topics,
};

/// The servers and the names on them.
pub struct Place {
    env: StackEnv,
    topic: String,
    group: String,
    /// The topic is ours alone, on servers that stay.
    topic_is_ours: bool,
    servers: Servers,
    dir: PathBuf,
    logs: PathBuf,
}

enum Servers {
    Temporary { _stack: Box<Stack> },
    GivenKafka { _postgres: Box<PrivatePostgres> },
    Background(Background),
}

impl Place {
    /// Starts the servers, makes topic and tables.
    ///
    /// # Errors
    /// When any of it fails; what was started has ended then.
    pub async fn open(plan: &Plan) -> Result<Self, DemoError> {
        let place = Self::start(plan).await?;
        if let Err(error) = place.make_ready(plan).await {
            // The first error is the one to tell.
            let _ = place.end().await;
            return Err(error);
        }
        Ok(place)
    }

    async fn start(plan: &Plan) -> Result<Self, DemoError> {
        let own_name = own_name();
        let (env, servers) = if plan.stay {
            let stack = Background::of(&plan.dir, plan.program("devstack"))?;
            let (record, _) = stack.up(&plan.kafka, None).await?;
            (record.env, Servers::Background(stack))
        } else if let KafkaChoice::Given(address) = &plan.kafka {
            let postgres = Box::new(PrivatePostgres::start_temp().await?);
            let env = StackEnv {
                kafka: address.clone(),
                database_url: postgres.url(),
                schema: own_name.clone(),
            };
            (
                env,
                Servers::GivenKafka {
                    _postgres: postgres,
                },
            )
        } else {
            let stack = Box::new(Stack::start_temp(&plan.kafka).await?);
            (stack.env().clone(), Servers::Temporary { _stack: stack })
        };
        // The embedded broker's log is as new as the broker.
        let topic_is_ours =
            plan.kafka != KafkaChoice::Embedded && !matches!(servers, Servers::Temporary { .. });
        let mut place = Self {
            env,
            topic: TOPIC.to_owned(),
            group: GROUP.to_owned(),
            topic_is_ours,
            servers,
            dir: plan.dir.clone(),
            logs: plan.logs(),
        };
        if topic_is_ours {
            place.topic.clone_from(&own_name);
            place.group.clone_from(&own_name);
            place.env.schema = own_name;
        }
        Ok(place)
    }

    async fn make_ready(&self, plan: &Plan) -> Result<(), DemoError> {
        if self.topic_is_ours {
            let replicas = plan.kafka.replicas();
            let topics = Topics::of(&self.env.kafka)?;
            topics.ensure(&self.topic, PARTITIONS, replicas).await?;
        }
        fs::create_dir_all(&self.logs).map_err(DevstackError::path("create", &self.logs))?;
        // Logs of an earlier demo would be taken for this one's.
        for path in NAMES.map(|name| log_of(&self.logs, name)) {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                return Err(DevstackError::path("delete", path)(error).into());
            }
        }
        let mut migrate = self.command(plan.program("consumer"));
        migrate.arg("migrate");
        run_tool("consumer migrate", migrate).await?;
        Ok(())
    }

    /// Kafka's address.
    pub fn kafka(&self) -> &str {
        &self.env.kafka
    }

    /// The demo's topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The folder of logs.
    pub fn logs(&self) -> &PathBuf {
        &self.logs
    }

    /// A program that finds the place by its environment, and no other.
    pub fn command(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MILLRACE_") {
                command.env_remove(name);
            }
        }
        command
            .envs(self.env.variables())
            .envs(self.own_variables());
        command
    }

    /// A connection that finds the tables without naming the schema.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn connect(&self) -> Result<PgConnection, DemoError> {
        let options: PgConnectOptions = self.env.database_url.parse()?;
        let options = options.options([("search_path", &self.env.schema)]);
        Ok(options.connect().await?)
    }

    /// Writes the crew into the record of the stack in the background, and says where all is.
    ///
    /// # Errors
    /// When the record or the file of `export` lines cannot be written.
    pub fn keep(self, crew: Crew) -> Result<Kept, DemoError> {
        let mut kept = Kept {
            kafka: self.env.kafka.clone(),
            topic: self.topic.clone(),
            group: self.group.clone(),
            psql: self.psql_address(),
            workers: Vec::new(),
        };
        let Some(mut record) = StackRecord::load(&self.dir)? else {
            return Ok(kept);
        };
        for (name, mark, metrics) in crew.leave_running() {
            kept.workers.push((name.to_owned(), metrics));
            record.servers.push(RunningServer {
                name: name.to_owned(),
                mark,
                stops_on_interrupt: false,
            });
        }
        record.save(&self.dir)?;
        if let (true, Servers::Background(stack)) = (self.topic_is_ours, &self.servers) {
            let path = stack.env_file();
            let lines: String = self
                .own_variables()
                .iter()
                .map(|(name, value)| format!("export {name}='{value}'\n"))
                .collect();
            OpenOptions::new()
                .append(true)
                .open(&path)
                .and_then(|mut file| file.write_all(lines.as_bytes()))
                .map_err(DevstackError::path("write", path))?;
        }
        Ok(kept)
    }

    /// Ends the servers and deletes what the demo left on others.
    ///
    /// # Errors
    /// When that fails.
    pub async fn end(self) -> Result<(), DemoError> {
        if self.topic_is_ours {
            Topics::of(&self.env.kafka)?.delete(&self.topic).await?;
        }
        if let Servers::Background(stack) = &self.servers {
            stack.down().await?;
        }
        Ok(())
    }

    fn own_variables(&self) -> [(&'static str, &str); 3] {
        [
            ("MILLRACE_TOPIC", &self.topic),
            ("MILLRACE_GROUP", &self.group),
            ("MILLRACE_SCHEMA", &self.env.schema),
        ]
    }

    fn psql_address(&self) -> String {
        let url = &self.env.database_url;
        let joint = if url.contains('?') { '&' } else { '?' };
        format!("{url}{joint}options=-csearch_path%3D{}", self.env.schema)
    }
}

/// For topic, group and schema alike.
fn own_name() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!("millrace_demo_{}", now.as_millis())
}
