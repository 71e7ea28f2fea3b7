//! The workers of a round: started, killed, frozen, replaced, and told to go.
//!
//! A worker's role, process number and log are its own, so that every note of the database and every line of
//! the journal leads to one process. A worker that ends by itself is noted and replaced.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use millrace_devstack::ProcessMark;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::error::ChaosError;
use crate::journal::{Event, Journal};
use crate::place::{Place, end_of};
use crate::plan::Handlers;
use crate::servers::Servers;

/// Sessions short enough for a round, and a client that comes back soon.
const CLIENT: [&str; 4] = [
    "session.timeout.ms=1000",
    "heartbeat.interval.ms=250",
    "reconnect.backoff.ms=20",
    "reconnect.backoff.max.ms=500",
];
/// Workers of a round, one after another.
pub const MOST_WORKERS: usize = 100;
/// A partition that stands still for so long, with nothing to hold it up, ends its worker, which is a complaint.
const STUCK_AFTER: &str = "40s";
const LEAVE: Duration = Duration::from_secs(30);

/// A running worker. Dropping it kills it.
pub struct Worker {
    /// Its role at the database.
    pub role: String,
    /// Its process number.
    pub pid: u32,
    child: Child,
    mark: ProcessMark,
    log: PathBuf,
}

/// The workers of a round, past and present.
pub struct Crew {
    place: Place,
    journal: Journal,
    slots: Vec<Option<Worker>>,
    /// More workers than that, one after another, do not stay alive for some other reason than ours.
    most: usize,
    /// Roles and process numbers of all that ever ran.
    known: Vec<(String, u32)>,
    /// How workers ended that were not told to.
    surprises: Vec<String>,
}

impl Crew {
    /// No workers yet, in so many slots; at most `most` of them, one after another.
    ///
    /// # Errors
    /// When the journal cannot be opened.
    pub fn new(place: Place, slots: usize, most: usize) -> Result<Self, ChaosError> {
        let journal = open_journal(&place.journal())?;
        Ok(Self {
            place,
            journal,
            slots: std::iter::repeat_with(|| None).take(slots).collect(),
            most,
            known: Vec::new(),
            surprises: Vec::new(),
        })
    }

    /// Notes something in the journal.
    pub fn note(&self, text: impl Into<String>) {
        // A note that is missing changes no verdict.
        let _ = self.journal.write(&Event::Note(text.into()));
    }

    /// Starts a worker in every empty slot, and notes those that ended by themselves.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn fill(&mut self, servers: &Servers) -> Result<(), ChaosError> {
        for index in 0..self.slots.len() {
            self.notice(index);
            if matches!(self.slots.get(index), Some(None)) {
                let worker = self.start(servers)?;
                if let Some(slot) = self.slots.get_mut(index) {
                    *slot = Some(worker);
                }
            }
        }
        Ok(())
    }

    /// One more slot, with a worker; its index.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn join(&mut self, servers: &Servers) -> Result<usize, ChaosError> {
        let worker = self.start(servers)?;
        self.slots.push(Some(worker));
        Ok(self.slots.len() - 1)
    }

    /// SIGKILL to the worker of a slot, which is empty then. False when there was none, or it had ended by itself,
    /// which is noted.
    pub fn kill(&mut self, slot: usize) -> bool {
        self.notice(slot);
        let Some(worker) = self.slots.get_mut(slot).and_then(Option::take) else {
            return false;
        };
        let (role, log) = (worker.role.clone(), worker.log.clone());
        // It may have been faster.
        match self.bury(worker) {
            Some(status) if status.signal() != Some(Signal::SIGKILL as i32) => {
                self.surprise(&role, status, &log);
                false
            }
            _ => true,
        }
    }

    /// SIGKILL to the worker of the last slot, and the slot goes.
    pub fn shrink_by_kill(&mut self) {
        self.kill(self.slots.len() - 1);
        self.slots.pop();
    }

    /// SIGTERM to the worker of the last slot, and the slot goes; the worker, still on its way out.
    pub fn shrink(&mut self) -> Option<Worker> {
        let worker = self.slots.pop().flatten()?;
        worker.mark.signal(Signal::SIGTERM);
        Some(worker)
    }

    /// The processes of all slots, or of one.
    #[must_use]
    pub fn processes(&self, slot: Option<usize>) -> Vec<ProcessMark> {
        let chosen = |(index, worker): (usize, &Option<Worker>)| {
            let worker = worker.as_ref()?;
            slot.is_none_or(|slot| slot == index).then_some(worker.mark)
        };
        self.slots.iter().enumerate().filter_map(chosen).collect()
    }

    /// SIGKILL to all; every slot is empty then.
    pub fn kill_all(&mut self) {
        for slot in 0..self.slots.len() {
            self.kill(slot);
        }
    }

    /// SIGTERM to all, and waits for their end. Says how those ended that did not end in order.
    pub async fn dismiss_all(&mut self) -> Vec<String> {
        let leaving: Vec<Worker> = self.slots.iter_mut().filter_map(Option::take).collect();
        for worker in &leaving {
            worker.mark.signal(Signal::SIGTERM);
        }
        let mut complaints = Vec::new();
        for worker in leaving {
            complaints.extend(self.see_off(worker).await);
        }
        complaints
    }

    /// Waits for a worker that was told to go; a complaint when it did not go in order and in time.
    pub async fn see_off(&mut self, mut worker: Worker) -> Option<String> {
        let deadline = Instant::now() + LEAVE;
        let complaint = loop {
            match worker.ended() {
                Some(status) if status.success() || self.is_ordered(status) => break None,
                // It had not come so far as to listen for the signal.
                Some(status) if status.signal() == Some(Signal::SIGTERM as i32) => break None,
                Some(status) => {
                    let end = end_of(&worker.log);
                    break Some(format!("{} left with {status}; {end}", worker.role));
                }
                None if Instant::now() >= deadline => {
                    break Some(format!(
                        "{} did not leave within {} s of SIGTERM",
                        worker.role,
                        LEAVE.as_secs()
                    ));
                }
                None => sleep(Duration::from_millis(20)).await,
            }
        };
        self.bury(worker);
        complaint
    }

    /// Roles and process numbers of all workers that ever ran.
    #[must_use]
    pub fn known(&self) -> &[(String, u32)] {
        &self.known
    }

    /// How often the workers' logs say this.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn count_in_logs(&self, words: &str) -> Result<usize, ChaosError> {
        let mut count = 0;
        for log in self.logs() {
            let text =
                std::fs::read_to_string(log).map_err(ChaosError::io("read a worker's log"))?;
            count += text.matches(words).count();
        }
        Ok(count)
    }

    /// The logs of all workers that ever ran.
    #[must_use]
    pub fn logs(&self) -> Vec<PathBuf> {
        let numbers = 1..=self.known.len();
        numbers.map(|number| self.log(number)).collect()
    }

    fn log(&self, number: usize) -> PathBuf {
        self.place.dir.join(format!("worker-{number}.log"))
    }

    /// How workers ended that nobody had told to.
    #[must_use]
    pub fn surprises(&self) -> &[String] {
        &self.surprises
    }

    /// Takes the worker of a slot out if it ended by itself, and notes how.
    fn notice(&mut self, slot: usize) {
        let Some(Some(worker)) = self.slots.get_mut(slot) else {
            return;
        };
        let Some(status) = worker.ended() else {
            return;
        };
        let Some(worker) = self.slots.get_mut(slot).and_then(Option::take) else {
            return;
        };
        let (role, log) = (worker.role.clone(), worker.log.clone());
        self.bury(worker);
        self.surprise(&role, status, &log);
    }

    fn surprise(&mut self, role: &str, status: ExitStatus, log: &Path) {
        let words = format!("{role} ended by itself: {status}");
        self.note(words.as_str());
        if !self.is_ordered(status) {
            self.surprises.push(format!("{words}; {}", end_of(log)));
        }
    }

    /// Whether a worker may end so: an abort is in the orders of some tasks, where the handlers take orders.
    fn is_ordered(&self, status: ExitStatus) -> bool {
        self.place.handlers == Handlers::Planned && status.signal() == Some(Signal::SIGABRT as i32)
    }

    /// The process is gone before its death is noted, so no line of it can follow. How it ended.
    fn bury(&mut self, mut worker: Worker) -> Option<ExitStatus> {
        let status = worker.end();
        let _ = self.journal.write(&Event::Death { pid: worker.pid });
        status
    }

    fn start(&mut self, servers: &Servers) -> Result<Worker, ChaosError> {
        let number = self.known.len() + 1;
        if number > self.most {
            return Err(ChaosError::TooManyWorkers {
                most: self.most,
                logs: self.place.dir.clone(),
            });
        }
        let role = self.place.role(number);
        let program = match self.place.handlers {
            Handlers::Planned => "chaos-worker",
            Handlers::Stock => "consumer",
        };
        let mut command = self.place.command(servers, program);
        command
            .env("KAFKA_BOOTSTRAP_SERVERS", servers.bootstrap_by_line())
            .env("DATABASE_URL", servers.database_url_by_line(&role))
            .env("CHAOS_DIR", &self.place.dir)
            .env(
                "RUST_LOG",
                "info,librdkafka=warn,millrace_consumer::source::alone=debug",
            );
        if self.place.handlers == Handlers::Stock {
            command.arg("run");
        }
        for property in CLIENT {
            command.args(["-X", property]);
        }
        command.args([
            "--metrics-listen",
            "127.0.0.1:0",
            "--stuck-after",
            STUCK_AFTER,
        ]);
        let log = self.log(number);
        let output = File::create(&log).map_err(ChaosError::io("make a worker's log"))?;
        let child = command
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .map_err(ChaosError::io(format!("start {program}")))?;
        let pid = child.id();
        let Some(mark) = ProcessMark::of(pid) else {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(ChaosError::Command {
                command: program.to_owned(),
                status: "ended at once".to_owned(),
                output: text,
            });
        };
        self.note(format!("worker {number} started as {pid}"));
        self.known.push((role.clone(), pid));
        Ok(Worker {
            role,
            pid,
            child,
            mark,
            log,
        })
    }
}

impl Worker {
    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    fn end(&mut self) -> Option<ExitStatus> {
        // Fails only when it has been waited for already.
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

fn open_journal(path: &Path) -> Result<Journal, ChaosError> {
    Journal::open(path).map_err(ChaosError::io("open the journal"))
}
