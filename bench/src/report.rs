//! The report: a table for people, JSON for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::cpu::Use;
use crate::machine::Machine;
use crate::measurements::{Figures, Measurements, median_run};

/// What a figure is to reach.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Goal {
    AtLeast(f64),
    Under(f64),
}

#[derive(Debug, Serialize)]
struct Claim {
    what: &'static str,
    goal: Goal,
    measured: Option<f64>,
    met: Option<bool>,
}

/// The whole report; the figures are its top-level keys.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    #[serde(flatten)]
    figures: Figures,
    claims: [Claim; 5],
    machine: &'a Machine,
    details: &'a Measurements,
}

impl<'a> Report<'a> {
    /// Puts the report together.
    pub fn new(machine: &'a Machine, details: &'a Measurements) -> Self {
        let figures = details.figures();
        let claim = |what, measured: Option<f64>, goal| Claim {
            what,
            goal,
            measured,
            met: measured.map(|value| match goal {
                Goal::AtLeast(least) => value >= least,
                Goal::Under(limit) => value < limit,
            }),
        };
        let claims = [
            claim(
                "pipeline / copy, one connection",
                figures.ratio_pipeline_to_copy,
                Goal::AtLeast(0.7),
            ),
            claim(
                "pipeline with dedup keys / pipeline",
                figures.ratio_dedup_to_pipeline(),
                Goal::AtLeast(0.5),
            ),
            claim(
                "emit / bare produce",
                figures.ratio_emit_to_produce(),
                Goal::AtLeast(0.7),
            ),
            claim("latency p99, ms", figures.latency_p99_ms, Goal::Under(25.0)),
            claim(
                "worker's peak memory, MiB",
                figures.worker_peak_rss_mib,
                Goal::Under(150.0),
            ),
        ];
        Self {
            figures,
            claims,
            machine,
            details,
        }
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
    }

    /// The table.
    ///
    /// # Errors
    /// Never in practice: text grows in memory.
    pub fn table(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        self.machine(&mut text)?;
        self.rates(&mut text)?;
        self.claims(&mut text)?;
        for (name, runs) in [
            ("pipeline", &self.details.pipeline),
            ("pipeline with dedup keys", &self.details.dedup),
        ] {
            if let Some(run) = median_run(runs) {
                let events = self.details.events;
                processors(&mut text, name, events, run.seconds, &run.cpu_seconds)?;
                writeln!(
                    text,
                    "  {:.2} s from first claim to last row, {:.2} s from process start; {} partition moves; peak {:.0} MiB",
                    run.seconds, run.wall_seconds, run.flushes, run.peak_rss_mib
                )?;
            }
        }
        Ok(text)
    }

    fn machine(&self, text: &mut String) -> std::fmt::Result {
        let machine = self.machine;
        writeln!(
            text,
            "{}, {} processors, {} GiB, Linux {}",
            machine.processor, machine.processors, machine.memory_gib, machine.kernel
        )?;
        writeln!(
            text,
            "{}; librdkafka {}; Apache Kafka {}; Postgres {}",
            machine.rustc,
            machine.librdkafka,
            machine.kafka.as_deref().unwrap_or("not used"),
            machine.postgres
        )?;
        writeln!(text, "Postgres: {}", machine.postgres_settings.join(" "))?;
        if machine.data_in_memory {
            writeln!(
                text,
                "WARNING: the data lay in memory (tmpfs): nothing was durable. Set TMPDIR."
            )?;
        }
        let bytes = |value: Option<f64>| value.map_or("-".to_owned(), |b| format!("{b:.0}"));
        writeln!(
            text,
            "{} events of {} bytes ({} with a dedup key), rows of {} bytes",
            grouped(self.details.events as f64),
            bytes(self.details.event_bytes),
            bytes(self.details.dedup_event_bytes),
            bytes(self.details.row_bytes)
        )?;
        writeln!(text, "command: {}", machine.command)
    }

    fn rates(&self, text: &mut String) -> std::fmt::Result {
        let (figures, details) = (&self.figures, self.details);
        let drained = |runs: &[crate::pipeline::Drained]| runs.iter().map(|r| r.seconds).collect();
        let rows: [(&str, Option<f64>, Vec<f64>); 7] = [
            (
                "bare COPY, one connection",
                figures.copy_rows_per_s,
                details.copy_seconds.clone(),
            ),
            (
                "bare COPY, two connections",
                figures.copy2_rows_per_s,
                details.copy2_seconds.clone(),
            ),
            (
                "raw drain of the topic",
                figures.drain_events_per_s,
                details.drain_seconds.clone(),
            ),
            (
                "pipeline, one worker",
                figures.pipeline_events_per_s,
                drained(&details.pipeline),
            ),
            (
                "pipeline with dedup keys, 1 % repeats",
                figures.pipeline_dedup_events_per_s,
                drained(&details.dedup),
            ),
            (
                "bare produce loop",
                figures.produce_events_per_s,
                details.produce_seconds.clone(),
            ),
            (
                "producer emit",
                figures.emit_events_per_s,
                details.emit.iter().map(|run| run.seconds).collect(),
            ),
        ];
        writeln!(text, "\n{:40} {:>12}   rounds", "", "per second")?;
        for (name, rate, seconds) in rows {
            let Some(rate) = rate else { continue };
            let rounds: Vec<String> = seconds
                .iter()
                .map(|s| grouped(details.events as f64 / s))
                .collect();
            writeln!(
                text,
                "{name:40} {:>12}   {}",
                grouped(rate),
                rounds.join("  ")
            )?;
        }
        if let Some(seen) = details.latency {
            writeln!(
                text,
                "submit to committed result, ms: p50 {:.1}  p90 {:.1}  p99 {:.1}  max {:.1}  ({} events)",
                seen.p50_ms, seen.p90_ms, seen.p99_ms, seen.max_ms, seen.events
            )?;
        }
        Ok(())
    }

    fn claims(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n{:40} {:>12}   {:>8}", "", "measured", "goal")?;
        for claim in &self.claims {
            let Some(measured) = claim.measured else {
                continue;
            };
            let goal = match claim.goal {
                Goal::AtLeast(least) => format!(">= {least}"),
                Goal::Under(limit) => format!("< {limit}"),
            };
            let word = if claim.met == Some(true) {
                "met"
            } else {
                "MISSED"
            };
            writeln!(
                text,
                "{:40} {measured:>12}   {goal:>8}   {word}",
                claim.what
            )?;
        }
        Ok(())
    }
}

fn processors(
    text: &mut String,
    name: &str,
    events: u64,
    seconds: f64,
    used: &Use,
) -> std::fmt::Result {
    writeln!(
        text,
        "\nprocessors, {name}: of {:.1} s available",
        used.available
    )?;
    for (who, spent) in [
        ("worker", used.worker),
        ("Postgres, the worker's backends", used.postgres_writers),
        ("Postgres, its other processes", used.postgres_others),
        ("Apache Kafka", used.kafka),
        ("this program", used.bench),
        ("other processes", used.other_processes),
        ("taken by the host", used.stolen),
    ] {
        writeln!(
            text,
            "  {who:34} {spent:>6.2} s  {:>4.0} % of one  {:>5.2} µs an event",
            spent / seconds * 100.0,
            spent * 1e6 / events.max(1) as f64
        )?;
    }
    Ok(())
}

/// A whole number with a comma between groups of three digits.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        reason = "a test that cannot set up its case has failed"
    )]

    use std::collections::BTreeSet;

    use super::*;

    fn machine() -> Machine {
        Machine {
            processor: "a processor".to_owned(),
            processors: 2,
            memory_gib: 4.0,
            kernel: "6".to_owned(),
            data_in_memory: false,
            rustc: "rustc".to_owned(),
            librdkafka: "2".to_owned(),
            kafka: None,
            postgres: "15".to_owned(),
            postgres_settings: vec!["fsync=on".to_owned()],
            command: "bench".to_owned(),
        }
    }

    #[test]
    fn the_json_has_the_agreed_keys() {
        let (machine, details) = (machine(), Measurements::default());
        let json = serde_json::to_value(Report::new(&machine, &details)).unwrap();
        let keys: BTreeSet<&str> = json
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let agreed = [
            "copy_rows_per_s",
            "copy2_rows_per_s",
            "drain_events_per_s",
            "pipeline_events_per_s",
            "pipeline_dedup_events_per_s",
            "emit_events_per_s",
            "produce_events_per_s",
            "latency_p50_ms",
            "latency_p99_ms",
            "worker_peak_rss_mib",
            "ratio_pipeline_to_copy",
            "claims",
            "machine",
            "details",
        ];
        assert_eq!(keys, BTreeSet::from(agreed));
    }

    #[test]
    fn a_missed_goal_is_named() {
        let details = Measurements {
            events: 1_000_000,
            copy_seconds: vec![5.0],
            produce_seconds: vec![2.0],
            emit: vec![crate::emit::Emitted {
                seconds: 4.0,
                wall_seconds: 5.0,
                peak_rss_mib: 1.0,
            }],
            ..Measurements::default()
        };
        let machine = machine();
        let table = Report::new(&machine, &details).table().unwrap();
        assert!(table.contains("200,000"), "{table}");
        assert!(
            table
                .lines()
                .any(|line| line.contains("emit / bare") && line.ends_with("MISSED")),
            "{table}"
        );
    }
}
