//! The report: a table for people, JSON for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::claims::{self, Claim};
use crate::cpu::Use;
use crate::door;
use crate::machine::Machine;
use crate::measurements::{Figures, Measurements, median_run};
use crate::work;

/// The whole report; the figures are its top-level keys.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    #[serde(flatten)]
    figures: Figures,
    claims: Vec<Claim>,
    machine: &'a Machine,
    details: &'a Measurements,
}

impl<'a> Report<'a> {
    /// Puts the report together.
    pub fn new(machine: &'a Machine, details: &'a Measurements) -> Self {
        let figures = details.figures();
        let claims = claims::of(&figures);
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
        self.work(&mut text)?;
        if let Some(run) = &self.details.door_loads {
            door::table::loads(run, &mut text)?;
        }
        if let Some(run) = &self.details.door_results {
            door::table::results(run, &mut text)?;
        }
        claims::table(&self.claims, &mut text)?;
        for (name, runs) in [
            ("pipeline", &self.details.pipeline),
            ("pipeline with dedup keys", &self.details.dedup),
            ("empty handler", &self.details.lanes.empty),
            ("handler: echo", &self.details.lanes.echo),
            ("empty handler, no keys", &self.details.lanes.keyless),
            ("empty handler, dedup keys", &self.details.lanes.dedup),
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
        let lanes = &details.lanes;
        let rows: [(&str, Option<f64>, Vec<f64>); 13] = [
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
            (
                "lanes, ledger, outcome; one processor",
                figures.lanes_core_tasks_per_s,
                lanes.core_seconds.clone(),
            ),
            (
                "  with the executor and an empty handler",
                figures.lanes_executor_tasks_per_s,
                lanes.executor_seconds.clone(),
            ),
            (
                "pipeline with an empty handler",
                figures.lanes_pipeline_events_per_s,
                drained(&lanes.empty),
            ),
            (
                "  the payload as result: the same rows",
                figures.lanes_pipeline_echo_events_per_s,
                drained(&lanes.echo),
            ),
            (
                "  events without keys",
                figures.lanes_pipeline_keyless_events_per_s,
                drained(&lanes.keyless),
            ),
            (
                "  dedup keys, 1 % repeats",
                figures.lanes_pipeline_dedup_events_per_s,
                drained(&lanes.dedup),
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
}

impl Report<'_> {
    fn work(&self, text: &mut String) -> std::fmt::Result {
        let lanes = &self.details.lanes;
        if lanes.work.is_empty() {
            return Ok(());
        }
        let seconds = |values: Vec<f64>| {
            let texts: Vec<String> = values.iter().map(|s| format!("{s:.2}")).collect();
            texts.join("  ")
        };
        writeln!(
            text,
            "\n{:40} {:>12}   {:>10}   rounds; inside the handlers",
            format!(
                "{} tasks of 0 to 5 ms, one partition",
                grouped(work::TASKS as f64)
            ),
            "seconds",
            "published*",
        )?;
        for (case, measured) in work::CASES.iter().zip([
            self.figures.lanes_1000_keys_seconds,
            self.figures.lanes_100_keys_seconds,
            self.figures.lanes_1_key_seconds,
        ]) {
            let Some(measured) = measured else { continue };
            let runs = || lanes.work_under(case.keys);
            writeln!(
                text,
                "{:40} {measured:>12.2}   {:>10}   {}; {}",
                format!("  keys: {}", grouped(case.keys as f64)),
                case.published_seconds,
                seconds(runs().map(|worked| worked.run.seconds).collect()),
                seconds(runs().map(|worked| worked.inside_seconds).collect()),
            )?;
        }
        writeln!(
            text,
            "* the best published figures, on hardware that was not named"
        )
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
pub fn grouped(number: f64) -> String {
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
