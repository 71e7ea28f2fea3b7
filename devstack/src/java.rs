//! The Java that runs Apache Kafka: 17 or newer, from `JAVA_HOME` or the PATH.

use std::path::PathBuf;
use std::process::Command;

use crate::DevstackError;
use crate::process::run_tool;

const OLDEST: u32 = 17;

/// A Java that is new enough.
#[derive(Debug, Clone)]
pub struct Java {
    program: PathBuf,
    version: String,
}

impl Java {
    /// Looks in `JAVA_HOME` first, then on the PATH.
    ///
    /// # Errors
    /// Says what to install when there is none, or only an older one.
    pub async fn find() -> Result<Self, DevstackError> {
        let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
        for program in home.into_iter().chain([PathBuf::from("java")]) {
            let mut command = Command::new(&program);
            command.arg("-version");
            if let Ok(text) = run_tool("java", command).await
                && major(&text).is_some_and(|major| major >= OLDEST)
            {
                return Ok(Self {
                    program,
                    version: text,
                });
            }
        }
        Err(DevstackError::NotInstalled {
            program: "Java 17 or newer",
            remedy: "Apache Kafka needs it (Debian: apt-get install openjdk-17-jre-headless), or \
                     set JAVA_HOME",
        })
    }

    pub(crate) fn command(&self) -> Command {
        Command::new(&self.program)
    }

    /// All that it says about its version.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }
}

/// `openjdk version "17.0.15" 2025-04-15` has major version 17; the old `"1.8.0_402"` has 1.
fn major(version_text: &str) -> Option<u32> {
    let (_, rest) = version_text.split_once("version \"")?;
    rest.split(['.', '"', '-']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_java_prints() {
        assert_eq!(
            major("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK"),
            Some(17)
        );
        assert_eq!(major("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(major("openjdk version \"27-ea\" 2026-09-16"), Some(27));
        assert_eq!(major("java version \"1.8.0_402\""), Some(1));
        assert_eq!(major("bash: java: command not found"), None);
    }
}
