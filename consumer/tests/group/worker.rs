//! A running worker: what it says, what its listener answers, how it ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millrace_devstack::ProcessMark;
use nix::sys::signal::Signal;

use super::scene::eventually;

/// Dropping it kills it; a failed test shows what it said.
pub struct Worker {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Worker {
    pub fn start(mut command: Command) -> Worker {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (said, stderr) = (Arc::clone(&lines), child.stderr.take().unwrap());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                said.lock().unwrap().push(line);
            }
        });
        Worker {
            child,
            lines,
            reader: Some(reader),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn words(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    pub fn said(&self, words: &str) -> bool {
        self.words().contains(words)
    }

    pub async fn until_said(&self, words: &str) {
        eventually(&format!("the worker says `{words}`"), async || {
            self.said(words).then_some(())
        })
        .await;
    }

    pub fn signal(&self, signal: Signal) {
        ProcessMark::of(self.pid()).unwrap().signal(signal);
    }

    /// Its exit code; minus the signal's number when one ended it.
    pub async fn ended(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt as _;
        let status = eventually("the worker ends", async || self.child.try_wait().unwrap()).await;
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        let signal = status.signal().map(|signal| -signal);
        status.code().or(signal).unwrap()
    }

    /// SIGTERM, and the exit code.
    pub async fn stop(&mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.ended().await
    }

    pub async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.ended().await;
    }

    /// Status and body of a page of its listener.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let address = eventually("the worker listens", async || {
            let words = self.words();
            let (_, rest) = words.split_once("metrics on http://")?;
            Some(rest.split_once('/')?.0.to_owned())
        })
        .await;
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// The sum of all series of this name that carry all of these labels; `None` without one.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let (_, page) = self.get("/metrics").await;
        let values: Vec<f64> = page
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    pub async fn until_metric(&self, name: &str, labels: &[&str], wanted: impl Fn(f64) -> bool) {
        eventually(&format!("{name}{labels:?}"), async || {
            self.metric(name, labels)
                .await
                .filter(|value| wanted(*value))
        })
        .await;
    }

    /// Memory in use, in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- worker {} said:\n{}", self.pid(), self.words());
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
