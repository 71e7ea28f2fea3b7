//! What follows a failed attempt: how long to wait for the next one, or that there is none.
//!
//! Guarantees to whoever runs tasks: a delay never exceeds the cap, and one that a handler asked for is
//! kept, up to [`LONGEST_WAIT`]; full jitter may pick any delay from zero to the exponential one; attempts
//! are bounded; and a task is given up for its age only here, that is, after an attempt that really ran and
//! failed. Age is made of running time and planned waits alone, so no outage ages a task.

use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

/// The longest wait before an attempt. A task for later than that is better submitted later.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The longest age limit and timeout: whoever writes more has mistaken the unit.
const LONGEST_AGE: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The longest of those times for which something else has to wait.
const LONGEST_PATIENCE: Duration = Duration::from_secs(60 * 60);
/// Shorter times than this are spent by the machinery itself.
const SHORTEST: Duration = Duration::from_millis(1);
/// As many attempts as the table can count.
const MOST_ATTEMPTS: u16 = i16::MAX.unsigned_abs();

/// Whom the tasks of a type wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Earlier tasks of the same tenant and key.
    #[default]
    Key,
    /// Every earlier task of this mode in the partition. They are never parked: the partition pauses.
    Partition,
    /// Nobody.
    Unordered,
}

/// How the tasks of one type are tried, and tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whom they wait for. By key, since that is what callers give keys for.
    pub mode: Mode,
    /// Attempts that may fail before the task is a dead letter. 10: with the other defaults, the waits add
    /// up to four minutes on average, which outlasts the restart of a system behind the handler.
    pub max_attempts: u16,
    /// A task older than this is a dead letter as soon as an attempt fails. 24 hours: enough for people to
    /// mend the other side; beyond it, most results are wanted by nobody.
    pub max_age: Duration,
    /// The most that the first wait can be; it doubles with each attempt. 1 second: longer than a
    /// connection takes to come back, shorter than a person waits.
    pub backoff_base: Duration,
    /// The most that any backoff can be. 10 minutes: a system that is back gets its work within that time.
    pub backoff_cap: Duration,
    /// How long an attempt may run. None: nobody but the handler's author knows.
    pub timeout: Option<Duration>,
    /// How long an attempt may go on once it was cancelled; then it is abandoned. 5 seconds: time to
    /// roll back a remote call, and short beside the time that a shutdown may take.
    pub grace: Duration,
    /// Attempts of this type that run at once in one worker. None: only the worker's own limit holds.
    pub max_in_flight: Option<usize>,
    /// Waits longer than this are spent in the database instead of in memory. 5 seconds: the first few
    /// backoffs cost no write, and the frontier of the partition does not stand still for longer.
    pub park_after: Duration,
    /// An attempt that runs longer than this gets a row of its own, so that the frontier can move on. 10
    /// seconds: it bounds how much of the log is read again after a crash, and ordinary work never writes.
    pub run_long_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Key,
            max_attempts: 10,
            max_age: Duration::from_secs(24 * 60 * 60),
            backoff_base: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(10 * 60),
            timeout: None,
            grace: Duration::from_secs(5),
            max_in_flight: None,
            park_after: Duration::from_secs(5),
            run_long_after: Duration::from_secs(10),
        }
    }
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Another attempt, so much later.
    Wait(Duration),
    /// A dead letter.
    Exhausted(Why),
}

/// Which limit a task has come up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The number of attempts.
    Attempts,
    /// The age.
    Age,
}

/// A policy that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field} is {value}; it must be {right}")]
pub struct PolicyError {
    /// The field, by its name in [`Policy`].
    pub field: &'static str,
    /// What it is.
    pub value: String,
    /// What would be right.
    pub right: &'static str,
}

impl Policy {
    /// Decides what follows an attempt that failed.
    ///
    /// `attempts` counts those that failed, this one included; `age` is the time that the task has spent
    /// running and in planned waits; `asked` is the delay that the handler wants; `chance` is drawn evenly
    /// from 0 to 1.
    #[must_use]
    pub fn after_failure(
        &self,
        attempts: u16,
        age: Duration,
        asked: Option<Duration>,
        chance: f64,
    ) -> Verdict {
        if attempts >= self.max_attempts {
            return Verdict::Exhausted(Why::Attempts);
        }
        if age >= self.max_age {
            return Verdict::Exhausted(Why::Age);
        }
        let wait = asked.unwrap_or_else(|| jittered(self.backoff(attempts), chance));
        Verdict::Wait(wait.min(LONGEST_WAIT))
    }

    /// Whether a task spends this wait in the database instead of in memory.
    #[must_use]
    pub fn parks(&self, wait: Duration) -> bool {
        self.mode != Mode::Partition && wait > self.park_after
    }

    /// The longest backoff after so many failed attempts.
    fn backoff(&self, attempts: u16) -> Duration {
        let doubled = 2_u32.saturating_pow(u32::from(attempts.saturating_sub(1)));
        self.backoff_base
            .saturating_mul(doubled)
            .min(self.backoff_cap)
    }

    /// Checks every field, each against its own bounds and the backoff's two against each other.
    ///
    /// # Errors
    /// [`PolicyError`] about the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), PolicyError> {
        if self.max_attempts == 0 || self.max_attempts > MOST_ATTEMPTS {
            let value = self.max_attempts.to_string();
            return Err(refused("max_attempts", value, "from 1 to 32767"));
        }
        within(
            "max_age",
            self.max_age,
            SHORTEST..=LONGEST_AGE,
            "from 1ms to 365 days",
        )?;
        within(
            "backoff_base",
            self.backoff_base,
            SHORTEST..=LONGEST_WAIT,
            "from 1ms to 30 days",
        )?;
        within(
            "backoff_cap",
            self.backoff_cap,
            self.backoff_base..=LONGEST_WAIT,
            "from backoff_base to 30 days",
        )?;
        if let Some(timeout) = self.timeout {
            within(
                "timeout",
                timeout,
                SHORTEST..=LONGEST_AGE,
                "from 1ms to 365 days",
            )?;
        }
        let patience = Duration::ZERO..=LONGEST_PATIENCE;
        within("grace", self.grace, patience.clone(), "at most 1h")?;
        if self.max_in_flight == Some(0) {
            return Err(refused("max_in_flight", "0".to_owned(), "at least 1"));
        }
        within("park_after", self.park_after, patience, "at most 1h")?;
        within(
            "run_long_after",
            self.run_long_after,
            SHORTEST..=LONGEST_PATIENCE,
            "from 1ms to 1h",
        )
    }
}

/// Any duration up to `most`, by chance; total for every number, since a wait must never be a panic.
fn jittered(most: Duration, chance: f64) -> Duration {
    let chance = if chance.is_nan() {
        1.0
    } else {
        chance.clamp(0.0, 1.0)
    };
    Duration::try_from_secs_f64(most.as_secs_f64() * chance)
        .unwrap_or(most)
        .min(most)
}

fn within(
    field: &'static str,
    value: Duration,
    bounds: std::ops::RangeInclusive<Duration>,
    right: &'static str,
) -> Result<(), PolicyError> {
    if bounds.contains(&value) {
        return Ok(());
    }
    let value = humantime::format_duration(value).to_string();
    Err(refused(field, value, right))
}

fn refused(field: &'static str, value: String, right: &'static str) -> PolicyError {
    PolicyError {
        field,
        value,
        right,
    }
}
