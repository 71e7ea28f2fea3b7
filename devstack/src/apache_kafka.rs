//! Apache Kafka itself: one node in KRaft mode, broker and controller in one Java process. It is a
//! cluster by itself, or one of an [`ApacheCluster`](crate::ApacheCluster).
//!
//! It keeps port, cluster id and data over stop, kill and start in the same folder, so it can be
//! used to prove what survives. Limits that stand in the way of quick tests are lowered: no
//! rebalance delay, sessions from one second, small internal topics. Topics are never made by
//! themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::class_archive::class_archive;
use crate::kafka_config::{Membership, Ports, new_cluster_id, properties};
use crate::process::{Lifetime, ServerProcess, ServerSpec, lock_file, run_tool};
use crate::{DevstackError, Java, KafkaJars, KafkaOptions, ProcessMark, Topics};

const SERVER: &str = "Apache Kafka";
const READY: Duration = Duration::from_secs(90);
const STOP: Duration = Duration::from_secs(60);
const LOGGING: &str = include_str!("../kafka/log4j2.properties");

/// One running (or stopped) node. Dropping it ends it; killing the owning process ends it too.
pub struct ApacheKafka {
    java: Java,
    jars: KafkaJars,
    home: PathBuf,
    options: KafkaOptions,
    ports: Ports,
    membership: Membership,
    archive: Option<PathBuf>,
    lifetime: Lifetime,
    process: Option<ServerProcess>,
    temp: Option<TempDir>,
}

impl ApacheKafka {
    /// Starts the node with its data in `dir`, formatting it first if it is new; ready when this
    /// returns. The first start on a machine downloads the jars.
    ///
    /// # Errors
    /// Says what to install when there is no Java or no Maven; shows the end of the log when the
    /// broker does not start.
    pub async fn start(dir: impl AsRef<Path>) -> Result<Self, DevstackError> {
        Self::start_with(dir, KafkaOptions::default()).await
    }

    /// As [`start`](Self::start), with other settings.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(
        dir: impl AsRef<Path>,
        options: KafkaOptions,
    ) -> Result<Self, DevstackError> {
        Self::launch(dir.as_ref(), None, options, Lifetime::Owned).await
    }

    /// Starts a fresh node in a temporary folder that disappears with it.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_temp(options: KafkaOptions) -> Result<Self, DevstackError> {
        let temp = tempfile::Builder::new()
            .prefix("millrace-kafka-")
            .tempdir()
            .map_err(DevstackError::path(
                "create a folder in",
                std::env::temp_dir(),
            ))?;
        let home = temp.path().join("kafka");
        Self::launch(&home, Some(temp), options, Lifetime::Owned).await
    }

    /// Starts the node as a background process that outlives this one.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_background(
        dir: impl AsRef<Path>,
        options: KafkaOptions,
    ) -> Result<(Self, ProcessMark), DevstackError> {
        let mut node = Self::launch(dir.as_ref(), None, options, Lifetime::Background).await?;
        let mark = node.leave_running()?;
        Ok((node, mark))
    }

    /// Lets the node live on without this handle.
    pub(crate) fn leave_running(&mut self) -> Result<ProcessMark, DevstackError> {
        Ok(self.take_process()?.leave_running())
    }

    /// The address for `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports.broker)
    }

    /// The port on 127.0.0.1 where clients arrive that come by way of the proxy of
    /// [`KafkaOptions::by_way_of`]. Nobody listens there without one.
    #[must_use]
    pub fn outside_port(&self) -> u16 {
        self.ports.outside
    }

    /// Administration of its topics.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn topics(&self) -> Result<Topics, DevstackError> {
        Topics::of(&self.bootstrap())
    }

    /// Creates a topic; see [`Topics::create`].
    ///
    /// # Errors
    /// As [`Topics::create`].
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<(), DevstackError> {
        self.topics()?.create(name, partitions, settings).await
    }

    /// Deletes a topic; see [`Topics::delete`].
    ///
    /// # Errors
    /// As [`Topics::delete`].
    pub async fn delete_topic(&self, name: &str) -> Result<(), DevstackError> {
        self.topics()?.delete(name).await
    }

    /// Drops old records; see [`Topics::delete_records`].
    ///
    /// # Errors
    /// As [`Topics::delete_records`].
    pub async fn delete_records(
        &self,
        name: &str,
        partition: i32,
        before: i64,
    ) -> Result<(), DevstackError> {
        self.topics()?.delete_records(name, partition, before).await
    }

    /// Grows a topic; see [`Topics::increase_partitions`].
    ///
    /// # Errors
    /// As [`Topics::increase_partitions`].
    pub async fn increase_partitions(&self, name: &str, total: i32) -> Result<(), DevstackError> {
        self.topics()?.increase_partitions(name, total).await
    }

    /// Stops in order: logs are flushed and closed.
    ///
    /// # Errors
    /// When it is not running, or needs longer than 60 s.
    pub async fn stop(&mut self) -> Result<(), DevstackError> {
        self.take_process()?.stop(STOP).await
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill(&mut self) -> Result<(), DevstackError> {
        self.take_process()?.kill().await
    }

    /// Starts a stopped or killed node again: same port, same data.
    ///
    /// # Errors
    /// When it is still running, its port was taken by somebody, or it does not come up.
    pub async fn start_again(&mut self) -> Result<(), DevstackError> {
        if self.process.is_some() {
            return Err(wrong_state("running", "stopped"));
        }
        self.spawn().await
    }

    /// An orderly stop and a start.
    ///
    /// # Errors
    /// As [`stop`](Self::stop) and [`start_again`](Self::start_again).
    pub async fn restart(&mut self) -> Result<(), DevstackError> {
        self.stop().await?;
        self.start_again().await
    }

    /// The running server, for signals such as SIGSTOP.
    #[must_use]
    pub fn mark(&self) -> Option<ProcessMark> {
        self.process.as_ref().map(ServerProcess::mark)
    }

    /// The server's log file.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.home.join("kafka.log")
    }

    async fn launch(
        dir: &Path,
        temp: Option<TempDir>,
        options: KafkaOptions,
        lifetime: Lifetime,
    ) -> Result<Self, DevstackError> {
        let mut node = Self::prepare(dir, temp, options, lifetime).await?;
        node.start_as(&new_cluster_id()).await?;
        Ok(node)
    }

    /// A node with its folder and its ports, not yet started.
    pub(crate) async fn prepare(
        dir: &Path,
        temp: Option<TempDir>,
        options: KafkaOptions,
        lifetime: Lifetime,
    ) -> Result<Self, DevstackError> {
        let java = Java::find().await?;
        let jars = KafkaJars::resolve().await?;
        let archive = class_archive(&java, &jars).await;
        let home = std::path::absolute(dir).map_err(DevstackError::path("resolve", dir))?;
        fs::create_dir_all(&home).map_err(DevstackError::path("create", &home))?;
        let _only_one = lock_file(home.join("lock")).await?;
        let ports = Ports::choose(&home)?;
        Ok(Self {
            java,
            jars,
            home,
            options,
            ports,
            membership: Membership::alone(ports),
            archive,
            lifetime,
            process: None,
            temp,
        })
    }

    pub(crate) fn controller_port(&self) -> u16 {
        self.ports.controller
    }

    pub(crate) fn join(&mut self, membership: Membership) {
        self.membership = membership;
    }

    /// Starts a prepared node, formatting its data for `cluster_id` first if it has none.
    pub(crate) async fn start_as(&mut self, cluster_id: &str) -> Result<(), DevstackError> {
        let _only_one = lock_file(self.home.join("lock")).await?;
        self.configure()?;
        if !self.home.join("data/meta.properties").exists() {
            self.format(cluster_id).await?;
        }
        self.spawn().await
    }

    fn configure(&self) -> Result<(), DevstackError> {
        let mut text = String::new();
        let own = properties(
            self.ports,
            &self.membership,
            self.options.by_way_of,
            &self.home.join("data"),
        );
        for (name, value) in own.iter().chain(&self.options.properties) {
            text.push_str(&format!("{name}={value}\n"));
        }
        let file = self.properties_file();
        fs::write(&file, text).map_err(DevstackError::path("write", &file))?;
        let logging = self.home.join("log4j2.properties");
        fs::write(&logging, LOGGING).map_err(DevstackError::path("write", &logging))
    }

    async fn format(&self, cluster_id: &str) -> Result<(), DevstackError> {
        let mut command = self.java_command();
        // Half a second of work: the optimising compiler and a parallel collector only delay it.
        command
            .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
            .arg(self.logging_flag());
        command.args([
            "-cp",
            &self.jars.class_path(),
            "kafka.tools.StorageTool",
            "format",
        ]);
        command.args(["--cluster-id", cluster_id, "--ignore-formatted", "--config"]);
        command.arg(self.properties_file());
        run_tool("kafka.tools.StorageTool", command).await?;
        Ok(())
    }

    async fn spawn(&mut self) -> Result<(), DevstackError> {
        let mut command = self.java_command();
        self.options.tune(&mut command);
        command
            .arg(self.logging_flag())
            .args(["-cp", &self.jars.class_path(), "kafka.Kafka"]);
        command.arg(self.properties_file()).current_dir("/");
        let spec = ServerSpec {
            name: SERVER,
            stop_signal: Signal::SIGTERM,
            log: self.log(),
            temp_dir: self.temp.as_ref().map(|dir| dir.path().to_owned()),
            lifetime: self.lifetime,
        };
        let mut process = ServerProcess::spawn(command, spec)?;
        self.wait_until_ready(&mut process).await?;
        self.process = Some(process);
        Ok(())
    }

    /// Ready means: it answers, and knows itself as a registered broker.
    async fn wait_until_ready(&self, process: &mut ServerProcess) -> Result<(), DevstackError> {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap())
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "100")
            .set("log_level", "0")
            .create()?;
        let client = Arc::new(client);
        let deadline = Instant::now() + READY;
        loop {
            process.check()?;
            let probe = Arc::clone(&client);
            let answer = tokio::task::spawn_blocking(move || {
                probe.fetch_metadata(None, Duration::from_millis(500))
            });
            if let Ok(Ok(metadata)) = answer.await
                && metadata
                    .brokers()
                    .iter()
                    .any(|broker| broker.port() == i32::from(self.ports.broker))
            {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(DevstackError::TooSlow {
                    what: format!("the start of {SERVER}"),
                    limit: READY,
                    log: Some(self.log()),
                });
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn java_command(&self) -> Command {
        let mut command = self.java.command();
        if let Some(archive) = &self.archive {
            command.arg(format!("-XX:SharedArchiveFile={}", archive.display()));
            command.arg("-Xshare:auto"); // one that does not fit is passed over
        }
        command
    }

    fn properties_file(&self) -> PathBuf {
        self.home.join("server.properties")
    }

    fn logging_flag(&self) -> String {
        format!(
            "-Dlog4j2.configurationFile={}",
            self.home.join("log4j2.properties").display()
        )
    }

    fn take_process(&mut self) -> Result<ServerProcess, DevstackError> {
        self.process
            .take()
            .ok_or_else(|| wrong_state("stopped", "running"))
    }
}

impl Drop for ApacheKafka {
    fn drop(&mut self) {
        // Before the temporary folder goes, or the dying server writes into it again.
        self.process.take();
    }
}

fn wrong_state(found: &'static str, needed: &'static str) -> DevstackError {
    DevstackError::WrongState {
        server: SERVER,
        found,
        needed,
    }
}
