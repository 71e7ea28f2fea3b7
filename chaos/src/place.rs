//! Where a round is played: its folder, its names, and the product's commands as they run there.
//!
//! Topic, group, schema, roles and files of a round follow from one name, so that rounds share nothing but the
//! servers. A command made here goes straight to them; workers are sent by way of the lines.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::ChaosError;
use crate::plan::Handlers;
use crate::servers::Servers;

/// What all workers of a round share.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder of the binaries.
    pub programs: PathBuf,
    /// The round's folder.
    pub dir: PathBuf,
    /// Topic, and part of the names of group, schema and roles.
    pub name: String,
    /// Who works.
    pub handlers: Handlers,
}

impl Place {
    /// The round's consumer group.
    #[must_use]
    pub fn group(&self) -> String {
        format!("workers-of-{}", self.name)
    }

    /// Where dead letters are copied to.
    #[must_use]
    pub fn dead_letter_topic(&self) -> String {
        format!("{}.dlq", self.name)
    }

    /// The round's schema.
    #[must_use]
    pub fn schema(&self) -> String {
        self.name.replace('-', "_")
    }

    /// The role of worker number `number`, counted from 1.
    #[must_use]
    pub fn role(&self, number: usize) -> String {
        format!("w{number}_{}", self.schema())
    }

    /// The round's journal.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// A command of the product, that goes straight to the servers.
    #[must_use]
    pub fn command(&self, servers: &Servers, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        for (name, _) in std::env::vars() {
            if name.starts_with("MILLRACE_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command
            .env("KAFKA_BOOTSTRAP_SERVERS", servers.bootstrap())
            .env("DATABASE_URL", servers.database_url())
            .env("MILLRACE_SCHEMA", self.schema())
            .env("MILLRACE_TOPIC", &self.name)
            .env("MILLRACE_GROUP", self.group())
            .env("MILLRACE_ALLOW_UNREPLICATED", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command of the product to its end; what it printed on standard output.
    ///
    /// # Errors
    /// When it fails.
    pub async fn run(
        &self,
        servers: &Servers,
        program: &str,
        arguments: &[&str],
    ) -> Result<Vec<u8>, ChaosError> {
        let mut command = self.command(servers, program);
        command.args(arguments);
        let doing = format!("run {program}");
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .map_err(std::io::Error::other)
            .and_then(|done| done)
            .map_err(ChaosError::io(doing))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let printed = [output.stdout, output.stderr].concat();
        Err(ChaosError::Command {
            command: format!("{program} {}", arguments.join(" ")),
            status: output.status.to_string(),
            output: String::from_utf8_lossy(&printed).into_owned(),
        })
    }
}

/// Of a log that tells of an end so much is quoted.
const QUOTED: usize = 1_200;

/// The last lines of a process' log, for a complaint.
pub(crate) fn end_of(log: &Path) -> String {
    let text = match std::fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return format!("{} cannot be read: {error}", log.display()),
    };
    let from = text.len().saturating_sub(QUOTED);
    let end = text.get(text.ceil_char_boundary(from)..);
    format!(
        "{} ends with:\n{}",
        log.display(),
        end.unwrap_or_default().trim()
    )
}
