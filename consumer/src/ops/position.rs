//! `consumer position show | set`: looking at positions beside the log, and moving them by hand.
//!
//! `show` makes the same checks as a worker does at a claim, so what it says is why a partition stands
//! still. `set` books what a move loses or replays, and a running worker takes it up by itself. With `--withdraw`
//! all that became of the range that is read again is taken back first.

use std::collections::BTreeMap;

use millrace_settings::exit;
use millrace_store::moves::{self, ClosedBook, Move, Moved, Why, Withdrawn};
use millrace_store::position::{self, Progress};
use millrace_store::{Purpose, deployment};

use super::place::Place;
use super::print::{or_dash, rows};
use crate::exit_code::Refusal;
use crate::options::{Chosen, PlaceArgs, PositionSetArgs, Target};
use crate::source::diagnosis::another_log;
use crate::source::log::Bounds;

#[derive(Debug, serde::Serialize)]
struct Line {
    partition: i32,
    position: Option<i64>,
    log_start: Option<i64>,
    log_end: Option<i64>,
    committed: Option<i64>,
    book: Option<i32>,
    /// Why it stands still; null when it may go on.
    stopped: Option<String>,
    /// Its former books, newest first.
    history: Vec<ClosedBook>,
}

/// Former moves that are looked at, over all partitions.
const MOST_MOVES: i64 = 1_000;

/// Former moves that are told in words.
const TOLD_MOVES: usize = 20;

/// Prints positions, diagnoses and former moves. Exit code 3 when a partition needs a decision.
///
/// # Errors
/// When a setting is wrong, or the database or the brokers do not answer.
pub async fn show(args: &PlaceArgs) -> anyhow::Result<u8> {
    let place = Place::open(args)?;
    let identity = place.identity().await?;
    let partitions: Vec<i32> = (0..identity.partition_count).collect();
    let diagnosis = place.claims.diagnose(&partitions).await?;
    let (bounds, committed) = (
        place.bounds(&partitions).await?,
        place.committed(&partitions).await?,
    );
    let mut connection = place.claims.database.connect(Purpose::Reading).await?;
    let progress = by_partition(position::all(&mut connection, place.consumer()).await?);
    let history = moves::history(&mut connection, place.consumer(), MOST_MOVES).await?;
    let lines: Vec<Line> = partitions
        .iter()
        .map(|partition| Line {
            partition: *partition,
            position: progress.get(partition).map(|row| row.next_offset),
            log_start: bounds.get(partition).map(|bounds| bounds.start.0),
            log_end: bounds.get(partition).map(|bounds| bounds.end.0),
            committed: committed.get(partition).copied(),
            book: progress.get(partition).map(|row| row.book),
            stopped: diagnosis
                .get(partition)
                .and_then(|reason| reason.as_ref().map(ToString::to_string)),
            history: history
                .iter()
                .filter(|book| book.partition == *partition)
                .cloned()
                .collect(),
        })
        .collect();
    let columns = [
        "partition",
        "position",
        "log_start",
        "log_end",
        "committed",
        "book",
        "state",
    ];
    rows(args.output.format, &columns, &lines, |line| {
        vec![
            line.partition.to_string(),
            or_dash(line.position),
            or_dash(line.log_start),
            or_dash(line.log_end),
            or_dash(line.committed),
            or_dash(line.book),
            if line.stopped.is_some() {
                "STOPPED"
            } else {
                "ok"
            }
            .to_owned(),
        ]
    })?;
    for line in &lines {
        if let Some(reason) = &line.stopped {
            eprintln!("partition {}: {reason}", line.partition);
        }
    }
    for book in history.iter().take(TOLD_MOVES) {
        eprintln!(
            "moved: partition {} from {} to {} at {} by {}: {}",
            book.partition,
            book.next_offset,
            book.moved_to,
            book.moved_at,
            book.moved_by,
            book.reason
        );
    }
    Ok(if lines.iter().any(|line| line.stopped.is_some()) {
        exit::STOPPED
    } else {
        exit::DONE
    })
}

/// Moves positions and prints what that did.
///
/// # Errors
/// When a setting is wrong, a target lies outside the log, or the database or the brokers do not answer.
pub async fn set(args: &PositionSetArgs) -> anyhow::Result<u8> {
    let place = Place::open(&args.place)?;
    let identity = place.identity().await?;
    let mut connection = place.claims.database.connect(Purpose::Operations).await?;
    let progress = by_partition(position::all(&mut connection, place.consumer()).await?);
    let pinned = deployment::pinned(&mut connection).await?;
    let all: Vec<i32> = (0..identity.partition_count).collect();
    let chosen = choose(&args.partition, &all)?;
    let other_log = pinned
        .as_ref()
        .and_then(|pinned| another_log(pinned, &identity))
        .is_some();
    if other_log
        && progress
            .keys()
            .any(|partition| !chosen.contains(partition) && all.contains(partition))
    {
        return Err(Refusal::usage(
            "the log is another one, so every position belongs to the old log: give `--partition all`",
        )
        .into());
    }
    let (bounds, committed) = (
        place.bounds(&chosen).await?,
        place.committed(&chosen).await?,
    );
    if args.withdraw && other_log {
        return Err(Refusal::usage(
            "the log is another one: what became of the old log's records cannot run again, leave --withdraw out",
        )
        .into());
    }
    let times = match since_ms(args.to) {
        Some(time) => Some(place.offsets_at(&chosen, time).await?),
        None => None,
    };
    let mut planned = Vec::with_capacity(chosen.len());
    for partition in &chosen {
        let at_time = times
            .as_ref()
            .and_then(|times| times.get(partition).copied());
        let to = resolve(
            *partition,
            args.to,
            at_time,
            progress.get(partition),
            bounds.get(partition),
            other_log,
        )?;
        let ahead = progress.get(partition).filter(|row| to > row.next_offset);
        if let Some(row) = ahead.filter(|_| args.withdraw) {
            return Err(Refusal::usage(format!(
                "partition {partition}: --withdraw goes back, and {to} lies ahead of the position {}",
                row.next_offset
            ))
            .into());
        }
        planned.push(Move {
            partition: *partition,
            to,
            another_log: other_log,
            seen: committed.get(partition).copied(),
        });
    }
    let mut log = place.claims.deployment(&identity);
    if let Some(pinned) = &pinned {
        let all_taken_in = (pinned.partition_count..identity.partition_count)
            .all(|partition| chosen.contains(&partition) || progress.contains_key(&partition));
        if !all_taken_in && !other_log {
            log.partition_count = pinned.partition_count;
        }
    }
    let why = Why {
        reason: args.reason.clone(),
        by: args
            .by
            .by
            .clone()
            .unwrap_or_else(millrace_settings::operator),
    };
    let consumer = place.consumer();
    let moved = match (args.dry_run, args.withdraw) {
        (false, false) => moves::apply(&mut connection, consumer, &planned, &log, &why).await?,
        (false, true) => moves::withdraw(&mut connection, consumer, &planned, &log, &why).await?,
        (true, withdraw) => {
            let mut previews: Vec<Moved> = planned
                .iter()
                .map(|one| preview(one, progress.get(&one.partition)))
                .collect();
            if withdraw {
                let counted = moves::count_withdrawn(&mut connection, consumer, &planned).await?;
                for preview in &mut previews {
                    preview.withdrawn = counted
                        .iter()
                        .copied()
                        .find(|counted| counted.partition == preview.partition);
                }
            }
            previews
        }
    };
    print_moved(args, &moved)?;
    eprintln!(
        "{}",
        if args.dry_run {
            "dry run: nothing was moved"
        } else {
            "moved; running workers take it up by themselves"
        }
    );
    Ok(exit::DONE)
}

fn print_moved(args: &PositionSetArgs, moved: &[Moved]) -> anyhow::Result<()> {
    let mut columns = vec!["partition", "from", "to", "lost", "replayed"];
    if args.withdraw {
        columns.extend(["results", "dead_letters", "parked", "dedup_keys"]);
    }
    rows(args.place.output.format, &columns, moved, |one| {
        let mut cells = vec![
            one.partition.to_string(),
            or_dash(one.from),
            one.to.to_string(),
            one.lost.to_string(),
            one.replayed.to_string(),
        ];
        if args.withdraw {
            let rows_of = |of: fn(&Withdrawn) -> i64| or_dash(one.withdrawn.as_ref().map(of));
            cells.extend([
                rows_of(|rows| rows.results),
                rows_of(|rows| rows.dead_letters),
                rows_of(|rows| rows.parked),
                rows_of(|rows| rows.dedup_keys),
            ]);
        }
        cells
    })
}

/// The time that a target names, in milliseconds since the Unix epoch.
fn since_ms(target: Target) -> Option<i64> {
    match target {
        Target::Time(time) => Some(time),
        Target::Ago(span) => {
            let now = chrono::Utc::now().timestamp_millis();
            let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
            Some(now.saturating_sub(span))
        }
        Target::Earliest | Target::Latest | Target::At(_) | Target::By(_) => None,
    }
}

fn by_partition(rows: Vec<Progress>) -> BTreeMap<i32, Progress> {
    rows.into_iter().map(|row| (row.partition, row)).collect()
}

fn choose(wanted: &[Chosen], all: &[i32]) -> Result<Vec<i32>, Refusal> {
    let mut chosen = std::collections::BTreeSet::new();
    for one in wanted {
        match one {
            Chosen::All => chosen.extend(all),
            Chosen::One(number) if all.contains(number) => {
                chosen.insert(*number);
            }
            Chosen::One(number) => {
                return Err(Refusal::usage(format!(
                    "the topic has no partition {number}: it has 0 to {}",
                    all.len().saturating_sub(1)
                )));
            }
        }
    }
    Ok(chosen.into_iter().collect())
}

fn resolve(
    partition: i32,
    target: Target,
    at_time: Option<i64>,
    row: Option<&Progress>,
    bounds: Option<&Bounds>,
    other_log: bool,
) -> Result<i64, Refusal> {
    let Some(bounds) = bounds else {
        return Err(Refusal::usage(format!(
            "partition {partition}: the brokers do not tell how far its log reaches"
        )));
    };
    let to = match (target, row) {
        (Target::Earliest, _) => bounds.start.0,
        (Target::Latest, _) => bounds.end.0,
        (Target::At(offset), _) => offset,
        // Where every record is older, the next one to come is the first.
        (Target::Time(_) | Target::Ago(_), _) => at_time.unwrap_or(bounds.end.0),
        (Target::By(_), _) if other_log => {
            return Err(Refusal::usage(
                "a relative target means nothing in another log: give earliest, latest or an offset",
            ));
        }
        (Target::By(distance), Some(row)) => row.next_offset.saturating_add(distance),
        (Target::By(_), None) => {
            return Err(Refusal::usage(format!(
                "partition {partition} has no position to move from: give an offset"
            )));
        }
    };
    if to < bounds.start.0 || to > bounds.end.0 {
        return Err(Refusal::usage(format!(
            "partition {partition}: {to} lies outside the log, which reaches from {} to {}",
            bounds.start.0, bounds.end.0
        )));
    }
    Ok(to)
}

fn preview(one: &Move, row: Option<&Progress>) -> Moved {
    let from = row.map(|row| row.next_offset);
    let by = if one.another_log {
        0
    } else {
        from.map_or(0, |from| one.to - from)
    };
    Moved {
        partition: one.partition,
        from,
        to: one.to,
        lost: by.max(0),
        replayed: (-by).max(0),
        withdrawn: None,
    }
}
