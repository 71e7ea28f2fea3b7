//! What runs in the background, written down so that a later command finds and ends it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::stack_env::write_private;
use crate::{DevstackError, KafkaChoice, ProcessMark, StackEnv};

const STOP: Duration = Duration::from_secs(60);

/// A server in the background.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningServer {
    /// What it is.
    pub name: String,
    /// Which process it is.
    pub mark: ProcessMark,
    /// Stopped with SIGINT (Postgres: fast shutdown) instead of SIGTERM.
    pub stops_on_interrupt: bool,
}

/// One stack in the background.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackRecord {
    /// The Kafka it was started with.
    pub kafka: KafkaChoice,
    /// Where to find it.
    pub env: StackEnv,
    /// Its servers, in the order in which they were started.
    pub servers: Vec<RunningServer>,
}

impl StackRecord {
    /// The record in a stack's folder; `None` when nothing was started there.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn load(dir: &Path) -> Result<Option<Self>, DevstackError> {
        let path = file(dir);
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text)
                    .map(Some)
                    .map_err(|error| DevstackError::Damaged {
                        path,
                        reason: error.to_string(),
                    })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DevstackError::path("read", path)(error)),
        }
    }

    /// Writes the record into a stack's folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), DevstackError> {
        write_private(&file(dir), serde_json::json!(self).to_string().as_bytes())
    }

    /// Deletes the record, if there is one.
    ///
    /// # Errors
    /// When the file cannot be deleted.
    pub fn delete(dir: &Path) -> Result<(), DevstackError> {
        let path = file(dir);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(DevstackError::path("delete", path)(error))
            }
            _ => Ok(()),
        }
    }

    /// True while every one of its servers runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.servers.iter().all(|server| server.mark.is_alive())
    }

    /// Ends the servers that still run, the last one started first. Returns their names.
    pub async fn stop(&self) -> Vec<&str> {
        let mut ended = Vec::new();
        for server in self
            .servers
            .iter()
            .rev()
            .filter(|server| server.mark.is_alive())
        {
            let signal = if server.stops_on_interrupt {
                Signal::SIGINT
            } else {
                Signal::SIGTERM
            };
            server.mark.stop(signal, STOP).await;
            ended.push(server.name.as_str());
        }
        ended
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("stack.json")
}
