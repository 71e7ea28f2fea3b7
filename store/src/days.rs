//! The tables of single days: made ahead, attached without blocking anybody, dropped after retention.
//!
//! Days count by the database's clock alone, so a worker whose clock is wrong drops nothing. A day is
//! made as a plain table and attached (which blocks no reader or writer); it goes by
//! `DETACH … CONCURRENTLY` and `DROP` under a short lock timeout, at most one a run and table.

use millrace_schemas::Day;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use crate::trouble::Trouble;

/// How long rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Days that a result is kept after the birth day of its task. Must exceed the topic's retention.
    pub result_days: u32,
    /// Days that a deduplication key is remembered after the day it was first settled.
    pub dedup_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            result_days: 30,
            dedup_days: 7,
        }
    }
}

impl Retention {
    /// The birth days whose tasks may have a result: from the oldest kept day to tomorrow.
    #[must_use]
    pub fn window(self, today: Day) -> std::ops::RangeInclusive<Day> {
        today.plus(-days(self.result_days))..=today.plus(1)
    }

    /// The first day whose deduplication keys still count.
    #[must_use]
    pub fn dedup_from(self, today: Day) -> Day {
        today.plus(-days(self.dedup_days))
    }
}

fn days(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX / 4)
}

/// How many days beyond today always have a table.
const AHEAD: i32 = 3;

/// A table that is partitioned by day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daily {
    /// `task_results`, by birth day of the id.
    Results,
    /// `task_dedup`, by day of first settlement.
    Dedup,
}

impl Daily {
    const ALL: [Self; 2] = [Self::Results, Self::Dedup];

    /// The parent table's name.
    #[must_use]
    pub const fn table(self) -> &'static str {
        match self {
            Self::Results => "task_results",
            Self::Dedup => "task_dedup",
        }
    }

    const fn kept_days(self, retention: Retention) -> u32 {
        match self {
            Self::Results => retention.result_days,
            Self::Dedup => retention.dedup_days,
        }
    }

    /// Where the rows of these days are: in the day's own table when they are all of one, which spares the server to
    /// prepare for every other, else the parent.
    pub(crate) fn table_for(self, mut days: impl Iterator<Item = Day>) -> String {
        match days.next() {
            Some(day) if days.all(|other| other == day) => self.table_of(day),
            _ => self.table().to_owned(),
        }
    }

    /// The name of one day's own table.
    #[must_use]
    pub fn table_of(self, day: Day) -> String {
        format!("{}_{}", self.table(), day.to_string().replace('-', ""))
    }
}

/// What a maintenance round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// Days that got a table.
    pub attached: u32,
    /// Days that went.
    pub dropped: u32,
}

/// The current day by the database's clock.
///
/// # Errors
/// When the database cannot be asked.
pub async fn today(connection: &mut PgConnection) -> Result<Day, Trouble> {
    let day: i32 =
        sqlx::query_scalar("SELECT (now() AT TIME ZONE 'UTC')::date - DATE '1970-01-01'")
            .fetch_one(connection)
            .await?;
    Ok(Day::new(day))
}

/// Makes every day of the window and a few ahead. One worker at a time does it; the others find it done.
/// Returns how many days were new.
///
/// # Errors
/// When the database cannot be reached or a lock is not had in time; what was attached stays.
pub async fn ensure(connection: &mut PgConnection, retention: Retention) -> Result<u32, Trouble> {
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "SELECT pg_advisory_xact_lock(hashtextextended('millrace.days.' || current_schema(), 0))",
    )
    .execute(&mut *transaction)
    .await?;
    let today = today(&mut transaction).await?;
    let mut attached = 0;
    for daily in Daily::ALL {
        let present = tables(&mut transaction, daily).await?;
        let first = today.plus(-days(daily.kept_days(retention)));
        let mut day = first;
        while day <= today.plus(AHEAD) {
            match present.iter().find(|table| table.day == day) {
                None => {
                    make(&mut transaction, daily, day).await?;
                    attach(&mut transaction, daily, day).await?;
                    attached += 1;
                }
                // The retention was raised after a drop had begun: what is left of the day comes back.
                Some(table) if table.hanging == Hanging::Detached => {
                    attach(&mut transaction, daily, day).await?;
                    attached += 1;
                }
                Some(_) => {}
            }
            day = day.plus(1);
        }
    }
    transaction.commit().await?;
    Ok(attached)
}

async fn make(connection: &mut PgConnection, daily: Daily, day: Day) -> Result<(), Trouble> {
    let (parent, child) = (daily.table(), daily.table_of(day));
    sqlx::query(AssertSqlSafe(format!(
        "CREATE TABLE {child} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)"
    )))
    .execute(connection)
    .await?;
    Ok(())
}

async fn attach(connection: &mut PgConnection, daily: Daily, day: Day) -> Result<(), Trouble> {
    let (parent, child, next) = (daily.table(), daily.table_of(day), day.plus(1));
    sqlx::query(AssertSqlSafe(format!(
        "ALTER TABLE {parent} ATTACH PARTITION {child} FOR VALUES FROM ('{day}') TO ('{next}')"
    )))
    .execute(connection)
    .await?;
    Ok(())
}

struct DayTable {
    name: String,
    day: Day,
    hanging: Hanging,
}

/// How a day's table hangs on its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hanging {
    Attached,
    /// A detach was interrupted: it must be finalised.
    Detaching,
    /// A drop was interrupted after the detach: only the drop is left.
    Detached,
}

async fn tables(connection: &mut PgConnection, daily: Daily) -> Result<Vec<DayTable>, Trouble> {
    let rows = sqlx::query(
        "SELECT c.relname::text AS name, i.inhdetachpending AS detaching \
         FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid \
         WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' \
         AND c.relname ~ ('^' || $1 || '_[0-9]{8}$') ORDER BY c.relname",
    )
    .bind(daily.table())
    .fetch_all(connection)
    .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let name: String = row.try_get("name")?;
        if let Some(day) = day_of(&name) {
            let hanging = match row.try_get::<Option<bool>, _>("detaching")? {
                Some(false) => Hanging::Attached,
                Some(true) => Hanging::Detaching,
                None => Hanging::Detached,
            };
            found.push(DayTable { name, day, hanging });
        }
    }
    Ok(found)
}

/// Reads the day back from a table's name, `…_YYYYMMDD`.
fn day_of(table: &str) -> Option<Day> {
    let (_, digits) = table.rsplit_once('_')?;
    let date = chrono::NaiveDate::parse_from_str(digits, "%Y%m%d").ok()?;
    let since = date
        .signed_duration_since(chrono::NaiveDate::default())
        .num_days();
    i32::try_from(since).ok().map(Day::new)
}

/// One round of upkeep: days ahead are made, and at most one day of each table that is past its retention
/// goes. The results that go are counted by log partition first, for the audit.
///
/// # Errors
/// When the database cannot be reached, or a lock was not to be had: the next round tries again.
pub async fn maintain(
    connection: &mut PgConnection,
    retention: Retention,
) -> Result<Round, Trouble> {
    let attached = ensure(connection, retention).await?;
    let today = today(connection).await?;
    let mut dropped = 0;
    // A detach cannot run in a transaction, so this lock is the session's; one worker at a time drops.
    let alone: bool = sqlx::query_scalar(
        "SELECT pg_try_advisory_lock(hashtextextended('millrace.drop.' || current_schema(), 0))",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !alone {
        return Ok(Round { attached, dropped });
    }
    for daily in Daily::ALL {
        let oldest_kept = today.plus(-days(daily.kept_days(retention)));
        let expired = tables(connection, daily)
            .await?
            .into_iter()
            .find(|table| table.day < oldest_kept);
        if let Some(table) = expired {
            drop_day(connection, daily, &table).await?;
            dropped += 1;
        }
    }
    sqlx::query(
        "SELECT pg_advisory_unlock(hashtextextended('millrace.drop.' || current_schema(), 0))",
    )
    .execute(connection)
    .await?;
    Ok(Round { attached, dropped })
}

async fn drop_day(
    connection: &mut PgConnection,
    daily: Daily,
    table: &DayTable,
) -> Result<(), Trouble> {
    let (parent, child) = (daily.table(), &table.name);
    // Counting a large day takes its time; nobody waits for it, since nobody reads or writes the day any more.
    for setting in ["SET lock_timeout = '2s'", "SET statement_timeout = '1h'"] {
        sqlx::query(setting).execute(&mut *connection).await?;
    }
    let how = match table.hanging {
        Hanging::Attached => Some("CONCURRENTLY"),
        Hanging::Detaching => Some("FINALIZE"),
        Hanging::Detached => None,
    };
    if let Some(how) = how {
        sqlx::query(AssertSqlSafe(format!(
            "ALTER TABLE {parent} DETACH PARTITION {child} {how}"
        )))
        .execute(&mut *connection)
        .await?;
    }
    let mut transaction = connection.begin().await?;
    // A flush that began before midnight may still write to the day: nothing comes after the count.
    sqlx::query(AssertSqlSafe(format!(
        "LOCK TABLE {child} IN ACCESS EXCLUSIVE MODE"
    )))
    .execute(&mut *transaction)
    .await?;
    if daily == Daily::Results {
        sqlx::query(AssertSqlSafe(format!(
            "INSERT INTO dropped_days (day, topic, partition, results) \
             SELECT day, topic, partition, count(*) FILTER (WHERE duplicate_of IS NULL AND status <> 'failed') \
             FROM {child} GROUP BY day, topic, partition \
             ON CONFLICT (day, topic, partition) DO UPDATE SET results = dropped_days.results + excluded.results"
        )))
        .execute(&mut *transaction)
        .await?;
    }
    sqlx::query(AssertSqlSafe(format!("DROP TABLE {child}")))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    for setting in ["RESET lock_timeout", "RESET statement_timeout"] {
        sqlx::query(setting).execute(&mut *connection).await?;
    }
    tracing::info!(table = child, "a day past its retention was dropped");
    Ok(())
}

/// The oldest day that still has a table.
///
/// # Errors
/// When the database cannot be read.
pub async fn oldest(connection: &mut PgConnection, daily: Daily) -> Result<Option<Day>, Trouble> {
    let tables = tables(connection, daily).await?;
    Ok(tables
        .iter()
        .filter(|table| table.hanging == Hanging::Attached)
        .map(|table| table.day)
        .min())
}
