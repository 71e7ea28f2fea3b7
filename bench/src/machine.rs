//! What a figure was measured on: the machine, the versions, the settings, the command.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use serde::Serialize;
use sqlx::{Connection as _, PgConnection};

use crate::servers::Servers;

/// Settings of Postgres that durability and speed depend on.
const POSTGRES_SETTINGS: [&str; 9] = [
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_compression",
    "shared_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "wal_buffers",
    "autovacuum",
];

/// Machine, versions and command.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Processors that this program may use.
    pub processors: usize,
    /// Memory, in GiB.
    pub memory_gib: f64,
    /// Operating system kernel.
    pub kernel: String,
    /// Whether the servers' data lies in memory, which makes durability a word.
    pub data_in_memory: bool,
    /// Compiler.
    pub rustc: String,
    /// Kafka's client.
    pub librdkafka: String,
    /// Kafka itself; `None` while it was not needed.
    pub kafka: Option<String>,
    /// Postgres itself.
    pub postgres: String,
    /// Its settings, as `name=value`.
    pub postgres_settings: Vec<String>,
    /// How this program was called.
    pub command: String,
}

impl Machine {
    /// Looks around.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn describe(servers: &Servers) -> anyhow::Result<Self> {
        let mut connection = PgConnection::connect(&servers.url()).await?;
        let postgres: String = sqlx::query_scalar("SHOW server_version")
            .fetch_one(&mut connection)
            .await?;
        let postgres_settings: Vec<String> = sqlx::query_scalar(
            "SELECT name || '=' || current_setting(name) FROM pg_settings \
             WHERE name = ANY($1) ORDER BY array_position($1, name)",
        )
        .bind(POSTGRES_SETTINGS.map(str::to_owned).to_vec())
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        Ok(Self {
            processor: after_colon("/proc/cpuinfo", "model name").unwrap_or_default(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: memory_gib(),
            kernel: read("/proc/sys/kernel/osrelease"),
            data_in_memory: is_in_memory(servers.postgres.home()),
            rustc: rustc(),
            librdkafka: rdkafka::util::get_rdkafka_version().1,
            kafka: kafka(servers),
            postgres,
            postgres_settings,
            command: std::env::args().collect::<Vec<_>>().join(" "),
        })
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn after_colon(path: &str, name: &str) -> Option<String> {
    let text = read(path);
    let line = text.lines().find(|line| line.starts_with(name))?;
    let (_, value) = line.split_once(':')?;
    Some(value.trim().to_owned())
}

fn memory_gib() -> f64 {
    let kib = after_colon("/proc/meminfo", "MemTotal")
        .and_then(|value| value.trim_end_matches("kB").trim().parse::<f64>().ok());
    (kib.unwrap_or(0.0) / 1024.0 / 1024.0 * 10.0).round() / 10.0
}

fn is_in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
}

fn rustc() -> String {
    let said = Command::new("rustc").arg("--version").output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    said.ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// The version in the name of the jar that the running broker holds open.
fn kafka(servers: &Servers) -> Option<String> {
    let pid = servers.kafka().ok()?.mark()?.pid;
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .find_map(|path| {
            let name = path.file_name()?.to_str()?;
            let version = name.strip_prefix("kafka-clients-")?.strip_suffix(".jar")?;
            Some(version.to_owned())
        })
}
