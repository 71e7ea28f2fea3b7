//! Makes the tables of a stack with the `consumer` binary that was built beside this one.

use std::process::Command;

use anyhow::{Context as _, ensure};
use millrace_devstack::StackEnv;

/// Runs `consumer migrate`; without the binary, says so and leaves it to the reader.
pub async fn migrate(env: &StackEnv) -> anyhow::Result<()> {
    let here = std::env::current_exe().context("find this program's own folder")?;
    let consumer = here.with_file_name("consumer");
    if !consumer.exists() {
        eprintln!(
            "no tables yet: {} is not built (cargo build --workspace --bins); then run \
             `consumer migrate`",
            consumer.display()
        );
        return Ok(());
    }
    let mut command = Command::new(&consumer);
    command.arg("migrate").envs(env.variables());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await?
        .with_context(|| format!("run {}", consumer.display()))?;
    ensure!(
        output.status.success(),
        "`consumer migrate` failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
