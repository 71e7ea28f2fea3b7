//! `consumer status`: who holds which partition, where it stands, how far it is behind, what waits and what failed.
//!
//! The tables answer alone when the brokers do not; then the end of the log, lag and stops are not known.

use millrace_settings::{Format, exit};
use millrace_store::Purpose;
use millrace_store::overview::{self, Overview, ParkedByKind, PartitionOverview};
use millrace_store::pauses::{self, Pause};

use super::place::Place;
use super::print::{or_dash, rows};
use crate::engine::{DecodeWindow, UNCLEAN_STARTS};
use crate::options::PlaceArgs;
use crate::source::stop::StopReason;

#[derive(Debug, serde::Serialize)]
struct Line {
    #[serde(flatten)]
    tables: PartitionOverview,
    log_end: Option<i64>,
    lag: Option<i64>,
    /// Whether tasks run one at a time, since one of them may have killed its worker.
    careful: bool,
    /// Why it stands still, as far as log and position tell; null when it may go on or nobody knows.
    stopped: Option<String>,
}

#[derive(Debug, serde::Serialize)]
struct Status {
    partitions: Vec<Line>,
    pauses: Vec<Pause>,
    cancels_pending: i64,
    outbox_pending: i64,
    /// Whether the brokers answered.
    brokers: bool,
}

/// Prints the status of every partition that has a row, and what people asked for.
///
/// # Errors
/// When a setting is wrong or the database does not answer.
pub async fn run(args: &PlaceArgs) -> anyhow::Result<u8> {
    let place = Place::open(args)?;
    let mut connection = place.claims.database.connect(Purpose::Reading).await?;
    let overview = overview::overview(&mut connection, place.consumer()).await?;
    let pauses = pauses::all(&mut connection).await?;
    let status = beside_the_log(&place, overview, pauses).await;
    match args.output.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Format::Table => print_table(&status)?,
    }
    Ok(exit::DONE)
}

async fn beside_the_log(place: &Place, overview: Overview, pauses: Vec<Pause>) -> Status {
    let numbers: Vec<i32> = overview
        .partitions
        .iter()
        .map(|one| one.partition)
        .collect();
    let bounds = if numbers.is_empty() {
        Default::default()
    } else {
        place.bounds_if_there(&numbers).await
    };
    let brokers = !bounds.is_empty();
    let stops = if brokers {
        place.claims.diagnose(&numbers).await.unwrap_or_default()
    } else {
        Default::default()
    };
    let partitions = overview.partitions.into_iter().map(|tables| {
        let end = bounds.get(&tables.partition).map(|bounds| bounds.end.0);
        let stop = stops.get(&tables.partition).and_then(Option::as_ref);
        Line {
            log_end: end,
            lag: end.map(|end| end - tables.position),
            careful: is_careful(&tables),
            stopped: stop
                .map(ToString::to_string)
                .or_else(|| mostly_undecodable(&tables).map(|stop| stop.to_string())),
            tables,
        }
    });
    Status {
        partitions: partitions.collect(),
        pauses,
        cancels_pending: overview.cancels_pending,
        outbox_pending: overview.outbox_pending,
        brokers,
    }
}

/// Partitions on standard output; what concerns all of them in words beside it.
fn print_table(status: &Status) -> anyhow::Result<()> {
    let columns = [
        "partition",
        "owner",
        "claimed_at",
        "position",
        "log_end",
        "lag",
        "results",
        "duplicates",
        "dead_letters",
        "open",
        "parked",
        "keys_due",
        "unclean",
        "state",
        "settled_up_to",
    ];
    rows(Format::Table, &columns, &status.partitions, |line| {
        let tables = &line.tables;
        vec![
            tables.partition.to_string(),
            or_dash(tables.owner.clone()),
            or_dash(tables.claimed_at.clone()),
            tables.position.to_string(),
            or_dash(line.log_end),
            or_dash(line.lag),
            tables.results.to_string(),
            tables.duplicates.to_string(),
            tables.dead_letters.to_string(),
            tables.dead_letters_open.to_string(),
            parked(tables.parked_by_kind),
            tables.parked_keys_due.to_string(),
            tables.unclean_starts.to_string(),
            state(line, status.brokers).to_owned(),
            or_dash(tables.settled_up_to.clone()),
        ]
    })?;
    for line in &status.partitions {
        if let Some(reason) = &line.stopped {
            eprintln!("partition {}: {reason}", line.tables.partition);
        }
        if let Some(offset) = line.tables.suspect_offset {
            eprintln!(
                "partition {}: careful: one task at a time, offset {offset} is next",
                line.tables.partition
            );
        }
    }
    for pause in &status.pauses {
        eprintln!(
            "paused: {} {} since {} by {}: {}",
            pause.scope.as_str(),
            pause.name,
            pause.since,
            pause.by,
            or_dash(pause.reason.clone())
        );
    }
    eprintln!(
        "cancel requests open: {}, copies of dead letters to send: {}",
        status.cancels_pending, status.outbox_pending
    );
    Ok(())
}

/// How many wait for what, without blanks, so that columns stay columns.
fn parked(by_kind: ParkedByKind) -> String {
    let kinds = [
        ("retry", by_kind.retry),
        ("behind", by_kind.behind),
        ("delayed", by_kind.delayed),
        ("running", by_kind.running),
        ("redrive", by_kind.redrive),
    ];
    let parts: Vec<String> = kinds
        .iter()
        .filter(|(_, count)| *count != 0)
        .map(|(kind, count)| format!("{kind}:{count}"))
        .collect();
    if parts.is_empty() {
        "0".to_owned()
    } else {
        parts.join(",")
    }
}

/// As a claim would find it.
const fn is_careful(tables: &PartitionOverview) -> bool {
    tables.suspect_offset.is_some() || tables.unclean_starts >= UNCLEAN_STARTS
}

/// Why its owner reads it no further, when that is what it last wrote down.
fn mostly_undecodable(tables: &PartitionOverview) -> Option<StopReason> {
    let trips = DecodeWindow::from_stored(tables.decode_window).trips();
    let is_allowed = tables
        .allowed_until
        .is_some_and(|until| tables.position < until);
    (trips && !is_allowed).then_some(StopReason::MostUndecodable {
        partition: tables.partition,
        offset: tables.position,
    })
}

const fn state(line: &Line, brokers: bool) -> &'static str {
    if line.stopped.is_some() {
        "STOPPED"
    } else if line.careful {
        "careful"
    } else if brokers {
        "ok"
    } else {
        "-"
    }
}
