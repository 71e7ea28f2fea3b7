//! What a command did, counted by reason and type, and what it refused, by name.

use std::collections::BTreeMap;

use millrace_settings::Format;
use millrace_store::letters::Letter;
use millrace_store::redrive::Refused;

use super::super::print::{or_dash, rows};

/// Refused letters that are named; more are only counted.
const NAMED: usize = 1_000;
/// Refused letters that are named to a person.
const SHOWN: usize = 50;

/// The counts of one reason and type.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KindTally {
    /// Why they are dead letters.
    pub reason: String,
    /// Their type, where known.
    pub task_type: Option<String>,
    /// How many were chosen.
    pub letters: u64,
    /// To how many it was done, or would be.
    pub done: u64,
    /// How many were refused.
    pub refused: u64,
}

/// A letter that was refused.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
struct RefusedLetter {
    partition: i32,
    log_book: i32,
    offset: i64,
    run: i16,
    task_id: Option<String>,
    refusal: &'static str,
    detail: String,
}

/// The counts of a command.
#[derive(Debug, Default, serde::Serialize)]
pub struct Tally {
    /// Whether nothing was done.
    dry_run: bool,
    /// How many were chosen.
    letters: u64,
    /// To how many it was done, or would be.
    done: u64,
    /// How many were refused.
    refused: u64,
    /// How many somebody else decided on meanwhile.
    closed_meanwhile: u64,
    #[serde(serialize_with = "values")]
    kinds: BTreeMap<(String, Option<String>), KindTally>,
    refusals: BTreeMap<&'static str, u64>,
    refused_letters: Vec<RefusedLetter>,
}

impl Tally {
    /// Nothing yet.
    #[must_use]
    pub fn new(dry_run: bool) -> Self {
        Self {
            dry_run,
            ..Self::default()
        }
    }

    /// Counts a letter that was chosen, and whether it was done.
    pub fn count(&mut self, letter: &Letter, done: bool) {
        self.letters += 1;
        self.done += u64::from(done);
        let kind = self.kind(letter);
        kind.letters += 1;
        kind.done += u64::from(done);
    }

    /// Counts a refusal of a letter that was counted as chosen.
    pub fn refuse(&mut self, letter: &Letter, refused: Refused) {
        self.refused += 1;
        self.kind(letter).refused += 1;
        *self.refusals.entry(refused.refusal.as_str()).or_default() += 1;
        if self.refused_letters.len() < NAMED {
            self.refused_letters.push(RefusedLetter {
                partition: refused.place.partition,
                log_book: refused.place.log_book,
                offset: refused.place.offset,
                run: refused.place.run,
                task_id: refused.task_id.map(|id| id.to_string()),
                refusal: refused.refusal.as_str(),
                detail: refused.detail,
            });
        }
    }

    /// Counts letters that somebody else decided on meanwhile.
    pub fn close(&mut self, count: u64) {
        self.closed_meanwhile += count;
    }

    /// To how many it was done.
    #[must_use]
    pub const fn done(&self) -> u64 {
        self.done
    }

    /// How many were refused.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    fn kind(&mut self, letter: &Letter) -> &mut KindTally {
        let name = (letter.reason.clone(), letter.task_type.clone());
        self.kinds.entry(name).or_insert_with(|| KindTally {
            reason: letter.reason.clone(),
            task_type: letter.task_type.clone(),
            letters: 0,
            done: 0,
            refused: 0,
        })
    }

    /// Prints the counts; `word` says what was done.
    ///
    /// # Errors
    /// When they cannot be written as JSON.
    pub fn print(&self, format: Format, word: &str) -> anyhow::Result<()> {
        match format {
            Format::Json => println!("{}", serde_json::to_string_pretty(self)?),
            Format::Table => {
                let columns = ["reason", "task_type", "letters", word, "refused"];
                let kinds: Vec<&KindTally> = self.kinds.values().collect();
                rows(format, &columns, &kinds, |kind| {
                    vec![
                        kind.reason.clone(),
                        or_dash(kind.task_type.clone()),
                        kind.letters.to_string(),
                        kind.done.to_string(),
                        kind.refused.to_string(),
                    ]
                })?;
            }
        }
        for one in self.refused_letters.iter().take(SHOWN) {
            eprintln!(
                "refused {}:{} run {} (task {}): {}: {}",
                one.partition,
                one.offset,
                one.run,
                or_dash(one.task_id.as_ref()),
                one.refusal,
                one.detail
            );
        }
        let shown = self.refused_letters.len().min(SHOWN) as u64;
        if self.refused > shown {
            eprintln!("and {} more were refused", self.refused - shown);
        }
        for (refusal, count) in &self.refusals {
            eprintln!("refused as {refusal}: {count}");
        }
        if self.closed_meanwhile > 0 {
            eprintln!(
                "{} were decided on by somebody else meanwhile",
                self.closed_meanwhile
            );
        }
        if self.dry_run {
            eprintln!(
                "dry run: nothing was done; {} of {} letters would be {word}",
                self.done, self.letters
            );
        } else {
            eprintln!("{} of {} letters {word}", self.done, self.letters);
        }
        Ok(())
    }
}

fn values<K, V, S>(map: &BTreeMap<K, V>, serializer: S) -> Result<S::Ok, S::Error>
where
    V: serde::Serialize,
    S: serde::Serializer,
{
    serializer.collect_seq(map.values())
}
