//! One attempt at a flush: a single transaction that begins with the fence and ends with COMMIT.
//!
//! Fence, deduplication, rows, dead letters, position and books, in this order. Either all of it happens
//! for every partition that still matches, or nothing does. The writer repeats attempts; an attempt never
//! does anything but its one transaction, and never decides what a failure means.

use std::collections::HashMap;

use millrace_schemas::{Day, Decoders};
use sqlx::{Executor, PgConnection, Row};

use crate::books::{Counts, Outcome};
use crate::copy::{CopyIn, RESULT_COLUMNS};
use crate::days::{Daily, Retention};
use crate::dead_letters::{self, Setting};
use crate::dedup::{self, Writing};
use crate::draft::{Draft, Fate};
use crate::fence::{self, Explained, FenceLoss, Locked, Move};
use crate::position::{Consumer, Fence};
use crate::rows::{Advance, DeadLetter, Settling};
use crate::trouble::Trouble;

/// A partition's part of an attempt.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub partition: i32,
    pub fence: Fence,
    pub records: &'a [Settling],
    /// Records that the database refused before: they become these dead letters.
    pub refused: &'a HashMap<i64, DeadLetter>,
    /// `None` while more of the same flush is to come.
    pub advance: Option<Advance>,
    /// Outcomes of former parts of this flush that the position passes with this one.
    pub earlier: Counts,
}

/// What an attempt needs beside its parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub consumer: &'a Consumer,
    pub decoders: &'a Decoders,
    pub retention: Retention,
    pub writing: Writing,
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
}

impl Landed {
    fn of(drafts: &[Draft<'_>]) -> Self {
        let mut landed = Self::default();
        for draft in drafts {
            landed.outcomes.push(draft.fate.outcome());
            match &draft.fate {
                Fate::Result => landed
                    .submitted
                    .extend(draft.event().map(|event| event.submitted_at)),
                Fate::Dead(letter) => landed.reasons.push(letter.reason),
                Fate::Duplicate { .. } | Fate::DeadBefore => {}
            }
        }
        landed
    }
}

/// How far an attempt had come when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No row was sent: whatever failed, no task is at fault.
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
    /// By partition and fence: what will be true if the COMMIT that was sent did happen.
    pub in_doubt: Vec<(i32, Fence, Landed)>,
}

impl Default for Trail {
    fn default() -> Self {
        Self {
            stage: Stage::Fence,
            in_doubt: Vec::new(),
        }
    }
}

/// Runs the transaction. On success the connection is clean; after an error it must be thrown away.
pub(crate) async fn attempt(
    connection: &mut PgConnection,
    setup: &Setup<'_>,
    parts: &[Part<'_>],
    trail: &mut Trail,
) -> Result<Vec<PartEnd>, Trouble> {
    trail.stage = Stage::Fence;
    connection.execute("BEGIN").await?;
    let fences: Vec<(i32, Fence)> = parts
        .iter()
        .map(|part| (part.partition, part.fence))
        .collect();
    let locked = fence::lock(connection, setup.consumer, &fences).await?;
    let mut ends = unmatched(connection, setup.consumer, parts, &locked, trail).await?;
    trail.in_doubt.clear();
    if locked.partitions.is_empty() {
        connection.execute("ROLLBACK").await?;
        return Ok(ends.into_values().collect());
    }
    trail.stage = Stage::Rows;
    let mut drafts = drafts(setup, parts, &locked);
    deduplicate(connection, setup, &mut drafts, &locked).await?;
    write_rows(connection, setup, &mut drafts, &locked).await?;
    write_dead_letters(connection, setup.consumer, &drafts).await?;
    let landed = landed(parts, &drafts, &locked);
    let moves: Vec<Move> = landed
        .iter()
        .map(|(index, landed)| movement(&parts[*index], landed))
        .collect();
    fence::advance(connection, setup.consumer, &moves).await?;
    trail.in_doubt = landed
        .iter()
        .map(|(index, landed)| (parts[*index].partition, parts[*index].fence, landed.clone()))
        .collect();
    trail.stage = Stage::Commit;
    connection.execute("COMMIT").await?;
    trail.in_doubt.clear();
    ends.extend(
        landed
            .into_iter()
            .map(|(index, landed)| (index, PartEnd::Landed(landed))),
    );
    Ok(ends.into_values().collect())
}

/// Ends the parts that do not match: lost, or landed by a COMMIT whose answer never came.
async fn unmatched(
    connection: &mut PgConnection,
    consumer: &Consumer,
    parts: &[Part<'_>],
    locked: &Locked,
    trail: &Trail,
) -> Result<std::collections::BTreeMap<usize, PartEnd>, Trouble> {
    let mut ends = std::collections::BTreeMap::new();
    for (index, part) in parts.iter().enumerate() {
        if locked.partitions.binary_search(&part.partition).is_ok() {
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
        if locked.partitions.binary_search(&part.partition).is_ok() {
            drafts.extend(
                part.records.iter().map(|record| {
                    Draft::new(part, record, setup.decoders, locked, setup.retention)
                }),
            );
        }
    }
    drafts
}

async fn deduplicate(
    connection: &mut PgConnection,
    setup: &Setup<'_>,
    drafts: &mut [Draft<'_>],
    locked: &Locked,
) -> Result<(), Trouble> {
    let mut keyed = Vec::new();
    let mut indices = Vec::new();
    for (index, draft) in drafts.iter().enumerate() {
        if let Some(task) = draft.keyed() {
            keyed.push(task);
            indices.push(index);
        }
    }
    if keyed.is_empty() {
        return Ok(());
    }
    let from = setup.retention.dedup_from(locked.today);
    let standings = dedup::settle(connection, &keyed, locked.today, from, setup.writing).await?;
    for (index, standing) in indices.into_iter().zip(standings) {
        drafts[index].stand(standing);
    }
    Ok(())
}

async fn write_rows(
    connection: &mut PgConnection,
    setup: &Setup<'_>,
    drafts: &mut [Draft<'_>],
    locked: &Locked,
) -> Result<(), Trouble> {
    match setup.writing {
        Writing::Copy => copy_rows(connection, &target(drafts), setup, drafts, locked).await,
        Writing::Merge => merge_rows(connection, setup, drafts, locked).await,
    }
}

/// The day's own table when all rows are of one day, which spares the routing; else the parent.
fn target(drafts: &[Draft<'_>]) -> String {
    let mut days = drafts
        .iter()
        .filter_map(|draft| draft.event().map(|event| event.task_id.birth_day()));
    match days.next() {
        Some(day) if days.all(|other: Day| other == day) => Daily::Results.table_of(day),
        _ => Daily::Results.table().to_owned(),
    }
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

/// The path for rows that may be there already: staged in a temporary table, merged, and then each one
/// that met another row learns what it is.
async fn merge_rows(
    connection: &mut PgConnection,
    setup: &Setup<'_>,
    drafts: &mut [Draft<'_>],
    locked: &Locked,
) -> Result<(), Trouble> {
    connection
        .execute("CREATE TEMPORARY TABLE merging (LIKE task_results) ON COMMIT DROP")
        .await?;
    copy_rows(connection, "merging", setup, drafts, locked).await?;
    sqlx::query(
        "INSERT INTO task_results (task_id, submitted_at, completed_at, \"offset\", partition, day, status, run, attempts, \
           fingerprint, duplicate_of, topic, tenant, task_type, key, content_type, result, result_bytes, error) \
         SELECT task_id, submitted_at, completed_at, \"offset\", partition, day, status, run, attempts, \
           fingerprint, duplicate_of, topic, tenant, task_type, key, content_type, result, result_bytes, error \
         FROM merging ON CONFLICT DO NOTHING",
    )
    .persistent(false)
    .execute(&mut *connection)
    .await?;
    let met = sqlx::query(
        "SELECT m.partition, m.\"offset\", r.task_id, r.tenant = m.tenant AND r.fingerprint = m.fingerprint AS same, \
           r.topic = m.topic AND r.partition = m.partition AND r.\"offset\" = m.\"offset\" AS own, \
           r.status = 'failed' AS failed \
         FROM merging m JOIN task_results r ON r.day = m.day AND r.task_id = m.task_id \
         WHERE (r.topic, r.partition, r.\"offset\") IS DISTINCT FROM (m.topic, m.partition, m.\"offset\") \
           OR (r.status = 'failed' AND m.status <> 'failed')",
    )
    .persistent(false)
    .fetch_all(&mut *connection)
    .await?;
    let places: HashMap<(i32, i64), usize> = drafts
        .iter()
        .enumerate()
        .map(|(index, draft)| ((draft.partition, draft.record.offset), index))
        .collect();
    for row in met {
        let place = (row.try_get("partition")?, row.try_get("offset")?);
        let (same, own): (bool, bool) = (row.try_get("same")?, row.try_get("own")?);
        let Some(draft) = places.get(&place).and_then(|index| drafts.get_mut(*index)) else {
            continue;
        };
        let Some(id) = draft.event().map(|event| event.task_id) else {
            continue;
        };
        draft.fate = match (own, same) {
            (true, _) => Fate::DeadBefore,
            (false, true) => Fate::Duplicate {
                first: id,
                status: crate::copy::Status::Success,
                row: false,
            },
            (false, false) => Fate::Dead(Box::new(DeadLetter::about_event(
                crate::rows::Reason::IdConflict,
                format!(
                    "task id {id} belongs to another task, of another tenant or with another content: mint a new id"
                ),
            ))),
        };
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
                record: draft.record,
                letter,
                event: draft.event(),
            }),
            Fate::Result | Fate::Duplicate { .. } | Fate::DeadBefore => None,
        })
        .collect();
    dead_letters::write(connection, consumer, &letters).await
}

/// The outcomes of each part that matched, in the order of its records.
fn landed(parts: &[Part<'_>], drafts: &[Draft<'_>], locked: &Locked) -> Vec<(usize, Landed)> {
    let mut rest = drafts;
    let mut landed = Vec::with_capacity(parts.len());
    for (index, part) in parts.iter().enumerate() {
        if locked.partitions.binary_search(&part.partition).is_err() {
            continue;
        }
        let (own, others) = rest.split_at(part.records.len().min(rest.len()));
        rest = others;
        landed.push((index, Landed::of(own)));
    }
    landed
}

fn movement(part: &Part<'_>, landed: &Landed) -> Move {
    let mut counts = Counts::default();
    if let Some(advance) = part.advance {
        counts = advance.counted + part.earlier;
        for (record, outcome) in part.records.iter().zip(&landed.outcomes) {
            if record.offset < advance.next_offset {
                counts.count(*outcome);
            }
        }
    }
    Move {
        partition: part.partition,
        fence: part.fence,
        advance: part.advance,
        high_offset: part.records.last().map_or(0, |record| record.offset + 1),
        counts,
    }
}
