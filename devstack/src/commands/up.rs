//! `devstack up`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use millrace_devstack::{Background, DLQ_TOPIC, Found, KafkaChoice, PARTITIONS, TOPIC};

use super::migrate::migrate;

/// Starts a stack in the background.
#[derive(Args)]
pub struct Up {
    /// embedded, apache, or host:port of a cluster to use as it is.
    #[arg(long, env = "KAFKA", default_value = "embedded")]
    kafka: KafkaChoice,
    /// Brokers of Apache Kafka: 1 or 3.
    #[arg(long, env = "BROKERS", default_value_t = 1)]
    brokers: u8,
    /// A database to use as it is, instead of a private Postgres.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// The stack's folder: data, logs, `env`.
    #[arg(long, default_value = ".millrace")]
    dir: PathBuf,
}

impl Up {
    /// Returns when Kafka and Postgres are ready and the tables are made.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let program = std::env::current_exe().context("find this program")?;
        let stack = Background::of(&self.dir, program)?;
        let kafka = self
            .kafka
            .with_brokers(self.brokers)
            .map_err(anyhow::Error::msg)?;
        let (record, found) = stack.up(&kafka, self.database_url).await?;
        migrate(&record.env).await?;
        println!("{}", sentence(&found));
        println!("  Kafka     {} ({})", record.env.kafka, record.kafka);
        println!("  topics    {TOPIC} and {DLQ_TOPIC}, {PARTITIONS} partitions each if new");
        println!(
            "  Postgres  {}, schema {}",
            place(&record.env.database_url),
            record.env.schema
        );
        println!("  to use it    . {}", shown(&stack.env_file()).display());
        println!("  to end it    make down");
        Ok(ExitCode::SUCCESS)
    }
}

fn sentence(found: &Found) -> &'static str {
    match found {
        Found::Nothing => "A stack is running in the background:",
        Found::Running => "The stack was running already:",
        Found::Remains => "Parts of a former stack had died; it was started again:",
    }
}

/// Host, port and database of an address, without user and password.
fn place(url: &str) -> &str {
    let bare = url.split_once("://").map_or(url, |(_, rest)| rest);
    bare.rsplit_once('@').map_or(bare, |(_, place)| place)
}

/// A path below the current folder is shorter, and `.` wants a slash in it.
fn shown(path: &Path) -> &Path {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path)
}
