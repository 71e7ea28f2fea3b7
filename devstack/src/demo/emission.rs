//! `producer emit` as a process that is watched.

use std::path::PathBuf;

use nix::sys::signal::Signal;

use super::place::Place;
use super::{DemoError, Plan};
use crate::process::{Lifetime, ServerProcess, ServerSpec, log_tail};

const NAME: &str = "the producer";

/// A sending that is going on.
pub struct Emission {
    process: ServerProcess,
    log: PathBuf,
}

impl Emission {
    /// Sends the file from this line on, each line with a dedup key of its own.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(plan: &Plan, place: &Place, from_line: usize) -> Result<Self, DemoError> {
        let mut command = place.command(plan.program("producer"));
        command
            .args(["emit", "--type", "edit", "--once"])
            .args(["--rate", &plan.rate.to_string()])
            .args(["--from-line", &from_line.to_string()])
            .arg(&plan.file);
        let log = plan.logs().join("producer.log");
        let spec = ServerSpec {
            name: NAME,
            stop_signal: Signal::SIGTERM,
            log: log.clone(),
            temp_dir: None,
            lifetime: Lifetime::Owned,
        };
        Ok(Self {
            process: ServerProcess::spawn(command, spec)?,
            log,
        })
    }

    /// Whether everything is sent and acknowledged.
    ///
    /// # Errors
    /// When the producer gave up, with the end of its log.
    pub fn ended(&mut self) -> Result<bool, DemoError> {
        match self.process.exited()? {
            None => Ok(false),
            Some(status) if status.success() => Ok(true),
            Some(status) => Err(DemoError::Ended {
                who: NAME,
                status: status.to_string(),
                log: self.log.clone(),
                tail: log_tail(&self.log),
            }),
        }
    }
}
