//! What the demo ends with: the run in numbers, the books, three answers, and what to do next.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Plan;
use super::audit::Audit;
use super::books::Latency;
use super::lines::Comparison;
use super::queries::Answer;
use super::words::{grouped, time};

/// The run in numbers.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Figures {
    /// Lines of the file.
    pub lines: usize,
    /// How many of them were to be sent a second time.
    pub sent_again: usize,
    /// Records in Kafka's log.
    pub sent: i64,
    /// Results, as the books say.
    pub results: i64,
    /// Duplicates dropped, as the books say.
    pub duplicates: i64,
    /// Dead letters, parked, gaps and lost: none of them should be.
    pub others: i64,
    /// The file beside the table, byte for byte.
    pub comparison: Comparison,
    /// At least so many events were read more than once.
    pub read_again: i64,
    /// How long the killed worker's partitions had nobody.
    pub taken_over: Duration,
    /// The silence after which the group goes on without a worker.
    pub session: Duration,
    /// From the start of the sending to the last outcome.
    pub took: Duration,
    /// The rate at which was sent, in events a second.
    pub rate: u32,
    /// From submit to result.
    pub latency: Latency,
}

impl Figures {
    /// What is not as it has to be; empty when all counts are exact.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (lines, again) = (count(self.lines), count(self.sent_again));
        [
            ("events in Kafka", self.sent, lines + again),
            ("results", self.results, lines),
            ("duplicates dropped", self.duplicates, again),
            ("dead letters, parked, gaps and lost", self.others, 0),
            (
                "lines of the file that are in the table exactly once",
                count(self.comparison.once),
                lines,
            ),
            (
                "results that are there twice",
                count(self.comparison.repeated),
                0,
            ),
            (
                "results that are no line of the file",
                count(self.comparison.foreign),
                0,
            ),
        ]
        .into_iter()
        .filter(|(_, found, expected)| found != expected)
        .map(|(what, found, expected)| {
            format!("{what}: {}, expected {}", grouped(found), grouped(expected))
        })
        .collect()
    }

    fn events_per_s(&self) -> i64 {
        (self.sent as f64 / self.took.as_secs_f64()) as i64
    }
}

/// Where everything is that was left running.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Kept {
    /// Kafka's address.
    pub kafka: String,
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// The database, for `psql`.
    pub psql: String,
    /// Names of workers and addresses of their metrics.
    pub workers: Vec<(String, String)>,
}

/// How the demo ended.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    /// The run in numbers.
    pub figures: Figures,
    /// The books.
    pub audit: Audit,
    /// Questions to the results.
    pub answers: Vec<Answer>,
    dir: PathBuf,
    logs: PathBuf,
    programs: PathBuf,
    kept: Option<Kept>,
}

impl Report {
    pub(super) fn new(figures: Figures, audit: Audit, answers: Vec<Answer>, plan: &Plan) -> Self {
        Self {
            figures,
            audit,
            answers,
            dir: plan.dir.clone(),
            logs: plan.logs(),
            programs: plan.programs.clone(),
            kept: None,
        }
    }

    pub(super) fn kept(mut self, kept: Kept) -> Self {
        self.kept = Some(kept);
        self
    }

    /// What is not as it has to be; empty when all counts are exact and the audit adds up.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.figures.faults();
        if !self.audit.balanced {
            faults.push("the audit does not add up".to_owned());
        }
        faults
    }

    fn numbers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = &self.figures;
        let count = |count: usize| grouped(i64::try_from(count).unwrap_or(i64::MAX));
        let mut line = |name: &str, value: String, remark: String| {
            writeln!(f, "  {name:<22}{value:>10}   {remark}")
        };
        line(
            "events in",
            grouped(figures.sent),
            format!(
                "{} edits, and the last {} of them a second time",
                count(figures.lines),
                count(figures.sent_again)
            ),
        )?;
        line(
            "results",
            grouped(figures.results),
            format!(
                "rows; {} of {} lines of the file once each, byte for byte",
                count(figures.comparison.once),
                count(figures.lines)
            ),
        )?;
        line(
            "duplicates dropped",
            grouped(figures.duplicates),
            "known by their dedup key (file digest and line number)".to_owned(),
        )?;
        line(
            "set aside or lost",
            grouped(figures.others),
            "dead letters, parked, gaps, lost".to_owned(),
        )?;
        line(
            "read more than once",
            grouped(figures.read_again),
            if figures.read_again > 0 {
                "at least: read by worker 2 when it died, but not yet written"
            } else {
                "that can be proved: worker 2 had just written what it had read"
            }
            .to_owned(),
        )?;
        line(
            "taken over after",
            time(figures.taken_over),
            format!(
                "Kafka waits {} for a silent worker (session.timeout.ms)",
                time(figures.session)
            ),
        )?;
        line(
            "throughput",
            format!("{}/s", grouped(figures.events_per_s())),
            format!(
                "held to {}/s so that one can watch; make bench is not",
                grouped(figures.rate.into())
            ),
        )?;
        let Latency {
            p50,
            p99,
            p99_undisturbed,
        } = figures.latency;
        line(
            "submit to result, p50",
            time(p50),
            "half of the results were there sooner".to_owned(),
        )?;
        line(
            "submit to result, p99",
            time(p99),
            format!(
                "with the wait for the take-over; {} in the other partitions",
                time(p99_undisturbed)
            ),
        )
    }

    fn next(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let logs = &self.logs;
        let Some(kept) = &self.kept else {
            writeln!(
                f,
                "Everything that the demo started has ended; its logs are in {}.\n",
                logs.display()
            )?;
            writeln!(f, "Next")?;
            writeln!(
                f,
                "  make demo STAY=1         the same, left running to look around"
            )?;
            writeln!(
                f,
                "  make demo KAFKA=apache   the same on Apache Kafka (needs Java)"
            )?;
            return writeln!(
                f,
                "  make up                  a stack for files of your own: see README.md"
            );
        };
        writeln!(f, "Still running")?;
        writeln!(
            f,
            "  Kafka      {}, topic {}, group {}",
            kept.kafka, kept.topic, kept.group
        )?;
        writeln!(f, "  Postgres   psql '{}'", kept.psql)?;
        for (name, metrics) in &kept.workers {
            writeln!(f, "  {name}   {metrics}")?;
        }
        writeln!(f, "  logs       {}\n", logs.display())?;
        writeln!(f, "Next")?;
        let programs = shown(&self.programs);
        let env = shown(&self.dir).join("env");
        writeln!(f, "  . {}", env.display())?;
        writeln!(
            f,
            "  {}/producer emit --type edit --once FILE",
            programs.display()
        )?;
        writeln!(f, "  {}/consumer status", programs.display())?;
        writeln!(f, "  make down                ends everything")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        heading(f, "The run in numbers")?;
        self.numbers(f)?;
        heading(f, "The books: consumer audit --deep")?;
        writeln!(f, "{}", self.audit)?;
        heading(f, "Three questions to the results")?;
        for answer in &self.answers {
            writeln!(f, "  {answer}")?;
        }
        self.next(f)?;
        let faults = self.faults();
        if faults.is_empty() {
            return writeln!(f, "\nThe counts are exact: nothing lost, nothing twice.");
        }
        writeln!(f, "\nTHE COUNTS ARE NOT EXACT:")?;
        faults.iter().try_for_each(|fault| writeln!(f, "  {fault}"))
    }
}

fn heading(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    writeln!(f, "\n{text}\n{}\n", "-".repeat(text.len()))
}

/// A path below the current folder is shorter, and a shell wants a slash in what it sources.
fn shown(path: &std::path::Path) -> &std::path::Path {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path)
}
