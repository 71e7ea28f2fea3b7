//! The `consumer` binary: parses the command line, starts logging and the runtime, runs one command.

use std::process::ExitCode;

use clap::Parser as _;
use millrace_consumer::handlers::Prepared;
use millrace_consumer::options::{Cli, Command, PositionCommand};
use millrace_consumer::{exit_code, ops, worker};
use millrace_settings::{LogFormat, TelemetryArgs, exit};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(&cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(exit_code::of(&error))
        }
    }
}

fn execute(command: &Command) -> anyhow::Result<u8> {
    if let Command::Healthcheck(args) = command {
        return Ok(match millrace_telemetry::probe(args.metrics_listen) {
            Ok(()) => exit::DONE,
            Err(error) => {
                eprintln!("{error}");
                exit::REJECTED
            }
        });
    }
    if let Some(telemetry) = telemetry_of(command) {
        let format = match telemetry.log_format {
            LogFormat::Text => millrace_telemetry::LogFormat::Text,
            LogFormat::Json => millrace_telemetry::LogFormat::Json,
        };
        millrace_telemetry::logging::init(telemetry.log.as_deref(), format)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let code = runtime.block_on(async {
        match command {
            Command::Run(args) => worker::run(args, Prepared::stock(args)?).await,
            Command::Migrate(args) => ops::migrate::run(args).await,
            Command::Audit(args) => ops::audit::run(args).await,
            Command::Status(args) => ops::status::run(args).await,
            Command::Position(args) => match &args.command {
                PositionCommand::Show(args) => ops::position::show(args).await,
                PositionCommand::Set(args) => ops::position::set(args).await,
            },
            Command::DeadLetters(args) => ops::dead_letters::run(args).await,
            Command::Task(args) => ops::task::run(args).await,
            Command::Pause(args) => ops::pause::pause(args).await,
            Command::Resume(args) => ops::pause::resume(args).await,
            Command::Cancel(args) => ops::cancel::run(args).await,
            Command::Callbacks(args) => ops::callbacks::run(args).await,
            Command::Healthcheck(_) => Ok(exit::DONE),
        }
    });
    // A question to a broker that is away must not hold up the end.
    runtime.shutdown_background();
    code.map_err(exit_code::explained)
}

fn telemetry_of(command: &Command) -> Option<&TelemetryArgs> {
    match command {
        Command::Run(args) => Some(&args.place.telemetry),
        Command::Migrate(args) => Some(&args.telemetry),
        Command::Audit(args) => Some(&args.place.telemetry),
        Command::Status(args) => Some(&args.telemetry),
        Command::Position(args) => match &args.command {
            PositionCommand::Show(args) => Some(&args.telemetry),
            PositionCommand::Set(args) => Some(&args.place.telemetry),
        },
        Command::DeadLetters(args) => Some(args.telemetry()),
        Command::Task(args) => Some(&args.telemetry),
        Command::Pause(args) => Some(&args.telemetry),
        Command::Resume(args) => Some(&args.place.telemetry),
        Command::Cancel(args) => Some(&args.telemetry),
        Command::Callbacks(args) => Some(args.telemetry()),
        Command::Healthcheck(_) => None,
    }
}
