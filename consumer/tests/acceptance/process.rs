//! A worker of the stock binary: its words, its end.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use millrace_devstack::ProcessMark;
use nix::sys::signal::Signal;

use crate::eventually;
use crate::stage::Stage;

/// `consumer run`. Dropping it kills it.
pub struct Process {
    child: Child,
    pub pid: u32,
    words: PathBuf,
    _folder: tempfile::TempDir,
}

impl Process {
    pub fn worker(stage: &Stage, flags: &[&str]) -> Process {
        let folder = tempfile::Builder::new()
            .prefix("millrace-acceptance-")
            .tempdir()
            .unwrap();
        let words = folder.path().join("worker.log");
        let child = stage
            .command()
            .args(["run", "--metrics-listen", "127.0.0.1:0"])
            .args(flags)
            .stdout(Stdio::null())
            .stderr(File::create(&words).unwrap())
            .spawn()
            .unwrap();
        Process {
            pid: child.id(),
            child,
            words,
            _folder: folder,
        }
    }

    pub fn words(&self) -> String {
        fs::read_to_string(&self.words).unwrap_or_default()
    }

    /// Waits for the exit code.
    pub async fn exit(&mut self, seconds: u64) -> i32 {
        let words = self.words.clone();
        eventually("the worker's end", seconds, async || {
            let status = self.child.try_wait().unwrap()?;
            let code = status.code();
            Some(code.unwrap_or_else(|| panic!("{status}: {:?}", fs::read_to_string(&words))))
        })
        .await
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGTERM, and the exit code.
    pub async fn stop(mut self) -> i32 {
        if let Some(mark) = ProcessMark::of(self.pid) {
            mark.signal(Signal::SIGTERM);
        }
        self.exit(40).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let words = self.words();
            let lines: Vec<&str> = words.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(40)..);
            eprintln!(
                "--- last words of worker {}\n{}",
                self.pid,
                tail.unwrap_or(&lines).join("\n")
            );
        }
    }
}
