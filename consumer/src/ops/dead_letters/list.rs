//! `consumer dead-letters list`: which letters there are, newest first.

use millrace_settings::exit;
use millrace_store::{Purpose, letters};

use super::super::print::{or_dash, rows};
use super::args::ListArgs;
use super::line::Line;
use super::tables::Tables;

/// Characters of an error in the table; `show` has all of it.
const ERROR_WIDTH: usize = 80;

/// Prints the letters, and on standard error how many there are of each kind.
///
/// # Errors
/// When a setting is wrong or the database does not answer.
pub async fn run(args: &ListArgs) -> anyhow::Result<u8> {
    let tables = Tables::new(&args.tables)?;
    let mut connection = tables.database.connect(Purpose::Reading).await?;
    let filter = args.filter.filter(args.all);
    let selection = filter.now(&mut connection).await?;
    let most = i64::try_from(args.limit).unwrap_or(i64::MAX);
    let found = letters::list(&mut connection, &tables.consumer, &selection, most).await?;
    let lines: Vec<Line> = found.iter().map(Line::from).collect();
    let columns = [
        "place",
        "run",
        "reason",
        "task_type",
        "tenant",
        "task_id",
        "created_at",
        "state",
        "error",
    ];
    rows(args.tables.output.format, &columns, &lines, |line| {
        let error = line.error.replace('\n', " ");
        vec![
            format!("{}:{}", line.partition, line.offset),
            line.run.to_string(),
            line.reason.clone(),
            or_dash(line.task_type.clone()),
            or_dash(line.tenant.clone()),
            or_dash(line.task_id.clone()),
            line.created_at.clone(),
            line.state.to_owned(),
            error.chars().take(ERROR_WIDTH).collect(),
        ]
    })?;
    let kinds = letters::kinds(&mut connection, &tables.consumer, &selection).await?;
    let total: i64 = kinds.iter().map(|kind| kind.letters).sum();
    for kind in &kinds {
        eprintln!(
            "{} {} of type {}",
            kind.letters,
            kind.reason,
            or_dash(kind.task_type.as_ref())
        );
    }
    eprintln!("{} of {total} dead letters are shown", lines.len());
    Ok(exit::DONE)
}
