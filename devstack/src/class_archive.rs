//! Kafka's classes, loaded and checked once and kept: a node that finds them starts in half the time.
//!
//! The archive (JVM class data sharing) is made by a throw-away node that is started and stopped in
//! order, once for each Java and each version of the jars, and kept beside the jars. It is a help, never
//! a need: what fails here is logged, and nodes start without it.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::kafka_config::{Membership, Ports, new_cluster_id, properties};
use crate::process::{Lifetime, ServerProcess, ServerSpec, lock_file, run_tool};
use crate::{DevstackError, Java, KafkaJars};

const MADE_WITHIN: Duration = Duration::from_secs(90);

/// The archive for this Java and these jars, made first if there is none; none when it cannot be made.
pub(crate) async fn class_archive(java: &Java, jars: &KafkaJars) -> Option<PathBuf> {
    let mut hasher = DefaultHasher::new();
    java.version().hash(&mut hasher);
    let path = jars
        .dir()
        .with_added_extension(format!("{:016x}.jsa", hasher.finish()));
    if path.exists() {
        return Some(path);
    }
    let _only_one = lock_file(path.with_added_extension("lock")).await.ok()?;
    if !path.exists()
        && let Err(error) = make(java, jars, &path).await
    {
        tracing::warn!(%error, "Kafka's classes are not kept: it starts more slowly");
        return None;
    }
    Some(path)
}

async fn make(java: &Java, jars: &KafkaJars, path: &Path) -> Result<(), DevstackError> {
    tracing::info!("keeping Kafka's classes for quicker starts (once, about 50 MB)");
    let temp = tempfile::Builder::new()
        .prefix("millrace-kafka-")
        .tempdir()
        .map_err(DevstackError::path(
            "create a folder in",
            std::env::temp_dir(),
        ))?;
    let home = temp.path();
    let ports = Ports::choose(home)?;
    let own = properties(ports, &Membership::alone(ports), None, &home.join("data"));
    let lines: String = own
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    let file = home.join("server.properties");
    fs::write(&file, lines).map_err(DevstackError::path("write", &file))?;
    let mut format = java.command();
    format.args([
        "-cp",
        &jars.class_path(),
        "kafka.tools.StorageTool",
        "format",
    ]);
    format.args(["--cluster-id", &new_cluster_id(), "--config"]);
    format.arg(&file);
    run_tool("kafka.tools.StorageTool", format).await?;

    let draft = home.join("classes.jsa");
    let mut command = java.command();
    command
        .arg(format!("-XX:ArchiveClassesAtExit={}", draft.display()))
        .args(["-XX:+UseSerialGC", "-Xmx256m"])
        .args(["-cp", &jars.class_path(), "kafka.Kafka"])
        .arg(&file)
        .current_dir("/");
    let spec = ServerSpec {
        name: "Apache Kafka",
        stop_signal: Signal::SIGTERM,
        log: home.join("kafka.log"),
        temp_dir: Some(home.to_owned()),
        lifetime: Lifetime::Owned,
    };
    let mut process = ServerProcess::spawn(command, spec)?;
    let deadline = Instant::now() + MADE_WITHIN;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, ports.broker)).is_err()
        && Instant::now() < deadline
    {
        process.check()?;
        sleep(Duration::from_millis(20)).await;
    }
    process.stop(MADE_WITHIN).await?;
    // The cache may lie on another file system than temporary folders do.
    let staged = path.with_added_extension("new");
    fs::copy(&draft, &staged).map_err(DevstackError::path("copy", &draft))?;
    fs::rename(&staged, path).map_err(DevstackError::path("create", path))
}
