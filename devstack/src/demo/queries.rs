//! Three questions to the results, in plain SQL.

use sqlx::{Column as _, PgConnection, Row as _};

use super::DemoError;
use super::table::Table;

/// A question with its answer.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Answer {
    /// In words.
    pub question: &'static str,
    /// In SQL.
    pub sql: &'static str,
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows, as text.
    pub rows: Vec<Vec<String>>,
}

const QUESTIONS: [(&str, &str); 3] = [
    (
        "Which Wikipedias were edited most?",
        "SELECT result->>'channel' AS channel, count(*) AS edits,
       count(DISTINCT result->>'user') AS users
  FROM task_results GROUP BY 1 ORDER BY 2 DESC LIMIT 5",
    ),
    (
        "When was it busiest?",
        "SELECT to_char((result->>'time')::timestamp, 'HH24:00') AS hour_utc, count(*) AS edits
  FROM task_results GROUP BY 1 ORDER BY 2 DESC LIMIT 3",
    ),
    (
        "How much do bots write, and how much people?",
        "SELECT CASE result->>'isRobot' WHEN 'true' THEN 'bots' ELSE 'people' END AS who,
       count(*) AS edits,
       round(100.0 * count(*) / sum(count(*)) OVER (), 1) AS percent,
       sum((result->>'added')::bigint) AS characters_added
  FROM task_results GROUP BY 1 ORDER BY 2 DESC",
    ),
];

/// Asks all of them.
///
/// # Errors
/// When the database refuses or is away.
pub async fn ask(connection: &mut PgConnection) -> Result<Vec<Answer>, DemoError> {
    let mut answers = Vec::with_capacity(QUESTIONS.len());
    for (question, sql) in QUESTIONS {
        // The simple protocol answers in text, whatever the types.
        let rows = sqlx::raw_sql(sql).fetch_all(&mut *connection).await?;
        let columns = rows.first().map_or_else(Vec::new, |row| {
            row.columns().iter().map(|c| c.name().to_owned()).collect()
        });
        let mut cells = Vec::with_capacity(rows.len());
        for row in &rows {
            let line = (0..row.len()).map(|column| cell(row, column));
            cells.push(line.collect::<Result<Vec<_>, _>>()?);
        }
        answers.push(Answer {
            question,
            sql,
            columns,
            rows: cells,
        });
    }
    Ok(answers)
}

fn cell(row: &sqlx::postgres::PgRow, column: usize) -> Result<String, sqlx::Error> {
    let value = row.try_get_raw(column)?;
    value
        .as_str()
        .map(str::to_owned)
        .map_err(sqlx::Error::Decode)
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}\n", self.question)?;
        for line in self.sql.lines() {
            writeln!(f, "    {line}")?;
        }
        writeln!(f)?;
        write!(f, "{}", Table::new(&self.columns, &self.rows))
    }
}
