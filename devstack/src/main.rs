//! `devstack`: brings up Kafka and Postgres for a person or for a command, and takes them down.

mod commands;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Kafka and Postgres for demos, tests and benches.
#[derive(Parser)]
#[command(name = "devstack", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a stack in the background and write where it is to `.millrace/env`.
    Up(commands::up::Up),
    /// End the stack in the background; Apache Kafka's and Postgres' data stay.
    Down(commands::down::Down),
    /// Show the whole pipeline at work on real data.
    Demo(commands::demo::Demo),
    /// Run a command with a stack of its own, which ends with it.
    Run(commands::run::Run),
    /// Be the embedded broker of a background stack.
    #[command(hide = true)]
    Broker(commands::broker::Broker),
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,librdkafka=off")),
        )
        .init();
    let done = match Arguments::parse().command {
        Command::Up(up) => up.run().await,
        Command::Down(down) => down.run().await,
        Command::Demo(demo) => demo.run().await,
        Command::Run(run) => run.run().await,
        Command::Broker(broker) => broker.run().await,
    };
    done.unwrap_or_else(|error| {
        eprintln!("devstack: {error:#}");
        ExitCode::FAILURE
    })
}
