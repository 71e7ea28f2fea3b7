//! One attempt at a flush: a single transaction that begins with the fence and ends with COMMIT.
//!
//! Fence, look-ups, keys, rows, dead letters, parked tasks, position and books, in this order. Either all of it happens
//! for every partition that still matches, or nothing does. The writer repeats attempts; an attempt never
//! does anything but its one transaction, and never decides what a failure means.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use millrace_schemas::{Day, Decoders, TaskId};
use sqlx::{Executor, PgConnection};

use crate::books::{Counts, Outcome};
use crate::callbacks;
use crate::copy::{CopyIn, RESULT_COLUMNS};
use crate::days::{Daily, Retention};
use crate::dead_letters::{self, Setting};
use crate::dedup::KeyDays;
use crate::draft::Draft;
use crate::fate::{self, Fate};
use crate::fence::{self, Explained, FenceLoss, Locked, Move, Open};
use crate::look_up;
use crate::notices;
use crate::parking;
use crate::position::{Consumer, Fence};
use crate::rows::{Advance, DeadLetter, Origin, Settling};
use crate::trouble::Trouble;

/// A partition's part of an attempt.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub partition: i32,
    pub fence: Fence,
    pub records: &'a [Settling],
    /// Records that the database refused before.
    pub refused: &'a HashMap<(Option<i32>, i64), Refusal>,
    /// `None` while more of the same flush is to come.
    pub advance: Option<Advance>,
    /// Where the position goes with the last part.
    pub next_offset: i64,
    /// Outcomes of former parts of this flush that the position passes with this one.
    pub earlier: Counts,
}

/// What becomes of a record that the database refused.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub letter: DeadLetter,
    /// False once the letter was refused together with its failed result.
    pub with_failed_result: bool,
}

/// Whether rows of a flush may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Footing {
    /// The fence says that they are new; if not, the primary key refuses them.
    New,
    /// They may be there: they are looked up first.
    Repeat,
}

/// What an attempt needs beside its parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub consumer: &'a Consumer,
    pub decoders: &'a Decoders,
    pub retention: Retention,
    pub footing: Footing,
}

/// How one part ended.
#[derive(Debug, Clone)]
pub(crate) enum PartEnd {
    /// Its rows are durable.
    Landed(Landed),
    /// It did not match the fence and nothing of it was written.
    Lost(FenceLoss),
}

/// A part whose rows are durable.
#[derive(Debug, Clone, Default)]
pub(crate) struct Landed {
    /// One for each record, in order.
    pub outcomes: Vec<Outcome>,
    /// `submitted_at` of each new result, microseconds since the Unix epoch.
    pub submitted: Vec<i64>,
    /// Reasons of the dead letters among them.
    pub reasons: Vec<crate::rows::Reason>,
    /// What the books take in at once: parked tasks below the position that ended.
    pub settled: Counts,
    /// What they take in when the position passes, with the last part of the flush.
    pub passed: Counts,
}

impl Landed {
    fn of(drafts: &[Draft<'_>], part: &Part<'_>, open: &Open) -> Self {
        let mut landed = Self::default();
        for draft in drafts {
            let (outcome, offset) = (draft.fate.outcome(), draft.record.offset);
            landed.outcomes.push(outcome);
            if draft.is_from_log() {
                if offset < part.next_offset {
                    landed.passed.count(outcome);
                }
            } else if let Some(to) = draft.ended_as(open.first_offset) {
                if offset < open.next_offset {
                    landed.settled.shift(Outcome::Parked, to);
                } else if offset < part.next_offset {
                    landed.passed.shift(Outcome::Parked, to);
                }
            }
            match &draft.fate {
                Fate::Result => landed
                    .submitted
                    .extend(draft.event().map(|event| event.submitted_at)),
                Fate::Dead(letter) => landed.reasons.push(letter.reason),
                _ => {}
            }
        }
        landed
    }
}

/// How far an attempt had come when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There was no connection.
    Connect,
    /// Nothing but the fence was asked for: whatever failed, no task is at fault.
    Fence,
    /// Rows were being written.
    Rows,
    /// COMMIT was sent and not answered: it may have happened.
    Commit,
}

/// What is known about an attempt while it runs and after it was cut off.
#[derive(Debug)]
pub(crate) struct Trail {
    pub stage: Stage,
    /// By partition and fence: what will be true if a COMMIT that was sent did happen.
    pub in_doubt: Vec<(i32, Fence, Landed)>,
    /// Birth days of the tasks in the attempt, within the kept days.
    pub days: BTreeSet<Day>,
}

impl Default for Trail {
    fn default() -> Self {
        Self {
            stage: Stage::Connect,
            in_doubt: Vec::new(),
            days: BTreeSet::new(),
        }
    }
}

/// Runs the transaction. On success the connection is clean; after an error it must be thrown away.
pub(crate) async fn attempt(
    connection: &mut PgConnection,
    setup: &Setup<'_>,
    parts: &[Part<'_>],
    trail: &mut Trail,
    key_days: &mut KeyDays,
) -> Result<Vec<PartEnd>, Trouble> {
    trail.stage = Stage::Fence;
    connection.execute("BEGIN").await?;
    let fences: Vec<(i32, Fence)> = parts
        .iter()
        .map(|part| (part.partition, part.fence))
        .collect();
    let locked = fence::lock(connection, setup.consumer, &fences).await?;
    let mut ends = unmatched(connection, setup.consumer, parts, &locked, trail).await?;
    // What a lost COMMIT did is remembered until the attempt that found it out has ended well: a failure
    // further on would forget it. Where the fence matches, it did nothing and never will.
    trail
        .in_doubt
        .retain(|(partition, ..)| !locked.holds(*partition));
    if locked.partitions.is_empty() {
        connection.execute("ROLLBACK").await?;
        trail.forget(parts);
        return Ok(ends.into_values().collect());
    }
    let mut drafts = drafts(setup, parts, &locked);
    trail.days = days(&drafts, setup, &locked);
    trail.stage = Stage::Rows;
    settle(connection, setup, &mut drafts, &locked, key_days).await?;
    let landed = landed(parts, &drafts, &locked);
    let moves: Vec<Move> = landed
        .iter()
        .map(|(_, part, landed)| movement(part, landed))
        .collect();
    fence::advance(connection, setup.consumer, &moves).await?;
    trail.in_doubt.extend(
        landed
            .iter()
            .map(|(_, part, landed)| (part.partition, part.fence, landed.clone())),
    );
    trail.stage = Stage::Commit;
    connection.execute("COMMIT").await?;
    trail.forget(parts);
    ends.extend(
        landed
            .into_iter()
            .map(|(index, _, landed)| (index, PartEnd::Landed(landed))),
    );
    Ok(ends.into_values().collect())
}

impl Trail {
    /// Drops what was in doubt about these parts: it is known now.
    fn forget(&mut self, parts: &[Part<'_>]) {
        self.in_doubt
            .retain(|(partition, ..)| !parts.iter().any(|part| part.partition == *partition));
    }
}

/// Ends the parts that do not match: lost, or landed by a COMMIT whose answer never came.
async fn unmatched(
    connection: &mut PgConnection,
    consumer: &Consumer,
    parts: &[Part<'_>],
    locked: &Locked,
    trail: &Trail,
) -> Result<BTreeMap<usize, PartEnd>, Trouble> {
    let mut ends = BTreeMap::new();
    for (index, part) in parts.iter().enumerate() {
        if locked.holds(part.partition) {
            continue;
        }
        let doubted = trail
            .in_doubt
            .iter()
            .find(|(partition, fence, _)| *partition == part.partition && *fence == part.fence);
        let end = match (
            fence::explain(connection, consumer, part.partition, part.fence).await?,
            doubted,
        ) {
            (Explained::OneAhead, Some((.., landed))) => PartEnd::Landed(landed.clone()),
            (Explained::OneAhead, None) => PartEnd::Lost(FenceLoss::DatabaseMoved),
            (Explained::Lost(loss), _) => PartEnd::Lost(loss),
        };
        ends.insert(index, end);
    }
    Ok(ends)
}

fn drafts<'a>(setup: &Setup<'_>, parts: &[Part<'a>], locked: &Locked) -> Vec<Draft<'a>> {
    let mut drafts = Vec::with_capacity(parts.iter().map(|part| part.records.len()).sum());
    for part in parts {
        if locked.holds(part.partition) {
            drafts.extend(
                part.records.iter().map(|record| {
                    Draft::new(part, record, setup.decoders, locked, setup.retention)
                }),
            );
        }
    }
    drafts
}

/// Birth days of the tasks, as far as they are kept.
fn days(drafts: &[Draft<'_>], setup: &Setup<'_>, locked: &Locked) -> BTreeSet<Day> {
    let window = setup.retention.window(locked.today);
    let mut days = BTreeSet::new();
    let mut last = None;
    for draft in drafts {
        let day = draft.event().map(|event| event.task_id.birth_day());
        if day != last {
            days.extend(day.filter(|day| window.contains(day)));
            last = day;
        }
    }
    days
}

/// Decides how each record ends, and writes keys, results, dead letters and parked tasks.
async fn settle(
    connection: &mut PgConnection,
    setup: &Setup<'_>,
    drafts: &mut [Draft<'_>],
    locked: &Locked,
    key_days: &mut KeyDays,
) -> Result<(), Trouble> {
    let (mut owners, mut present) =
        look_up::ask(connection, setup, drafts, locked, key_days).await?;
    fate::decide(drafts, &mut owners, &mut present, locked.now);
    owners.write_new(connection, locked.today).await?;
    let tasks = drafts.iter().filter_map(Draft::event);
    let table = Daily::Results.table_for(tasks.map(|event| event.task_id.birth_day()));
    copy_rows(connection, &table, setup, drafts, locked).await?;
    write_dead_letters(connection, setup.consumer, drafts).await?;
    parking::write(connection, setup.consumer, drafts, locked).await?;
    callbacks::write(connection, setup.consumer, drafts).await?;
    let awaited: Vec<TaskId> = drafts.iter().filter_map(Draft::awaited_end).collect();
    if !awaited.is_empty() {
        notices::tell_ended(connection, &awaited).await?;
    }
    Ok(())
}

async fn copy_rows(
    connection: &mut PgConnection,
    table: &str,
    setup: &Setup<'_>,
    drafts: &[Draft<'_>],
    locked: &Locked,
) -> Result<(), Trouble> {
    let mut copy: Option<CopyIn<'_>> = None;
    let mut connection = Some(connection);
    for draft in drafts {
        let Some(event) = draft.event() else { continue };
        let Some(row) = draft.row(&event, setup.consumer, locked) else {
            continue;
        };
        if copy.is_none()
            && let Some(connection) = connection.take()
        {
            copy = Some(CopyIn::begin(connection, table, RESULT_COLUMNS).await?);
        }
        if let Some(copy) = &mut copy {
            copy.buffer().result(&row);
            copy.drain().await?;
        }
    }
    if let Some(copy) = copy {
        copy.finish().await?;
    }
    Ok(())
}

async fn write_dead_letters(
    connection: &mut PgConnection,
    consumer: &Consumer,
    drafts: &[Draft<'_>],
) -> Result<(), Trouble> {
    let letters: Vec<Setting<'_>> = drafts
        .iter()
        .filter_map(|draft| match &draft.fate {
            Fate::Dead(letter) => Some(Setting {
                partition: draft.partition,
                log_book: draft.log_book,
                in_open_log: draft.in_open_log,
                record: draft.record,
                letter,
                event: draft.event(),
                with_failed_result: draft.has_failed_result(letter),
            }),
            _ => None,
        })
        .collect();
    dead_letters::write(connection, consumer, &letters).await
}

/// The outcomes of each part that matched, in the order of its records.
fn landed<'p, 'a>(
    parts: &'p [Part<'a>],
    drafts: &[Draft<'_>],
    locked: &Locked,
) -> Vec<(usize, &'p Part<'a>, Landed)> {
    let mut rest = drafts;
    let mut landed = Vec::with_capacity(parts.len());
    for (index, part) in parts.iter().enumerate() {
        let Some(open) = locked.open(part.partition) else {
            continue;
        };
        let (own, others) = rest.split_at(part.records.len().min(rest.len()));
        rest = others;
        landed.push((index, part, Landed::of(own, part, open)));
    }
    landed
}

fn movement(part: &Part<'_>, landed: &Landed) -> Move {
    let mut counts = landed.settled;
    if let Some(advance) = part.advance {
        counts += advance.counted + part.earlier + landed.passed;
    }
    // Those that were parked are below it already, or of another log.
    let from_log = |record: &&Settling| record.origin == Origin::Log;
    let highest = part.records.iter().rev().find(from_log);
    Move {
        partition: part.partition,
        fence: part.fence,
        advance: part.advance,
        high_offset: highest.map_or(0, |record| record.offset + 1),
        counts,
    }
}
