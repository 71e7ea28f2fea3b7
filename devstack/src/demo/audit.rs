//! `consumer audit --deep`: the log is read again and each record looked up.

use std::process::Stdio;

use super::place::Place;
use super::{DemoError, Plan};
use crate::DevstackError;

/// What the audit printed, and whether all adds up.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Audit {
    /// The table, one line a partition.
    pub table: String,
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
        .args(["audit", "--deep", "--log", "warn"])
        .args(plan.reading())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(DevstackError::process("run `consumer audit`"))?;
    Ok(Audit {
        table: String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned(),
        remarks: String::from_utf8_lossy(&output.stderr)
            .trim_end()
            .to_owned(),
        balanced: output.status.success(),
    })
}
