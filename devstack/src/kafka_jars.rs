//! Apache Kafka's own jars, resolved by Maven once and then kept.
//!
//! The version is pinned in `devstack/kafka/pom.xml`; the cache folder is named after that file's
//! hash, so a new pin is a new folder. A filled cache needs neither Maven nor a network.
//! Concurrent callers wait for the first; an interrupted download leaves nothing half done.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::DevstackError;
use crate::process::{lock_file, run_tool};

const POM: &str = include_str!("../kafka/pom.xml");

/// A folder with all jars of one Apache Kafka.
#[derive(Debug, Clone)]
pub struct KafkaJars {
    dir: PathBuf,
}

impl KafkaJars {
    /// The jars from the cache, downloaded first if they are not there.
    ///
    /// # Errors
    /// Says what to install when Maven is needed and missing; shows what Maven said when it
    /// failed.
    pub async fn resolve() -> Result<Self, DevstackError> {
        let cache = cache_dir()?;
        let mut hasher = DefaultHasher::new();
        POM.hash(&mut hasher);
        let dir = cache.join(format!("kafka-{:016x}", hasher.finish()));
        if dir.is_dir() {
            return Ok(Self { dir });
        }
        fs::create_dir_all(&cache).map_err(DevstackError::path("create", &cache))?;
        let _only_one = lock_file(cache.join("kafka.lock")).await?;
        if !dir.is_dir() {
            download(&cache, &dir).await?;
        }
        Ok(Self { dir })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn class_path(&self) -> String {
        format!("{}/*", self.dir.display())
    }
}

async fn download(cache: &Path, dir: &Path) -> Result<(), DevstackError> {
    let work = tempfile::Builder::new()
        .prefix("kafka-download-")
        .tempdir_in(cache)
        .map_err(DevstackError::path("create a folder in", cache))?;
    let pom = work.path().join("pom.xml");
    fs::write(&pom, POM).map_err(DevstackError::path("write", &pom))?;
    let staged = work.path().join("lib");
    let mut command = Command::new("mvn");
    command
        .args(["--batch-mode", "--quiet", "--file"])
        .arg(&pom);
    command.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
    command.arg(format!("-DoutputDirectory={}", staged.display()));
    tracing::info!("resolving Apache Kafka's jars with Maven (once, about 45 MB)");
    run_tool("mvn", command)
        .await
        .map_err(|error| match error {
            DevstackError::Process { source, .. }
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                DevstackError::NotInstalled {
                    program: "mvn",
                    remedy: "Maven fetches Apache Kafka's jars (Debian: apt-get install maven)",
                }
            }
            other => other,
        })?;
    fs::rename(&staged, dir).map_err(DevstackError::path("create", dir))
}

/// `$XDG_CACHE_HOME/millrace`, else `~/.cache/millrace`.
fn cache_dir() -> Result<PathBuf, DevstackError> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    base.map(|base| base.join("millrace"))
        .ok_or(DevstackError::NotInstalled {
            program: "a home folder",
            remedy: "set HOME or XDG_CACHE_HOME: Apache Kafka's jars are kept there",
        })
}
