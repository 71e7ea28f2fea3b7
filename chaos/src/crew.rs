//! The workers of a round: started, killed, frozen, replaced, and told to go.
//!
//! A worker's role, process number and log are its own, so that every note of the database and every line of
//! the journal leads to one process. A worker that ends by itself is noted and replaced.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use millrace_devstack::ProcessMark;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::error::ChaosError;
use crate::journal::{Event, Journal};
use crate::place::Place;
use crate::plan::Handlers;
use crate::servers::Servers;

/// Sessions short enough for a round, and a client that comes back soon.
const CLIENT: [&str; 4] = [
    "session.timeout.ms=1000",
    "heartbeat.interval.ms=250",
    "reconnect.backoff.ms=20",
    "reconnect.backoff.max.ms=500",
];
/// Workers of a round, one after another: more than that do not stay alive for some other reason.
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
}

/// The workers of a round, past and present.
pub struct Crew {
    place: Place,
    journal: Journal,
    slots: Vec<Option<Worker>>,
    /// Roles and process numbers of all that ever ran.
    known: Vec<(String, u32)>,
    /// How workers ended that were not told to.
    surprises: Vec<String>,
}

impl Crew {
    /// No workers yet, in so many slots.
    ///
    /// # Errors
    /// When the journal cannot be opened.
    pub fn new(place: Place, slots: usize) -> Result<Self, ChaosError> {
        let journal = open_journal(&place.journal())?;
        Ok(Self {
            place,
            journal,
            slots: std::iter::repeat_with(|| None).take(slots).collect(),
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
            let ended = match self.slots.get_mut(index) {
                Some(Some(worker)) => worker.ended().map(|status| (worker.role.clone(), status)),
                _ => None,
            };
            if let Some((role, status)) = ended {
                self.take_out(index);
                let words = format!("{role} ended by itself: {status}");
                self.note(words.as_str());
                // An abort is in the orders of some tasks.
                if status.signal() != Some(Signal::SIGABRT as i32) {
                    self.surprises.push(words);
                }
            }
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

    /// SIGKILL to the worker of a slot, which is empty then.
    pub fn kill(&mut self, slot: usize) {
        self.take_out(slot);
    }

    /// SIGKILL to the worker of the last slot, and the slot goes.
    pub fn shrink_by_kill(&mut self) {
        self.take_out(self.slots.len() - 1);
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
            self.take_out(slot);
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
                Some(status) if status.success() => break None,
                // It had not come so far as to listen for the signal; or a task aborted it, as ordered.
                Some(status)
                    if [Signal::SIGTERM, Signal::SIGABRT]
                        .iter()
                        .any(|signal| status.signal() == Some(*signal as i32)) =>
                {
                    break None;
                }
                Some(status) => break Some(format!("{} left with {status}", worker.role)),
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
        for number in 1..=self.known.len() {
            let log = self.place.dir.join(format!("worker-{number}.log"));
            let text =
                std::fs::read_to_string(log).map_err(ChaosError::io("read a worker's log"))?;
            count += text.matches(words).count();
        }
        Ok(count)
    }

    /// How workers ended that nobody had told to.
    #[must_use]
    pub fn surprises(&self) -> &[String] {
        &self.surprises
    }

    fn take_out(&mut self, slot: usize) {
        if let Some(worker) = self.slots.get_mut(slot).and_then(Option::take) {
            self.bury(worker);
        }
    }

    /// The process is gone before its death is noted, so no line of it can follow.
    fn bury(&mut self, mut worker: Worker) {
        worker.end();
        let _ = self.journal.write(&Event::Death { pid: worker.pid });
    }

    fn start(&mut self, servers: &Servers) -> Result<Worker, ChaosError> {
        let number = self.known.len() + 1;
        if number > MOST_WORKERS {
            return Err(ChaosError::TooManyWorkers {
                most: MOST_WORKERS,
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
        let log = self.place.dir.join(format!("worker-{number}.log"));
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
        })
    }
}

impl Worker {
    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    fn end(&mut self) {
        // Both fail only when it has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
