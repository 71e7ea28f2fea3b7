//! What a task's payload tells its handler to do, attempt by attempt.
//!
//! Orders are numbered by attempt and never by how often the task was started, so an attempt that a kill
//! cut short is repeated as it was. The last act holds for all attempts that follow.

use serde::{Deserialize, Serialize};

/// The payload of a planned task, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// The task's number in the plan; a repeat has that of the task it repeats.
    pub n: u32,
    /// What each attempt does, from the first on; never empty.
    pub acts: Vec<Act>,
}

/// What one attempt does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Succeeds at once.
    Ok,
    /// Succeeds after so many milliseconds.
    Slow(u32),
    /// Fails and leaves the delay to the policy.
    Fail,
    /// Fails and asks for a delay, in milliseconds.
    FailFor(u32),
    /// Fails for good.
    Permanent,
    /// Panics.
    Panic,
    /// Waits until it is told to stop.
    Hang,
    /// Aborts the whole process for so many starts, then succeeds.
    Abort(u32),
}

impl Act {
    /// Whether an attempt that does this, and is not interrupted, is the last one.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Ok | Self::Slow(_) | Self::Permanent | Self::Abort(_)
        )
    }
}

impl Orders {
    /// What attempt number `attempt` does, counted from 1.
    #[must_use]
    pub fn act(&self, attempt: u16) -> Act {
        let index = usize::from(attempt).saturating_sub(1);
        let act = self.acts.get(index).or(self.acts.last());
        act.copied().unwrap_or(Act::Ok)
    }

    /// The first attempt whose act is final; none when the attempts are to be used up.
    #[must_use]
    pub fn last_attempt(&self) -> Option<u16> {
        let index = self.acts.iter().position(|act| act.is_final())?;
        u16::try_from(index + 1).ok()
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        serde_json::json!(self).to_string().into_bytes()
    }

    /// The body of the result of a task that succeeds.
    #[must_use]
    pub fn answer(&self) -> String {
        format!("{{\"done\":{}}}", self.n)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::{Act, Orders};

    #[test]
    fn the_last_act_holds_for_all_attempts_that_follow() {
        let orders = Orders {
            n: 3,
            acts: vec![Act::Fail, Act::FailFor(20), Act::Slow(5)],
        };
        assert_eq!(orders.act(1), Act::Fail);
        assert_eq!(orders.act(9), Act::Slow(5));
        assert_eq!(orders.last_attempt(), Some(3));
        let again: Orders = serde_json::from_slice(&orders.payload()).unwrap();
        assert_eq!(again, orders);
    }

    #[test]
    fn attempts_that_only_fail_are_used_up() {
        let acts = vec![Act::Fail];
        assert_eq!(Orders { n: 0, acts }.last_attempt(), None);
    }
}
