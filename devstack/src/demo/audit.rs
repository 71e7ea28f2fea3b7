//! `consumer audit --deep`: the log is read again and each record looked up.
//!
//! Shown with a sum below, and without those columns that are zero everywhere.

use std::fmt;
use std::process::Stdio;

use serde_json::Value;

use super::place::Place;
use super::table::Table;
use super::{DemoError, Plan};
use crate::DevstackError;

/// Always shown.
const COLUMNS: [&str; 5] = [
    "partition",
    "first_offset",
    "next_offset",
    "results",
    "duplicates",
];
/// Shown when there is any.
const OTHERS: [&str; 4] = ["dead_letters", "parked", "gaps", "lost"];
const STATE: [&str; 2] = ["lag", "balanced"];
/// Found by reading the log again.
const DEEP: [&str; 3] = ["records", "unverifiable", "missing"];

/// What the audit found, and whether all adds up.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Audit {
    /// One object a partition, as the audit printed them.
    pub partitions: Vec<Value>,
    /// What does not add up, and the verdict.
    pub remarks: String,
    /// Exit code 0.
    pub balanced: bool,
}

/// Runs the audit.
///
/// # Errors
/// When the process cannot be started.
pub async fn audit(plan: &Plan, place: &Place) -> Result<Audit, DemoError> {
    let mut command = tokio::process::Command::from(place.command(plan.program("consumer")));
    let output = command
        .args(["audit", "--deep", "--format", "json", "--log", "warn"])
        .args(plan.reading())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(DevstackError::process("run `consumer audit`"))?;
    // An audit that failed says why on standard error, and prints nothing.
    let partitions: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok(Audit {
        remarks: String::from_utf8_lossy(&output.stderr)
            .trim_end()
            .to_owned(),
        balanced: output.status.success() && !partitions.is_empty(),
        partitions,
    })
}

impl Audit {
    fn sum(&self, column: &str) -> i64 {
        let values = self
            .partitions
            .iter()
            .filter_map(|line| field(line, column));
        values.filter_map(Value::as_i64).sum()
    }

    fn columns(&self) -> Vec<String> {
        let any = |column: &&str| self.sum(column) != 0;
        let [records, unverifiable, missing] = DEEP;
        COLUMNS
            .into_iter()
            .chain(OTHERS.into_iter().filter(any))
            .chain([records])
            .chain([unverifiable].into_iter().filter(any))
            .chain([missing])
            .chain(STATE)
            .map(str::to_owned)
            .collect()
    }

    fn rows(&self, columns: &[String]) -> Vec<Vec<String>> {
        let line = |line: &Value| {
            let cell = |column: &String| field(line, column).map_or_else(String::new, shown);
            columns.iter().map(cell).collect()
        };
        let sum = columns.iter().map(|column| match column.as_str() {
            "partition" => "sum".to_owned(),
            "balanced" => if self.balanced { "yes" } else { "NO" }.to_owned(),
            _ => self.sum(column).to_string(),
        });
        let sum = sum.collect();
        self.partitions.iter().map(line).chain([sum]).collect()
    }
}

/// What the deep audit found is an object inside the line.
fn field<'a>(line: &'a Value, column: &str) -> Option<&'a Value> {
    if DEEP.contains(&column) {
        line.get("deep")?.get(column)
    } else {
        line.get(column)
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "NO".to_owned(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  Every offset from first to next has to be a result, a duplicate, or set aside with a reason.\n  \
             The records were read from Kafka once more, and each of them looked up in Postgres.\n"
        )?;
        let columns = self.columns();
        write!(f, "{}", Table::new(&columns, &self.rows(&columns)))?;
        write!(f, "\n  {}", self.remarks.replace('\n', "\n  "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_of_zeros_is_left_out_and_the_rest_is_summed_up() {
        let line = |partition: i64, lost: i64| {
            serde_json::json!({
                "partition": partition, "first_offset": 0, "next_offset": 9, "results": 9, "duplicates": 0,
                "dead_letters": 0, "parked": 0, "gaps": 0, "lost": lost, "lag": 0, "balanced": true,
                "deep": {"records": 9, "unverifiable": 0, "missing": 0},
            })
        };
        let audit = |lost: i64| Audit {
            partitions: vec![line(0, 0), line(1, lost)],
            remarks: String::new(),
            balanced: true,
        };
        assert!(!audit(0).columns().contains(&"lost".to_owned()));
        let columns = audit(2).columns();
        assert!(columns.contains(&"lost".to_owned()));
        let rows = audit(2).rows(&columns);
        let sum = ["sum", "0", "18", "18", "0", "2", "18", "0", "0", "yes"].map(str::to_owned);
        assert_eq!(rows.last(), Some(&sum.to_vec()));
    }
}
