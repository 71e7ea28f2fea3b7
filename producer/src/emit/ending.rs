//! How an `emit` ended, in words: what is acknowledged, what is not, and how to go on.

use std::io;
use std::path::PathBuf;

use millrace_settings::exit;

use super::acknowledged::Place;
use super::misfit::Misfit;
use super::plan::Plan;
use super::summary::{Summary, grouped};

/// Why the input was not read to its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A line was rejected, and there is no rejects file.
    Rejected { place: Place, misfit: Misfit },
    /// The broker refused an event after others behind it were sent, and there is no rejects file.
    Refused { place: Place, misfit: Misfit },
    /// An input could not be opened or read on.
    Unreadable { file: usize, error: io::Error },
    /// The rejects file could not be written.
    Rejects { path: PathBuf, error: io::Error },
    /// Events were not answered in time.
    Unanswered { reason: String },
    /// The broker takes nothing from here, or the client cannot go on.
    Broker { reason: String },
    /// Somebody asked to stop.
    Interrupted,
}

/// How one input ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileEnd {
    /// The last line up to which everything is acknowledged, or written down as rejected.
    pub through: Option<u64>,
    /// The last line that was read as an event.
    pub read: Option<u64>,
    /// Read to its end.
    pub ended: bool,
}

/// How an `emit` ended.
#[derive(Debug)]
pub struct Report {
    /// The counts.
    pub summary: Summary,
    /// Why it ended early, if it did.
    pub(crate) stop: Option<Stop>,
    /// By input.
    pub(crate) files: Vec<FileEnd>,
    /// Events that were read and are neither acknowledged nor written down: how many, the first
    /// and the last.
    pub(crate) left: Option<(u64, Place, Place)>,
    /// The last event that is acknowledged although one before it is not.
    pub(crate) beyond: Option<Place>,
}

impl Report {
    /// The exit code of the command.
    pub fn exit_code(&self) -> u8 {
        match self.stop {
            Some(Stop::Interrupted) => exit::INTERRUPTED,
            Some(_) => exit::REJECTED,
            None if self.summary.rejected > 0 => exit::REJECTED,
            None => exit::DONE,
        }
    }

    /// The lines to be printed below the progress, none when all went well.
    pub fn words(&self, plan: &Plan) -> Vec<String> {
        let mut words = Vec::new();
        match &self.stop {
            None => self.finished(plan, &mut words),
            Some(Stop::Rejected { place, misfit }) => {
                self.rejected(plan, *place, misfit, &mut words)
            }
            Some(Stop::Refused { place, misfit }) => self.refused(plan, *place, misfit, &mut words),
            Some(Stop::Unreadable { file, error }) => {
                let read = self.files.get(*file).and_then(|end| end.read);
                let behind = read.map_or(String::new(), |line| format!(" behind line {line}"));
                words.push(format!(
                    "{}: cannot be read{behind}: {error}",
                    name(plan, *file)
                ));
                self.where_it_stands(plan, &mut words);
            }
            Some(Stop::Rejects { path, error }) => {
                words.push(format!(
                    "{}: the rejects cannot be written: {error}",
                    path.display()
                ));
                self.where_it_stands(plan, &mut words);
            }
            Some(Stop::Unanswered { reason }) => {
                words.push(format!("stopped: {reason}"));
                self.where_it_stands(plan, &mut words);
            }
            Some(Stop::Broker { reason }) => {
                words.push(format!("stopped: {reason}"));
                self.where_it_stands(plan, &mut words);
            }
            Some(Stop::Interrupted) => {
                words.push("interrupted".to_owned());
                self.where_it_stands(plan, &mut words);
            }
        }
        words
    }

    fn finished(&self, plan: &Plan, words: &mut Vec<String>) {
        if self.left.is_some() {
            self.where_it_stands(plan, words);
        }
        if self.summary.rejected > 0 {
            let path = plan.rejects.as_deref().unwrap_or_else(|| "".as_ref());
            let count = grouped(self.summary.rejected);
            words.push(format!("{count} rejected: see {}", path.display()));
        }
    }

    fn rejected(&self, plan: &Plan, place: Place, misfit: &Misfit, words: &mut Vec<String>) {
        let Misfit { column, reason, .. } = misfit;
        words.push(format!(
            "{}:{}:{column}: rejected: {reason}",
            name(plan, place.file),
            place.line
        ));
        if self.left.is_some() {
            self.where_it_stands(plan, words);
            return;
        }
        words.push("every event before it is acknowledged".to_owned());
        let then = after(plan, place.file);
        words.push(format!(
            "to go on, mend the line and run again with --from-line {}, or leave it out with --from-line {}{then}; \
             --rejects FILE writes such lines to a file and keeps going",
            place.line,
            place.line + 1,
        ));
    }

    fn refused(&self, plan: &Plan, place: Place, misfit: &Misfit, words: &mut Vec<String>) {
        words.push(format!(
            "{}:{}:{}: rejected: {}",
            name(plan, place.file),
            place.line,
            misfit.column,
            misfit.reason
        ));
        if self.left != Some((1, place, place)) {
            self.where_it_stands(plan, words);
            return;
        }
        let last = self.beyond.unwrap_or(place);
        words.push(format!(
            "every other event up to {}:{} is acknowledged",
            name(plan, last.file),
            last.line
        ));
        words.push(format!(
            "to go on, run again with --from-line {}{}, and send the mended line by itself",
            last.line + 1,
            after(plan, last.file)
        ));
    }

    /// Frontier by file, what is unknown, and how to go on.
    fn where_it_stands(&self, plan: &Plan, words: &mut Vec<String>) {
        for (file, end) in self
            .files
            .iter()
            .enumerate()
            .filter(|(_, end)| end.read.is_some())
        {
            let name = name(plan, file);
            match end.through {
                Some(line) if end.ended && end.through == end.read => {
                    words.push(format!("{name}: acknowledged to its end, line {line}"));
                }
                Some(line) => words.push(format!(
                    "{name}: every event up to line {line} is acknowledged"
                )),
                None => words.push(format!("{name}: not even its first event is acknowledged")),
            }
        }
        if let Some((count, first, last)) = self.left {
            let Summary {
                rejected,
                unknown,
                not_sent,
                ..
            } = self.summary;
            let refused = if plan.rejects.is_none() { rejected } else { 0 };
            let kinds = [
                (
                    unknown,
                    "unknown, not failed (they may be in the topic or not)",
                ),
                (not_sent, "not sent"),
                (refused, "rejected"),
            ];
            let kinds: Vec<_> = kinds
                .iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, kind)| format!("{} {kind}", grouped(*count)))
                .collect();
            words.push(format!(
                "{} events, {}:{} to {}:{}, were not acknowledged: {}",
                grouped(count),
                name(plan, first.file),
                first.line,
                name(plan, last.file),
                last.line,
                kinds.join(", ")
            ));
        }
        let Some(file) = self
            .files
            .iter()
            .position(|end| !(end.ended && end.through == end.read))
        else {
            return;
        };
        if plan.repeatable() {
            words.push("to go on, run the same command again: what is there already is dropped as a duplicate".to_owned());
            return;
        }
        let next = self
            .files
            .get(file)
            .and_then(|end| end.through)
            .map_or(plan.from_line, |line| line + 1);
        words.push(format!(
            "to go on, run again with --from-line {next}{}",
            after(plan, file)
        ));
        if self.summary.unknown > 0 || self.beyond.is_some() {
            words.push(
                "events behind that line which are in the topic already will be there twice; \
                 --once or --dedup-field from the start avoids that"
                    .to_owned(),
            );
        }
    }
}

fn name(plan: &Plan, file: usize) -> String {
    plan.inputs
        .get(file)
        .map_or_else(String::new, ToString::to_string)
}

/// What else is to be sent after `file`, since `--from-line` names a line of one file.
fn after(plan: &Plan, file: usize) -> String {
    if plan.inputs.len() < 2 {
        return String::new();
    }
    let others: Vec<_> = plan
        .inputs
        .iter()
        .skip(file + 1)
        .map(ToString::to_string)
        .collect();
    let alone = format!(" and {} alone", name(plan, file));
    if others.is_empty() {
        alone
    } else {
        format!("{alone}, then send {}", others.join(" "))
    }
}

#[cfg(test)]
#[path = "ending_tests.rs"]
mod tests;
