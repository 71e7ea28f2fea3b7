//! The workers of the demo: real `consumer run` processes, each with a log of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::place::Place;
use super::{DemoError, Plan};
use crate::process::{Lifetime, ServerProcess, ServerSpec, log_tail};
use crate::{DevstackError, ProcessMark};

/// The names of all workers that ever join.
pub const NAMES: [&str; 3] = ["worker 1", "worker 2", "worker 3"];

const STOP: Duration = Duration::from_secs(30);

/// One worker.
pub struct Worker {
    /// Its name on the screen.
    pub name: &'static str,
    process: ServerProcess,
    log: PathBuf,
}

impl Worker {
    /// Starts `consumer run`. It ends when this value is dropped, or when the demo is killed.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(plan: &Plan, place: &Place, name: &'static str) -> Result<Self, DemoError> {
        let session = plan.session();
        let mut command = place.command(plan.program("consumer"));
        command
            .args(["run", "--metrics-listen", "127.0.0.1:0"])
            .args(plan.reading())
            .args(["-X", &format!("session.timeout.ms={}", session.as_millis())])
            .args([
                "-X",
                &format!("heartbeat.interval.ms={}", session.as_millis() / 6),
            ]);
        let log = log_of(&plan.logs(), name);
        let spec = ServerSpec {
            name,
            stop_signal: Signal::SIGTERM,
            log: log.clone(),
            temp_dir: None,
            lifetime: Lifetime::Owned,
        };
        Ok(Self {
            name,
            process: ServerProcess::spawn(command, spec)?,
            log,
        })
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.process.mark().pid
    }

    /// Where it tells its metrics, once it has said so.
    pub fn metrics_url(&self) -> Option<String> {
        let text = fs::read_to_string(&self.log).ok()?;
        let (_, rest) = text.split_once("metrics on ")?;
        rest.lines().next().map(|url| url.trim().to_owned())
    }

    /// Events that it has read and whose outcome is not written, as it says itself. It looks
    /// twenty times a second.
    pub async fn in_flight(&self) -> Option<i64> {
        let url = self.metrics_url()?;
        let address = url.strip_prefix("http://")?.strip_suffix("/metrics")?;
        let text = scrape(address).await.ok()?;
        let (_, value) = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(name, _)| *name == "millrace_inflight_events")?;
        // Counts are far below 2^53, where a float is exact.
        value.trim().parse::<f64>().ok().map(|value| value as i64)
    }

    /// SIGKILL; returns once it is gone.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub async fn kill(self) -> Result<(), DevstackError> {
        self.process.kill().await
    }

    fn check(&mut self) -> Result<(), DemoError> {
        match self.process.check() {
            Err(DevstackError::ServerEnded { status, .. }) => Err(DemoError::Ended {
                who: self.name,
                status,
                log: self.log.clone(),
                tail: log_tail(&self.log),
            }),
            other => Ok(other?),
        }
    }
}

/// The workers that should be alive.
#[derive(Default)]
pub struct Crew(Vec<Worker>);

impl Crew {
    /// A worker joins.
    pub fn join(&mut self, worker: Worker) {
        self.0.push(worker);
    }

    /// Takes a worker out, to be killed.
    pub fn take(&mut self, name: &str) -> Option<Worker> {
        let index = self.0.iter().position(|worker| worker.name == name)?;
        Some(self.0.remove(index))
    }

    /// The workers.
    pub fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// # Errors
    /// When one has ended by itself, with the end of its log.
    pub fn check(&mut self) -> Result<(), DemoError> {
        self.0.iter_mut().try_for_each(Worker::check)
    }

    /// Stops all in good order.
    ///
    /// # Errors
    /// When one does not end in time.
    pub async fn stop(self) -> Result<(), DemoError> {
        for worker in self.0 {
            worker.process.stop(STOP).await?;
        }
        Ok(())
    }

    /// Lets all live on; names, processes and addresses of their metrics.
    pub fn leave_running(self) -> impl Iterator<Item = (&'static str, ProcessMark, String)> {
        self.0.into_iter().map(|worker| {
            let metrics = worker.metrics_url().unwrap_or_default();
            (worker.name, worker.process.leave_running(), metrics)
        })
    }
}

/// The log file of a worker.
pub fn log_of(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("{}.log", name.replace(' ', "-")))
}

async fn scrape(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())
        .await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}
