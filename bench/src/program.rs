//! A binary of this build as a child process: the one that lies beside the bench itself.
//!
//! It starts with none of Millrace's environment variables, so that only the flags given here hold.
//! Dropping it kills it. While it runs its memory is watched, since that is gone with the process.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::process::{Child, Command};

const LOOK: Duration = Duration::from_millis(5);
const DEADLINE: Duration = Duration::from_secs(600);
/// Settings from outside that would change what is measured.
const OURS: [&str; 3] = ["MILLRACE_", "KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL"];

/// A program that is about to start.
pub struct Program {
    command: Command,
    name: &'static str,
}

/// A program that runs, and where its output goes.
pub struct Running {
    child: Child,
    name: &'static str,
    pid: u32,
    /// When it was started.
    pub began: Instant,
    outputs: TempDir,
    peak_kib: u64,
}

impl Program {
    /// The binary `name` beside this one.
    ///
    /// # Errors
    /// When it is not there.
    pub fn of_this_build(name: &'static str) -> anyhow::Result<Self> {
        let path: PathBuf = std::env::current_exe()?.with_file_name(name);
        if !path.is_file() {
            bail!(
                "{} is missing: build the binaries first (make bench does)",
                path.display()
            );
        }
        let mut command = Command::new(path);
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if OURS.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&variable);
            }
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        Ok(Self { command, name })
    }

    /// Adds arguments.
    pub fn args<const N: usize>(&mut self, args: [&str; N]) {
        self.command.args(args);
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn start(mut self) -> anyhow::Result<Running> {
        let outputs = tempfile::Builder::new()
            .prefix("millrace-bench-")
            .tempdir()?;
        self.command
            .stdout(File::create(outputs.path().join("stdout"))?)
            .stderr(File::create(outputs.path().join("stderr"))?);
        let began = Instant::now();
        let child = self
            .command
            .spawn()
            .with_context(|| format!("starting {}", self.name))?;
        let pid = child.id().context("a child without a number")?;
        Ok(Running {
            child,
            name: self.name,
            pid,
            began,
            outputs,
            peak_kib: 0,
        })
    }
}

impl Running {
    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Looks at its memory; an error once it has ended.
    ///
    /// # Errors
    /// Says how it ended, with the last lines of what it wrote.
    pub fn look(&mut self) -> anyhow::Result<()> {
        self.note_memory();
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended early, {status}:\n{}",
                self.name,
                self.last_words()
            ),
        }
    }

    /// Waits for its end with exit code 0; returns the most memory it held, in MiB.
    ///
    /// # Errors
    /// When it ends otherwise, or not at all.
    pub async fn ended(&mut self) -> anyhow::Result<f64> {
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            self.note_memory();
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() >= deadline {
                bail!("{} still runs after {DEADLINE:?}", self.name);
            }
            tokio::time::sleep(LOOK).await;
        };
        if !status.success() {
            bail!("{} ended with {status}:\n{}", self.name, self.last_words());
        }
        Ok(self.peak_rss_mib())
    }

    /// Most memory it was seen to hold, in MiB.
    pub fn peak_rss_mib(&self) -> f64 {
        self.peak_kib as f64 / 1024.0
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn terminate(&self) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.pid)?), Signal::SIGTERM)?;
        Ok(())
    }

    /// What it wrote on standard output.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn output(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.outputs.path().join("stdout"))?)
    }

    /// What it wrote on standard error so far.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn said(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.outputs.path().join("stderr"))?)
    }

    /// The memory that it holds now, in MiB.
    pub fn rss_mib(&self) -> f64 {
        self.status_kib("VmRSS:") as f64 / 1024.0
    }

    /// `VmHWM` of proc(5): the peak, kept by the kernel, so that looking seldom misses little.
    fn note_memory(&mut self) {
        self.peak_kib = self.peak_kib.max(self.status_kib("VmHWM:"));
    }

    /// A line of its proc(5) status; 0 once it has ended.
    fn status_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok());
        kib.unwrap_or(0)
    }

    fn last_words(&self) -> String {
        let text = fs::read(self.outputs.path().join("stderr")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(20);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}
