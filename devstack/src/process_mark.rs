//! A process that is told from a later one with the same number.
//!
//! The number alone may be reused; together with the start time from `/proc` it names one
//! process for as long as the machine is up. Used to end servers that a former command left in
//! the background, without ever signalling a stranger.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

const POLL: Duration = Duration::from_millis(10);

/// One process: its number and when it started, in clock ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMark {
    /// The process number.
    pub pid: u32,
    started: u64,
}

impl ProcessMark {
    /// Marks a process that runs now; `None` when there is none with this number.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        (!stat.zombie).then_some(Self {
            pid,
            started: stat.started,
        })
    }

    /// True while this very process runs. A zombie does not run.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// The processes that this one started and that still run.
    #[must_use]
    pub fn children(&self) -> Vec<Self> {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| Stat::read(*pid).is_some_and(|stat| stat.parent == self.pid))
            .filter_map(Self::of)
            .collect()
    }

    /// Signals the process if it still runs.
    pub fn signal(&self, signal: Signal) {
        if let (true, Ok(pid)) = (self.is_alive(), i32::try_from(self.pid)) {
            // A process that ended between the check and the signal is what was wanted anyway.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Waits until the process is gone; false when it still runs after `limit`.
    pub async fn gone_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(POLL).await;
        }
        true
    }

    /// Asks the process to end with `signal`, and ends it with SIGKILL after `limit`.
    pub async fn stop(&self, signal: Signal, limit: Duration) {
        self.signal(signal);
        if !self.gone_within(limit).await {
            self.signal(Signal::SIGKILL);
            self.gone_within(Duration::from_secs(5)).await;
        }
    }
}

struct Stat {
    parent: u32,
    started: u64,
    zombie: bool,
}

impl Stat {
    /// Fields 3, 4 and 22 of `/proc/PID/stat`, see proc(5).
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may itself hold spaces and parentheses.
        let (_, fields) = text.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self {
            parent,
            started,
            zombie: matches!(state, "Z" | "X"),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::expect_used, reason = "a failed step fails the test")]
    use super::*;

    #[test]
    fn this_process_is_alive_and_an_earlier_one_with_its_number_is_not() {
        let me = ProcessMark::of(std::process::id()).expect("this process runs");
        assert!(me.is_alive());
        let earlier = ProcessMark {
            started: me.started - 1,
            ..me
        };
        assert!(!earlier.is_alive());
    }
}
