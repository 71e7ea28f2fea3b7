//! What is claimed, and whether the figures bear it out.

use std::fmt::Write as _;

use serde::Serialize;

use crate::measurements::Figures;

/// What a figure is to reach.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
    Under(f64),
}

/// A figure and its goal.
#[derive(Debug, Serialize)]
pub struct Claim {
    what: &'static str,
    goal: Goal,
    measured: Option<f64>,
    met: Option<bool>,
}

/// All claims; what was not measured is neither met nor missed.
pub fn of(figures: &Figures) -> Vec<Claim> {
    use Goal::{AtLeast, AtMost, Under};
    let all: [(&'static str, Option<f64>, Goal); 15] = [
        (
            "pipeline / copy, one connection",
            figures.ratio_pipeline_to_copy,
            AtLeast(0.7),
        ),
        (
            "pipeline with dedup keys / pipeline",
            figures.ratio_dedup_to_pipeline(),
            AtLeast(0.5),
        ),
        (
            "emit / bare produce",
            figures.ratio_emit_to_produce(),
            AtLeast(0.7),
        ),
        ("latency p99, ms", figures.latency_p99_ms, Under(25.0)),
        (
            "worker's peak memory, MiB",
            figures.worker_peak_rss_mib,
            Under(150.0),
        ),
        (
            "lanes, ledger, outcome; tasks/s",
            figures.lanes_core_tasks_per_s,
            AtLeast(250_000.0),
        ),
        (
            "  with executor and empty handler; tasks/s",
            figures.lanes_executor_tasks_per_s,
            AtLeast(250_000.0),
        ),
        (
            "pipeline with an empty handler / pipeline",
            figures.lanes_ratio_to_pipeline,
            AtLeast(0.8),
        ),
        (
            "1,000 keys, 10,000 tasks, s",
            figures.lanes_1000_keys_seconds,
            Under(1.0),
        ),
        (
            "100 keys, 10,000 tasks, s",
            figures.lanes_100_keys_seconds,
            Under(1.3),
        ),
        (
            "1 key, 10,000 tasks / inside the handlers",
            figures.lanes_1_key_ratio_to_handlers,
            AtMost(1.1),
        ),
        (
            "front door, one task a request; tasks/s",
            figures.door_single_tasks_per_s,
            AtLeast(10_000.0),
        ),
        (
            "front door, 100 a request; tasks/s",
            figures.door_bulk100_tasks_per_s,
            AtLeast(60_000.0),
        ),
        (
            "front door, submit to result, p99, ms",
            figures.door_result_p99_ms,
            Under(30.0),
        ),
        (
            "front door, 10,000 waiters, MiB",
            figures.door_waiters_rss_mib,
            Under(200.0),
        ),
    ];
    all.into_iter()
        .map(|(what, measured, goal)| Claim {
            what,
            goal,
            measured,
            met: measured.map(|value| match goal {
                AtLeast(least) => value >= least,
                AtMost(most) => value <= most,
                Under(limit) => value < limit,
            }),
        })
        .collect()
}

/// The claims that were measured, one a line.
///
/// # Errors
/// Never in practice: text grows in memory.
pub fn table(claims: &[Claim], text: &mut String) -> std::fmt::Result {
    writeln!(text, "\n{:42} {:>12}   {:>9}", "", "measured", "goal")?;
    for claim in claims {
        let Some(measured) = claim.measured else {
            continue;
        };
        let goal = match claim.goal {
            Goal::AtLeast(least) => format!(">= {least}"),
            Goal::AtMost(most) => format!("<= {most}"),
            Goal::Under(limit) => format!("< {limit}"),
        };
        let word = if claim.met == Some(true) {
            "met"
        } else {
            "MISSED"
        };
        writeln!(
            text,
            "{:42} {measured:>12}   {goal:>9}   {word}",
            claim.what
        )?;
    }
    Ok(())
}
