//! What came of a round, and whether it was one: where almost nothing was accepted, nothing is proved.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::judge::Evidence;
use super::told::{Count, Kind, Told};

/// Of what is not as promised so much is printed.
const SHOWN: usize = 8;
/// Tasks that have to be accepted in each second of the storm.
const ACCEPTED_A_SECOND: u64 = 5;
/// Seconds of the storm in which each kind of request and of wait has to come to its end once.
const ONE_OF_EACH: u64 = 4;

/// See the module.
#[derive(Debug)]
pub struct Verdict {
    /// How often each front door was killed.
    pub doors_killed: Vec<usize>,
    /// How often the worker of each place was killed.
    pub workers_killed: Vec<usize>,
    /// How often callers did what.
    pub counts: BTreeMap<Kind, Count>,
    /// Tasks that were accepted.
    pub accepted: usize,
    /// Of these, those that had to wait for their time.
    pub delayed: usize,
    /// Idempotency keys that were answered with an id.
    pub keys: usize,
    /// Tasks in the log.
    pub in_log: usize,
    /// Of these, those that nobody was told the acceptance of.
    pub unpromised: usize,
    /// What is not as promised.
    pub violations: Vec<String>,
}

impl Verdict {
    pub(super) fn new(
        (doors_killed, workers_killed): (Vec<usize>, Vec<usize>),
        told: Told,
        evidence: Evidence,
    ) -> Self {
        let is_delayed = |task: &&super::task::Task| task.run_at.is_some();
        Self {
            doors_killed,
            workers_killed,
            accepted: told.accepted.len(),
            delayed: told.accepted.values().filter(is_delayed).count(),
            keys: told.by_key.len(),
            in_log: evidence.in_log,
            unpromised: evidence.unpromised,
            violations: [told.violations, evidence.violations].concat(),
            counts: told.counts,
        }
    }

    /// What is too little for a storm of this length.
    pub(super) fn too_little(&self, storm: Duration) -> Vec<String> {
        let mut violations = Vec::new();
        let least = storm.as_secs() * ACCEPTED_A_SECOND;
        if (self.accepted as u64) < least {
            let accepted = self.accepted;
            violations.push(format!(
                "{accepted} tasks were accepted, which is too little to judge by: {least} at least"
            ));
        }
        let least = (storm.as_secs() / ONE_OF_EACH).max(1);
        for kind in Kind::ALL {
            let answered = self.count(kind).answered as u64;
            if answered < least {
                let name = kind.name();
                violations.push(format!(
                    "{name}: {answered} came to their end, which is too little to judge by: {least} at least"
                ));
            }
        }
        let cut: usize = self.counts.values().map(|count| count.cut).sum();
        let least: usize = self.doors_killed.iter().sum();
        if cut < least {
            violations.push(format!(
                "{cut} requests were cut by {least} kills of front doors, which is too little to judge by"
            ));
        }
        for (what, killed) in [
            ("front door", &self.doors_killed),
            ("worker", &self.workers_killed),
        ] {
            for (index, _) in killed.iter().enumerate().filter(|(_, times)| **times == 0) {
                violations.push(format!("{what} {} was never killed", index + 1));
            }
        }
        violations
    }

    fn count(&self, kind: Kind) -> Count {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    fn table(&self, f: &mut fmt::Formatter<'_>, waits: bool) -> fmt::Result {
        let (what, answered, reused) = if waits {
            ("waited for", "told", "")
        } else {
            ("handed over", "accepted", "422")
        };
        write!(
            f,
            "\n  {what:34} {:>7} {answered:>9} {reused:>6} {:>11} {:>6} {:>6}",
            "tasks", "come again", "cut", "down"
        )?;
        for kind in Kind::ALL.into_iter().filter(|kind| kind.waits() == waits) {
            let count = self.count(kind);
            let reused = if waits {
                String::new()
            } else {
                count.reused.to_string()
            };
            write!(
                f,
                "\n    {:32} {:>7} {:>9} {reused:>6} {:>11} {:>6} {:>6}",
                kind.name(),
                count.begun,
                count.answered,
                count.later,
                count.cut,
                count.down
            )?;
        }
        Ok(())
    }
}

/// Each one's number and their sum.
fn sum(of: &[usize]) -> String {
    let each: Vec<String> = of.iter().map(usize::to_string).collect();
    format!("{} ({})", of.iter().sum::<usize>(), each.join(" + "))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_kept = self.violations.is_empty();
        write!(
            f,
            "front doors: {}\n  killed: {} front doors, {} workers{}",
            if is_kept {
                "every promise was kept"
            } else {
                "BROKEN"
            },
            sum(&self.doors_killed),
            sum(&self.workers_killed),
            if is_kept {
                "; none ended by itself"
            } else {
                ""
            },
        )?;
        self.table(f, false)?;
        self.table(f, true)?;
        let (accepted, delayed, keys) = (self.accepted, self.delayed, self.keys);
        let (in_log, unpromised) = (self.in_log, self.unpromised);
        if is_kept {
            write!(
                f,
                "\n  {accepted} tasks were accepted, {delayed} of them for later: each is in the log and has exactly \
                 one result, a success, and whoever waited for it was told\
                 \n  {in_log} tasks are in the log, {unpromised} of them with nobody told: each has exactly one result\
                 \n  {keys} idempotency keys were answered: each names one task\
                 \n  every connection that broke was to a front door that was killed; every other answer was one, or a \
                 documented refusal"
            )?;
        } else {
            write!(
                f,
                "\n  {accepted} tasks were accepted, {delayed} of them for later; {in_log} are in the log; {keys} \
                 idempotency keys were answered; {} things are not as promised:",
                self.violations.len()
            )?;
        }
        for violation in self.violations.iter().take(SHOWN) {
            write!(f, "\n  - {violation}")?;
        }
        match self.violations.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_in_which_little_went_through_or_one_was_spared_is_no_proof() {
        let count = Count {
            answered: 15,
            cut: 1,
            ..Count::default()
        };
        let mut verdict = Verdict {
            doors_killed: vec![3, 3],
            workers_killed: vec![2, 2, 2],
            counts: Kind::ALL.into_iter().map(|kind| (kind, count)).collect(),
            accepted: 300,
            delayed: 100,
            keys: 150,
            in_log: 310,
            unpromised: 10,
            violations: Vec::new(),
        };
        let storm = Duration::from_secs(60);
        let nothing: Vec<String> = Vec::new();
        assert_eq!(verdict.too_little(storm), nothing);
        verdict.accepted = 299;
        verdict.workers_killed = vec![3, 3, 0];
        verdict.counts.remove(&Kind::Events);
        assert_eq!(verdict.too_little(storm).len(), 3);
        verdict.doors_killed = vec![30, 30];
        assert_eq!(verdict.too_little(storm).len(), 4);
    }
}
