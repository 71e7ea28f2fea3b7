//! The worker under measurement, a release binary with its default settings: `consumer run`, or a worker with
//! a handler of its own.

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

/// Who works on the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handler {
    /// The stock worker, `consumer run`: a task's result is its payload, and it passes no lane.
    Record,
    /// A handler that does nothing, for tasks of this type. The result is `null`.
    Empty(&'static str),
    /// A handler whose result is the payload: the rows are those of the stock worker.
    Echo(&'static str),
    /// A handler that waits for as many microseconds as the payload says, and adds up how long it really took.
    Work(&'static str),
}

/// Starts a worker on the topic, in a group named like the tables.
///
/// # Errors
/// When the binary is missing or does not start.
pub fn start(
    servers: &Servers,
    tables: &Tables,
    topic: &str,
    handler: Handler,
    until: Until,
) -> anyhow::Result<Running> {
    let own = |name, task_type| {
        let mut program = Program::of_this_build("bench-worker")?;
        program.args(["--handler", name, "--task-type", task_type]);
        anyhow::Ok(program)
    };
    let mut program = match handler {
        Handler::Record => {
            let mut program = Program::of_this_build("consumer")?;
            program.args(["run"]);
            program
        }
        Handler::Empty(task_type) => own("empty", task_type)?,
        Handler::Echo(task_type) => own("echo", task_type)?,
        Handler::Work(task_type) => own("work", task_type)?,
    };
    program.args(["--kafka", &servers.kafka()?.bootstrap(), "--topic", topic]);
    program.args(["--database-url", &servers.url(), "--schema", tables.name()]);
    program.args(["--group", tables.name(), "--allow-unreplicated"]);
    if until == Until::Idle {
        program.args(["--exit-when-idle", "1s"]);
    }
    program.start()
}
