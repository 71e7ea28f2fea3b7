//! A server that runs as a child, and never outlives its owner.
//!
//! Dropping the handle kills the server. When the owning process itself is killed, a watchdog
//! notices the end of a pipe and ends the server, and deletes its temporary folder. The server
//! has its own process group, so Ctrl-C in a terminal reaches the owner alone, who ends things in
//! the right order. A server that is meant to stay is started in the background instead.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::{DevstackError, ProcessMark};

/// The watchdog. Arguments: signal, server, folder to delete (may be empty).
/// A line on standard input is a dismissal; end of file without one means the owner died.
/// A zombie counts as gone: in a container nobody may be there to reap it.
const WATCHDOG: &str = r#"
read -r _ && exit 0
kill -s "$1" "$2" 2>/dev/null
n=0
while grep -q '^State:.[^ZX]' "/proc/$2/status" 2>/dev/null; do
    n=$((n + 1))
    [ "$n" -gt 100 ] && kill -s KILL "$2" 2>/dev/null
    [ "$n" -gt 150 ] && break
    sleep 0.1
done
[ -n "$3" ] && rm -rf "$3"
"#;

/// How a server lives in relation to the process that starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// Ends with its owner, whatever ends the owner.
    Owned,
    /// Stays when the owner goes.
    Background,
}

/// How to start one server, and how to end it.
#[derive(Debug, Clone)]
pub(crate) struct ServerSpec {
    /// What to call it in messages.
    pub name: &'static str,
    /// The signal of an orderly stop.
    pub stop_signal: Signal,
    /// Where its output goes.
    pub log: PathBuf,
    /// A folder that goes with the server if the owner is killed.
    pub temp_dir: Option<PathBuf>,
    /// Whether it outlives its owner.
    pub lifetime: Lifetime,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    mark: ProcessMark,
    spec: ServerSpec,
    watchdog: Option<Watchdog>,
}

impl ServerProcess {
    /// Starts `command` as described.
    pub fn spawn(mut command: Command, spec: ServerSpec) -> Result<Self, DevstackError> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&spec.log)
            .map_err(DevstackError::path("write to", &spec.log))?;
        let log_too = log
            .try_clone()
            .map_err(DevstackError::path("write to", &spec.log))?;
        command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_too)
            .process_group(0);
        let mut child = command
            .spawn()
            .map_err(DevstackError::process(format!("start {}", spec.name)))?;
        let Some(mark) = ProcessMark::of(child.id()) else {
            let status = child
                .wait()
                .map_or_else(|e| e.to_string(), |s| s.to_string());
            return Err(ended(&spec, status));
        };
        let mut server = Self {
            child,
            mark,
            spec,
            watchdog: None,
        };
        if server.spec.lifetime == Lifetime::Owned {
            server.watchdog = Some(Watchdog::start(&server.spec, mark.pid)?);
        }
        Ok(server)
    }

    /// Which process it is.
    pub fn mark(&self) -> ProcessMark {
        self.mark
    }

    /// An error once the server has ended on its own.
    pub fn check(&mut self) -> Result<(), DevstackError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(ended(&self.spec, status.to_string())),
            Err(source) => Err(DevstackError::process("wait for a child")(source)),
        }
    }

    /// An orderly stop; SIGKILL after `limit`.
    pub async fn stop(mut self, limit: Duration) -> Result<(), DevstackError> {
        self.mark.signal(self.spec.stop_signal);
        let deadline = Instant::now() + limit;
        while self.exited()?.is_none() {
            if Instant::now() >= deadline {
                return Err(DevstackError::TooSlow {
                    what: format!("an orderly stop of {}", self.spec.name),
                    limit,
                    log: Some(self.spec.log.clone()),
                });
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// SIGKILL to the server and to everything it started; returns once all are gone.
    pub async fn kill(mut self) -> Result<(), DevstackError> {
        let children = self.mark.children();
        self.end_now();
        for child in children {
            child.stop(Signal::SIGKILL, Duration::from_secs(5)).await;
        }
        Ok(())
    }

    /// Lets the server live on without this handle.
    pub fn leave_running(mut self) -> ProcessMark {
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.dismiss();
        }
        self.spec.lifetime = Lifetime::Background;
        self.mark
    }

    /// Its exit status, once it has ended.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>, DevstackError> {
        self.child
            .try_wait()
            .map_err(DevstackError::process("wait for a child"))
    }

    fn end_now(&mut self) {
        // Both fail only when the child has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if self.spec.lifetime == Lifetime::Owned {
            self.end_now();
        }
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.dismiss();
        }
    }
}

#[derive(Debug)]
struct Watchdog {
    child: Child,
    leash: Option<ChildStdin>,
}

impl Watchdog {
    fn start(spec: &ServerSpec, pid: u32) -> Result<Self, DevstackError> {
        let signal = spec
            .stop_signal
            .as_str()
            .trim_start_matches("SIG")
            .to_owned();
        let mut child = Command::new("/bin/sh")
            .args([
                "-c",
                WATCHDOG,
                "devstack-watchdog",
                &signal,
                &pid.to_string(),
            ])
            .arg(spec.temp_dir.as_deref().unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .map_err(DevstackError::process("start the watchdog of a server"))?;
        let leash = child.stdin.take();
        Ok(Self { child, leash })
    }

    fn dismiss(mut self) {
        if let Some(mut leash) = self.leash.take() {
            // A watchdog that is gone already needs no dismissal.
            let _ = leash.write_all(b"dismissed\n");
        }
        let _ = self.child.wait();
    }
}

/// The last lines of a log file, for an error message.
pub(crate) fn log_tail(path: &Path) -> String {
    const LINES: usize = 15;
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(LINES)..)
        .unwrap_or_default()
        .join("\n")
}

/// Runs a tool to its end, off the async threads; its output is the value, or part of the error.
pub(crate) async fn run_tool(
    tool: &'static str,
    mut command: Command,
) -> Result<String, DevstackError> {
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output())
        .await
        .map_err(std::io::Error::other)
        .and_then(|done| done)
        .map_err(DevstackError::process(format!("run {tool}")))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines
        .get(lines.len().saturating_sub(20)..)
        .unwrap_or_default()
        .join("\n");
    Err(DevstackError::ToolFailed {
        tool,
        status: output.status.to_string(),
        output: tail,
    })
}

/// An exclusive lock on `path`, held until the file is dropped. Waits for other processes.
pub(crate) async fn lock_file(path: PathBuf) -> Result<File, DevstackError> {
    let place = path.clone();
    tokio::task::spawn_blocking(move || {
        let file = File::create(&path)?;
        file.lock()?;
        Ok(file)
    })
    .await
    .map_err(std::io::Error::other)
    .and_then(|done| done)
    .map_err(DevstackError::path("lock", place))
}

fn ended(spec: &ServerSpec, status: String) -> DevstackError {
    DevstackError::ServerEnded {
        server: spec.name,
        status,
        log: spec.log.clone(),
        tail: log_tail(&spec.log),
    }
}
