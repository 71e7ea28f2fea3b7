//! A process of the product under test: killed, frozen, thawed, waited for; its words are kept in files.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use millrace_devstack::ProcessMark;
use nix::sys::signal::Signal;

/// A running `consumer` or `producer`. Dropping it kills it.
pub struct Process {
    pub name: String,
    pub pid: u32,
    child: Child,
    mark: ProcessMark,
    words: PathBuf,
}

impl Process {
    pub fn start(mut command: Command, name: String, folder: PathBuf) -> Process {
        let words = folder.join(format!("{name}.log"));
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&words).unwrap())
            .spawn()
            .unwrap();
        let pid = child.id();
        let mark = ProcessMark::of(pid).unwrap();
        Process {
            name,
            pid,
            child,
            mark,
            words,
        }
    }

    /// SIGKILL; it is gone when this returns.
    pub fn kill(mut self) {
        self.end();
    }

    pub fn freeze(&self) {
        self.mark.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.mark.signal(Signal::SIGCONT);
    }

    pub fn terminate(&self) {
        self.mark.signal(Signal::SIGTERM);
    }

    /// The exit code, once it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        let status = self.child.try_wait().unwrap()?;
        Some(
            status
                .code()
                .unwrap_or_else(|| panic!("{}: {status}", self.name)),
        )
    }

    /// Waits for the exit code.
    pub async fn exit(&mut self, seconds: u64) -> i32 {
        let mut code = None;
        let what = format!("the end of {}", self.name);
        crate::until(&what, seconds, async || {
            code = self.ended();
            code.is_some()
        })
        .await;
        code.unwrap()
    }

    /// What it said on standard error so far.
    pub fn words(&self) -> String {
        fs::read_to_string(&self.words).unwrap_or_default()
    }

    /// One of its metrics, summed over the series whose name and labels begin so; none while it is not served.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let words = self.words();
        let address = words
            .split_once("metrics on http://")?
            .1
            .split_once('/')?
            .0
            .to_owned();
        let page = tokio::time::timeout(Duration::from_secs(5), page(&address))
            .await
            .ok()?
            .ok()?;
        let series = page.lines().filter(|line| line.starts_with(name));
        let values = series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        Some(values.sum())
    }

    fn end(&mut self) {
        // Both fail only when it has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let words = self.words();
            let lines: Vec<&str> = words.lines().collect();
            let tail = lines
                .get(lines.len().saturating_sub(60)..)
                .unwrap_or_default();
            eprintln!("--- the last words of {}\n{}", self.name, tail.join("\n"));
        }
    }
}

async fn page(address: &str) -> std::io::Result<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}
