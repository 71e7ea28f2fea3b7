//! `consumer position show | set`: looking at positions beside the log, and moving them by hand.
//!
//! `show` makes the same checks as a worker does at a claim, so what it says is why a partition stands
//! still. `set` books what a move loses or replays, and a running worker takes it up by itself.

use std::collections::BTreeMap;

use millrace_settings::exit;
use millrace_store::moves::{self, Move, Moved, Why};
use millrace_store::position::{self, Progress};
use millrace_store::{Purpose, deployment};

use super::place::Place;
use super::print::{or_dash, rows};
use crate::exit_code::Refusal;
use crate::options::{Chosen, PlaceArgs, PositionSetArgs, Target};
use crate::source::claims::another_log;
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
}

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
    for book in moves::history(&mut connection, place.consumer(), 20).await? {
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
    let mut planned = Vec::with_capacity(chosen.len());
    for partition in &chosen {
        let to = resolve(
            *partition,
            args.to,
            progress.get(partition),
            bounds.get(partition),
            other_log,
        )?;
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
    let moved = if args.dry_run {
        planned
            .iter()
            .map(|one| preview(one, progress.get(&one.partition)))
            .collect()
    } else {
        let why = Why {
            reason: args.reason.clone(),
            by: operator(),
        };
        moves::apply(&mut connection, place.consumer(), &planned, &log, &why).await?
    };
    rows(
        args.place.output.format,
        &["partition", "from", "to", "lost", "replayed"],
        &moved,
        |one| {
            vec![
                one.partition.to_string(),
                or_dash(one.from),
                one.to.to_string(),
                one.lost.to_string(),
                one.replayed.to_string(),
            ]
        },
    )?;
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
    }
}

fn operator() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .unwrap_or_else(|| "unknown".to_owned())
}
