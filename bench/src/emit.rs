//! `producer emit`: the release binary, on a file of JSON lines.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use millrace_settings::KafkaArgs;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::program::Program;
use crate::rows::{KEY_POINTER, Room, TASK_TYPE};

/// A file of lines that vanishes with this value.
#[derive(Debug)]
pub struct Lines {
    _folder: TempDir,
    path: PathBuf,
    count: u64,
}

impl Lines {
    /// Writes the payloads of the first `count` events, a line each.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(count: u64) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("millrace-bench-")
            .tempdir()?;
        let path = folder.path().join("events.ndjson");
        let mut file = BufWriter::new(File::create(&path)?);
        let mut room = Room::default();
        for index in 0..count {
            writeln!(file, "{}", room.line(index))?;
        }
        file.flush()?;
        Ok(Self {
            _folder: folder,
            path,
            count,
        })
    }
}

/// How a run of `emit` went.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Emitted {
    /// From the start of reading to the last acknowledgement, as `emit` itself says.
    pub seconds: f64,
    /// From the start of the process to its end.
    pub wall_seconds: f64,
    /// Most memory it held, in MiB.
    pub peak_rss_mib: f64,
}

#[derive(Deserialize)]
struct Summary {
    read: u64,
    acknowledged: u64,
    rejected: u64,
    seconds: f64,
}

/// Sends the file.
///
/// # Errors
/// When it ends otherwise than with every line acknowledged.
pub async fn run(kafka: &KafkaArgs, lines: &Lines) -> anyhow::Result<Emitted> {
    let mut program = Program::of_this_build("producer")?;
    program.args(["emit", "--type", TASK_TYPE, "--key-field", KEY_POINTER]);
    program.args([
        "--kafka",
        kafka.bootstrap_servers()?,
        "--topic",
        &kafka.topic,
    ]);
    program.args(["--allow-unreplicated", "--format", "json"]);
    program.args([path_text(&lines.path)?]);
    let began = Instant::now();
    let mut running = program.start()?;
    let peak_rss_mib = running.ended().await?;
    let wall_seconds = began.elapsed().as_secs_f64();
    let summary: Summary =
        serde_json::from_str(&running.output()?).context("the summary of emit")?;
    ensure!(
        summary.read == lines.count && summary.acknowledged == lines.count && summary.rejected == 0,
        "emit read {} lines, {} were acknowledged, {} rejected; {} were expected",
        summary.read,
        summary.acknowledged,
        summary.rejected,
        lines.count
    );
    Ok(Emitted {
        seconds: summary.seconds,
        wall_seconds,
        peak_rss_mib,
    })
}

fn path_text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .context("the temporary folder's name is no text")
}
