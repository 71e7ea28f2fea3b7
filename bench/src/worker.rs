//! The worker under measurement: `consumer run`, the release binary, with its default settings.

use crate::program::{Program, Running};
use crate::servers::Servers;
use crate::tables::Tables;

/// When the worker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Once everything is read and written.
    Idle,
    /// When it is told to.
    Told,
}

/// Starts a worker on the topic, in a group named like the tables.
///
/// # Errors
/// When the binary is missing or does not start.
pub fn start(
    servers: &Servers,
    tables: &Tables,
    topic: &str,
    until: Until,
) -> anyhow::Result<Running> {
    let mut program = Program::of_this_build("consumer")?;
    program.args([
        "run",
        "--kafka",
        &servers.kafka()?.bootstrap(),
        "--topic",
        topic,
    ]);
    program.args(["--database-url", &servers.url(), "--schema", tables.name()]);
    program.args(["--group", tables.name(), "--allow-unreplicated"]);
    if until == Until::Idle {
        program.args(["--exit-when-idle", "1s"]);
    }
    program.start()
}
