//! `consumer audit`: law 6, proved for each partition.
//!
//! The books come from one snapshot of the database; with `--deep` the log itself is read again and each
//! of its records looked up. Exit code 1 when anything does not add up.

use millrace_schemas::Decoders;
use millrace_settings::exit;
use millrace_store::audit::{self, PartitionAudit};
use millrace_store::{Purpose, schemas_known};
use sqlx::PgConnection;

use super::deep::{self, Deep, Range};
use super::place::Place;
use super::print::{or_dash, rows};
use crate::options::AuditArgs;

/// One line of the audit.
#[derive(Debug, serde::Serialize)]
struct Line {
    partition: i32,
    first_offset: i64,
    next_offset: i64,
    results: i64,
    duplicates: i64,
    dead_letters: i64,
    parked: i64,
    gaps: i64,
    lost: i64,
    /// Records between the position and the log's end; null when the brokers do not answer.
    lag: Option<i64>,
    balanced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    deep: Option<Deep>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<String>,
}

/// Audits; returns the exit code.
///
/// # Errors
/// When a setting is wrong or the database does not answer; with `--deep` also when the brokers do not.
pub async fn run(args: &AuditArgs) -> anyhow::Result<u8> {
    let place = Place::open(&args.place)?;
    let mut connection = place.claims.database.connect(Purpose::Reading).await?;
    let audits = audit::partitions(&mut connection, place.consumer()).await?;
    let partitions: Vec<i32> = audits
        .iter()
        .map(|audit| audit.progress.partition)
        .collect();
    let bounds = if partitions.is_empty() {
        Default::default()
    } else {
        place.bounds_if_there(&partitions).await
    };
    let decoders = decoders(args, &mut connection).await?;
    let mut lines: Vec<Line> = Vec::with_capacity(audits.len());
    for audit in &audits {
        let partition = audit.progress.partition;
        let lag = bounds
            .get(&partition)
            .map(|bounds| bounds.end.0 - audit.progress.next_offset);
        let mut line = line(audit, lag);
        if args.deep && (args.partition.is_empty() || args.partition.contains(&partition)) {
            let range = Range::of(&audit.progress, args.from, args.to);
            let deep =
                deep::partition(&place, &mut connection, &decoders, &audit.progress, range).await?;
            line.findings.extend(deep.findings(&audit.progress, range));
            line.balanced &= line.findings.is_empty();
            line.deep = Some(deep);
        }
        lines.push(line);
    }
    print(args, &lines)?;
    let balanced = lines.iter().all(|line| line.balanced);
    for line in &lines {
        for finding in &line.findings {
            eprintln!("partition {}: {finding}", line.partition);
        }
    }
    if lines.is_empty() {
        eprintln!(
            "no partition was ever claimed by group {} on topic {}",
            place.consumer().group,
            place.consumer().topic
        );
    } else {
        eprintln!(
            "{}",
            if balanced {
                "balanced: every offset is accounted for"
            } else {
                "NOT BALANCED"
            }
        );
    }
    Ok(if balanced { exit::DONE } else { exit::REJECTED })
}

/// Decoders that know what a worker knows: this release's schema and the published ones.
async fn decoders(args: &AuditArgs, connection: &mut PgConnection) -> anyhow::Result<Decoders> {
    let mut decoders = Decoders::new();
    if let Some(id) = args.framing.schema_id {
        decoders = decoders.with_confluent_id(id);
    }
    if args.deep {
        for schema in schemas_known::all(connection).await? {
            if let Err(error) = decoders.learn(&schema) {
                tracing::debug!(%error, "a published schema cannot be read by this release");
            }
        }
    }
    Ok(decoders)
}

fn line(audit: &PartitionAudit, lag: Option<i64>) -> Line {
    let progress = &audit.progress;
    let counts = progress.counts;
    Line {
        partition: progress.partition,
        first_offset: progress.first_offset,
        next_offset: progress.next_offset,
        results: counts.results,
        duplicates: counts.duplicates,
        dead_letters: counts.dead_letters,
        parked: counts.parked,
        gaps: counts.gaps,
        lost: counts.lost,
        lag,
        balanced: audit.balanced(),
        deep: None,
        findings: audit.findings(),
    }
}

fn print(args: &AuditArgs, lines: &[Line]) -> anyhow::Result<()> {
    let mut columns = vec![
        "partition",
        "first_offset",
        "next_offset",
        "results",
        "duplicates",
        "dead_letters",
        "parked",
        "gaps",
        "lost",
        "lag",
        "balanced",
    ];
    if args.deep {
        columns.extend(["records", "unverifiable", "missing"]);
    }
    rows(args.place.output.format, &columns, lines, |line| {
        let mut cells: Vec<String> = [
            i64::from(line.partition),
            line.first_offset,
            line.next_offset,
            line.results,
            line.duplicates,
            line.dead_letters,
            line.parked,
            line.gaps,
            line.lost,
        ]
        .iter()
        .map(ToString::to_string)
        .collect();
        cells.push(or_dash(line.lag));
        cells.push(if line.balanced { "yes" } else { "NO" }.to_owned());
        if args.deep {
            cells.push(or_dash(line.deep.as_ref().map(|deep| deep.records)));
            cells.push(or_dash(line.deep.as_ref().map(|deep| deep.unverifiable)));
            cells.push(or_dash(line.deep.as_ref().map(|deep| deep.missing)));
        }
        cells
    })
}
