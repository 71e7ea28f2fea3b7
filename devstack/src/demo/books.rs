//! What Postgres says: the books of the partitions, and the results themselves.

use std::time::Duration;

use sqlx::{PgConnection, Row as _};

use super::DemoError;

/// The book of one partition and who keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionBook {
    /// The partition.
    pub partition: i32,
    /// The first offset without an outcome.
    pub next_offset: i64,
    /// The process number of the worker that holds it.
    pub owner: Option<u32>,
}

/// All partitions together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books {
    /// One by one, those that were ever claimed.
    pub partitions: Vec<PartitionBook>,
    /// Offsets with an outcome.
    pub settled: i64,
    /// Results.
    pub results: i64,
    /// Duplicates dropped.
    pub duplicates: i64,
    /// Whatever else an offset can become: dead letter, parked, gap, lost.
    pub others: i64,
}

impl Books {
    /// The partitions that a process holds.
    pub fn held_by(&self, process: u32) -> Vec<i32> {
        self.partitions
            .iter()
            .filter(|book| book.owner == Some(process))
            .map(|book| book.partition)
            .collect()
    }

    /// The outcomes of some partitions.
    pub fn settled_in(&self, partitions: &[i32]) -> i64 {
        self.partitions
            .iter()
            .filter(|book| partitions.contains(&book.partition))
            .map(|book| book.next_offset)
            .sum()
    }
}

/// Reads the books.
///
/// # Errors
/// When the database does not answer.
pub async fn read(connection: &mut PgConnection) -> Result<Books, DemoError> {
    const READ: &str = "SELECT partition, next_offset, next_offset - first_offset AS settled, results, duplicates, \
         dead_letters + parked + gaps + lost AS others, owner \
         FROM partition_progress ORDER BY partition";
    let mut books = Books::default();
    for row in sqlx::query(READ).fetch_all(connection).await? {
        // The owner is written as host:process.
        let owner: Option<String> = row.try_get("owner")?;
        let owner = owner.and_then(|owner| owner.rsplit_once(':')?.1.parse().ok());
        books.partitions.push(PartitionBook {
            partition: row.try_get("partition")?,
            next_offset: row.try_get("next_offset")?,
            owner,
        });
        books.settled += row.try_get::<i64, _>("settled")?;
        books.results += row.try_get::<i64, _>("results")?;
        books.duplicates += row.try_get::<i64, _>("duplicates")?;
        books.others += row.try_get::<i64, _>("others")?;
    }
    Ok(books)
}

/// The results' own texts.
///
/// # Errors
/// When the database does not answer.
pub async fn results(connection: &mut PgConnection) -> Result<Vec<String>, DemoError> {
    Ok(sqlx::query_scalar("SELECT result::text FROM task_results")
        .fetch_all(connection)
        .await?)
}

/// Times from submit to result.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Latency {
    /// Half of the results took less.
    pub p50: Duration,
    /// Ninety-nine of a hundred took less.
    pub p99: Duration,
    /// The same for the partitions that always had a worker.
    pub p99_undisturbed: Duration,
}

/// Reads the latencies from the rows; `disturbed` are the partitions of the killed worker.
///
/// # Errors
/// When the database does not answer.
pub async fn latency(
    connection: &mut PgConnection,
    disturbed: &[i32],
) -> Result<Latency, DemoError> {
    const READ: &str = "SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY took), \
         percentile_cont(0.99) WITHIN GROUP (ORDER BY took) FILTER (WHERE partition <> ALL ($1)) \
         FROM (SELECT partition, extract(epoch FROM completed_at - submitted_at)::float8 AS took FROM task_results) t";
    let row = sqlx::query(READ)
        .bind(disturbed)
        .fetch_one(connection)
        .await?;
    let all: Option<Vec<f64>> = row.try_get(0)?;
    let undisturbed: Option<f64> = row.try_get(1)?;
    let nth = |index: usize| all.as_ref().and_then(|all| all.get(index)).copied();
    Ok(Latency {
        p50: seconds(nth(0)),
        p99: seconds(nth(1)),
        p99_undisturbed: seconds(undisturbed),
    })
}

/// Two clocks of one machine may differ by a hair.
fn seconds(seconds: Option<f64>) -> Duration {
    Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default()
}
