//! Where a stack is to be found, as environment variables.
//!
//! Written to a file of `export` lines that a shell can source. The database address holds a
//! password, so only its owner may read the file.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::DevstackError;

/// The topic of a stack.
pub const TOPIC: &str = "tasks";
/// Its topic of dead letters.
pub const DLQ_TOPIC: &str = "tasks.dlq";
/// Partitions of both.
pub const PARTITIONS: i32 = 12;
/// Its consumer group.
pub const GROUP: &str = "workers";

/// The addresses and names of one stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackEnv {
    /// Kafka's bootstrap address.
    pub kafka: String,
    /// The database, with user and password.
    pub database_url: String,
    /// The Postgres schema.
    pub schema: String,
}

impl StackEnv {
    /// Names and values of all variables.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, &str); 6] {
        [
            ("KAFKA_BOOTSTRAP_SERVERS", &self.kafka),
            ("DATABASE_URL", &self.database_url),
            ("MILLRACE_TOPIC", TOPIC),
            ("MILLRACE_GROUP", GROUP),
            ("MILLRACE_SCHEMA", &self.schema),
            ("MILLRACE_ALLOW_UNREPLICATED", "1"),
        ]
    }

    /// Writes the `export` lines.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), DevstackError> {
        let text: String = self
            .variables()
            .iter()
            .map(|(name, value)| format!("export {name}={}\n", quoted(value)))
            .collect();
        write_private(path, text.as_bytes())
    }
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), DevstackError> {
    let draft = path.with_added_extension("new");
    fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&draft, path))
        .map_err(DevstackError::path("write", path))
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::expect_used, reason = "a failed step fails the test")]
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_written() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("env");
        let stack = StackEnv {
            kafka: "127.0.0.1:9092".to_owned(),
            database_url: "postgres://it's:$HOME@h/d?a=b&c=d".to_owned(),
            schema: "millrace".to_owned(),
        };
        stack.write(&file).expect("the folder is ours");
        let output = std::process::Command::new("sh")
            .args(["-c", ". \"$1\"; printf '%s' \"$DATABASE_URL\"", "sh"])
            .arg(&file)
            .output()
            .expect("there is a shell");
        assert_eq!(String::from_utf8_lossy(&output.stdout), stack.database_url);
    }
}
