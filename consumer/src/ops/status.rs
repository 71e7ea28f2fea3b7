//! `consumer status`: who holds which partition, where it stands, how far it is behind.

use millrace_settings::exit;
use millrace_store::Purpose;
use millrace_store::position;

use super::place::Place;
use super::print::{or_dash, rows};
use crate::options::PlaceArgs;

#[derive(Debug, serde::Serialize)]
struct Line {
    partition: i32,
    owner: Option<String>,
    seq: i64,
    position: i64,
    log_end: Option<i64>,
    lag: Option<i64>,
    results: i64,
    duplicates: i64,
    dead_letters: i64,
    parked: i64,
    settled_up_to: Option<String>,
    unclean_starts: i32,
}

/// Prints the status of every partition that has a row.
///
/// # Errors
/// When a setting is wrong or the database does not answer.
pub async fn run(args: &PlaceArgs) -> anyhow::Result<u8> {
    let place = Place::open(args)?;
    let mut connection = place.claims.database.connect(Purpose::Reading).await?;
    let progress = position::all(&mut connection, place.consumer()).await?;
    let partitions: Vec<i32> = progress.iter().map(|row| row.partition).collect();
    let bounds = if partitions.is_empty() {
        Default::default()
    } else {
        place.bounds_if_there(&partitions).await
    };
    let lines: Vec<Line> = progress
        .into_iter()
        .map(|row| {
            let end = bounds.get(&row.partition).map(|bounds| bounds.end.0);
            Line {
                partition: row.partition,
                owner: row.owner,
                seq: row.seq,
                position: row.next_offset,
                log_end: end,
                lag: end.map(|end| end - row.next_offset),
                results: row.counts.results,
                duplicates: row.counts.duplicates,
                dead_letters: row.counts.dead_letters,
                parked: row.counts.parked,
                settled_up_to: row
                    .frontier_ms
                    .and_then(chrono::DateTime::from_timestamp_millis)
                    .map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)),
                unclean_starts: row.unclean_starts,
            }
        })
        .collect();
    let columns = [
        "partition",
        "owner",
        "position",
        "log_end",
        "lag",
        "results",
        "duplicates",
        "dead_letters",
        "parked",
        "settled_up_to",
    ];
    rows(args.output.format, &columns, &lines, |line| {
        vec![
            line.partition.to_string(),
            or_dash(line.owner.clone()),
            line.position.to_string(),
            or_dash(line.log_end),
            or_dash(line.lag),
            line.results.to_string(),
            line.duplicates.to_string(),
            line.dead_letters.to_string(),
            line.parked.to_string(),
            or_dash(line.settled_up_to.clone()),
        ]
    })?;
    Ok(exit::DONE)
}
