//! What the command prints: a round at a time, and a summary at the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tokio::time::Instant;

use crate::checker::{Law, Verdict};
use crate::round::Played;

/// Of each law so many breaches are printed; all of them are in the round's folder.
const SHOWN: usize = 4;

/// All rounds together.
#[derive(Debug, Default)]
pub struct Summary {
    rounds: u32,
    broken: Vec<u64>,
    injected: BTreeMap<&'static str, u32>,
    checks: BTreeMap<Law, u64>,
    tasks: usize,
    attempts: usize,
}

/// Writes down all that was broken, and the tables as they are, into the round's folder.
///
/// # Errors
/// When a file cannot be written.
pub fn keep(
    played: &Played,
    verdict: &Verdict,
    tables: &[(String, String)],
) -> std::io::Result<()> {
    for (name, rows) in tables {
        std::fs::write(played.place.dir.join(format!("{name}.ndjson")), rows)?;
    }
    let lines: String = verdict
        .violations
        .iter()
        .map(|violation| format!("{violation}\n"))
        .collect();
    std::fs::write(played.place.dir.join("verdict"), lines)
}

impl Summary {
    /// Takes a round in that began and was judged at these times; what to print of it.
    pub fn round(
        &mut self,
        played: &Played,
        verdict: &Verdict,
        (began, judged): (Instant, Instant),
    ) -> String {
        let seconds = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64();
        self.rounds += 1;
        for (kind, times) in &played.injected {
            *self.injected.entry(kind).or_default() += times;
        }
        for (law, times) in &verdict.checks {
            *self.checks.entry(*law).or_default() += times;
        }
        self.tasks += verdict.tasks;
        self.attempts += verdict.attempts;
        let mut text = format!(
            "round {} seed {}: {} in {:.1} s (start {:.1}, storm {:.1}, workers leave {:.1}, calm {:.1}, \
             workers leave {:.1}, judgement {:.1})\n  \
             tasks {}, attempts {}, workers {}, flushes refused by the fence {}, law 2 samples {}\n  faults: {}\n  laws: {}",
            self.rounds,
            played.plan.seed,
            if verdict.violations.is_empty() {
                "every law held"
            } else {
                "BROKEN"
            },
            seconds(began, judged),
            seconds(began, played.times.storm),
            seconds(played.times.storm, played.times.healed),
            seconds(played.times.healed, played.times.calm),
            seconds(played.times.calm, played.times.settled),
            seconds(played.times.settled, played.times.ended),
            seconds(played.times.ended, judged),
            verdict.tasks,
            verdict.attempts,
            played.workers.len(),
            played.fenced,
            played.law_two.offsets,
            faults(&played.injected),
            laws(&verdict.checks),
        );
        if !verdict.violations.is_empty() {
            self.broken.push(played.plan.seed);
            let mut shown: BTreeMap<Law, usize> = BTreeMap::new();
            for violation in &verdict.violations {
                let of_this_law = shown.entry(violation.law).or_default();
                *of_this_law += 1;
                if *of_this_law <= SHOWN {
                    // Writing to a string cannot fail.
                    let _ = write!(text, "\n  {violation}");
                }
            }
            for (law, times) in shown {
                let _ = write!(text, "\n  law {} was broken {times} times", law as u8);
            }
            let _ = write!(text, "\n  evidence: {}", played.place.dir.display());
        }
        text
    }

    /// Whether every law held in every round.
    #[must_use]
    pub fn all_held(&self) -> bool {
        self.broken.is_empty()
    }

    /// The end of the report.
    #[must_use]
    pub fn text(&self) -> String {
        let verdict = if self.all_held() {
            "every law held".to_owned()
        } else {
            let seeds: Vec<String> = self.broken.iter().map(u64::to_string).collect();
            format!(
                "LAWS BROKEN in {} of them, seeds {}",
                self.broken.len(),
                seeds.join(", ")
            )
        };
        format!(
            "{} rounds: {verdict}\n  tasks {}, attempts {}\n  faults: {}\n  laws: {}",
            self.rounds,
            self.tasks,
            self.attempts,
            faults(&self.injected),
            laws(&self.checks)
        )
    }
}

fn faults(injected: &BTreeMap<&'static str, u32>) -> String {
    let words: Vec<String> = injected
        .iter()
        .map(|(kind, times)| format!("{kind} {times}"))
        .collect();
    words.join(", ")
}

fn laws(checks: &BTreeMap<Law, u64>) -> String {
    let words: Vec<String> = checks
        .iter()
        .map(|(law, times)| format!("{} ×{times}", *law as u8))
        .collect();
    words.join(", ")
}
