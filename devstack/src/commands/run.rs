//! `devstack run`: a command with a stack of its own.

use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context as _, anyhow};
use clap::Args;
use millrace_devstack::{
    DevstackError, KafkaChoice, PrivatePostgres, ProcessMark, Stack, StackEnv, can_run_apache_kafka,
};
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

use super::migrate::migrate;

/// Runs a command with a throw-away stack; its exit code is passed on.
#[derive(Args)]
pub struct Run {
    /// embedded, apache, or host:port of a cluster to use as it is.
    #[arg(long, env = "KAFKA", default_value = "embedded")]
    kafka: KafkaChoice,
    /// Set the `MILLRACE_TEST_…` variables alone, and hide those of any other stack: tests make
    /// topics and schemas of their own, and check what happens when nothing is set.
    #[arg(long)]
    for_tests: bool,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Run {
    /// Returns when the command has ended and the stack with it.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let scratch = tempfile::tempdir().context("make a temporary folder")?;
        let not_run = scratch.path().join("not-run");
        let (program, arguments) = self.command.split_first().context("no command")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("MILLRACE_TEST_NOT_RUN", &not_run);

        let servers = self.servers().await?;
        if self.for_tests {
            for (name, _) in nowhere().variables() {
                command.env_remove(name);
            }
        } else if let Servers::Stack(stack) = &servers {
            migrate(stack.env()).await?;
            command.envs(stack.env().variables());
        }
        match &servers {
            Servers::Stack(stack) => {
                command.env("MILLRACE_TEST_DATABASE_URL", &stack.env().database_url);
                if self.kafka != KafkaChoice::Embedded {
                    command.env("MILLRACE_TEST_KAFKA", &stack.env().kafka);
                }
            }
            Servers::PostgresOnly(postgres) => {
                command.env("MILLRACE_TEST_DATABASE_URL", postgres.url());
            }
        }
        let status = wait_for(command, program).await?;
        drop(servers);
        name_suites_not_run(&not_run);
        Ok(exit_code(status))
    }

    /// Tests go on without Apache Kafka where it cannot run: those that need it say so.
    async fn servers(&self) -> Result<Servers, DevstackError> {
        let apache = matches!(self.kafka, KafkaChoice::Apache | KafkaChoice::ApacheThree);
        if self.for_tests && apache && !can_run_apache_kafka("Apache Kafka").await? {
            return Ok(Servers::PostgresOnly(Box::new(
                PrivatePostgres::start_temp().await?,
            )));
        }
        Ok(Servers::Stack(Box::new(
            Stack::start_temp(&self.kafka).await?,
        )))
    }
}

enum Servers {
    Stack(Box<Stack>),
    PostgresOnly(Box<PrivatePostgres>),
}

/// Waits for the command. Ctrl-C reaches it by itself, as a member of the same process group;
/// SIGTERM is passed on.
async fn wait_for(mut command: Command, program: &str) -> anyhow::Result<ExitStatus> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut child = command
        .spawn()
        .with_context(|| format!("start {program}"))?;
    let mark = ProcessMark::of(child.id());
    let mut ended = tokio::task::spawn_blocking(move || child.wait());
    loop {
        tokio::select! {
            status = &mut ended => return Ok(status??),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {
                mark.ok_or_else(|| anyhow!("{program} is gone"))?.signal(Signal::SIGTERM);
            }
        }
    }
}

fn name_suites_not_run(list: &Path) {
    let Ok(text) = std::fs::read_to_string(list) else {
        return;
    };
    let count = text.lines().count();
    eprintln!("\n{count} suite(s) could not run here:");
    for line in text.lines() {
        eprintln!("  {line}");
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Only its variables' names are of interest.
fn nowhere() -> StackEnv {
    StackEnv {
        kafka: String::new(),
        database_url: String::new(),
        schema: String::new(),
    }
}
