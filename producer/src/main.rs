//! The `producer` binary: reads flags, sets up logging, metrics and signals, and turns the outcome
//! into an exit code.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use millrace_producer::door::keys::{KeysArgs, LimitsArgs, run_keys, run_limits};
use millrace_producer::door::{ServeArgs, prepare};
use millrace_producer::emit::{Emit, EmitArgs, Interrupt, Plan, Rejects, Report};
use millrace_producer::{Submitter, Topic};
use millrace_schemas::Framing;
use millrace_settings::{Format, LogFormat, Role, TelemetryArgs, check_replication, exit};
use millrace_telemetry::{EmitMetrics, Health, logging};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Also serves the Kafka client, whose messages and headers are a good part of the work: with the
/// system's allocator an event costs about a quarter more processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the brokers may take to answer at start.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a broker for development may take to tell the topic's limits; the embedded one never
/// does.
const BRIEFLY: Duration = Duration::from_secs(1);

/// Send task events into Kafka
#[derive(Parser)]
#[command(name = "producer", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Emit(Box<EmitArgs>),
    Serve(Box<ServeArgs>),
    Keys(KeysArgs),
    Limits(LimitsArgs),
    Healthcheck(HealthcheckArgs),
}

/// Ask a running producer whether it lives: for container health checks. Exit code 0 when it does.
#[derive(Args)]
struct HealthcheckArgs {
    /// Where the producer listens
    #[arg(
        long,
        env = "MILLRACE_METRICS_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9464"
    )]
    metrics_listen: SocketAddr,
}

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Emit(args) => set_up_logging(&args.telemetry).and_then(|()| emit(&args)),
        Command::Serve(args) => set_up_logging(&args.telemetry).and_then(|()| serve(*args)),
        Command::Keys(args) => command(run_keys(&args)),
        Command::Limits(args) => command(run_limits(&args)),
        Command::Healthcheck(args) => Ok(healthcheck(&args)),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        // Nothing was sent yet: whatever goes wrong up to there is a setting or its surroundings.
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(exit::USAGE)
        }
    }
}

fn healthcheck(args: &HealthcheckArgs) -> u8 {
    match millrace_telemetry::probe(args.metrics_listen) {
        Ok(()) => exit::DONE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            exit::REJECTED
        }
    }
}

fn set_up_logging(telemetry: &TelemetryArgs) -> anyhow::Result<()> {
    let format = match telemetry.log_format {
        LogFormat::Text => logging::LogFormat::Text,
        LogFormat::Json => logging::LogFormat::Json,
    };
    Ok(logging::init(telemetry.log.as_deref(), format)?)
}

fn emit(args: &EmitArgs) -> anyhow::Result<u8> {
    let plan = args.plan(io::stdin().is_terminal())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let interrupt = Interrupt::default();
    runtime.spawn(
        interrupt
            .clone()
            .on_signals(|| std::process::exit(i32::from(exit::INTERRUPTED))),
    );
    let health = Health::awaiting(&["kafka"]);
    listen(&runtime, &args.telemetry, &health)?;
    let connected = runtime.block_on(async {
        tokio::select! {
            connected = connect(args) => connected.map(Some),
            () = interrupt.asked() => Ok(None),
        }
    });
    let Some(submitter) = connected? else {
        return Ok(exit::INTERRUPTED);
    };
    health.ready("kafka", Ok(()));
    let rejects = match &plan.rejects {
        None => None,
        Some(path) => {
            let rejects = Rejects::create(path);
            Some(rejects.with_context(|| format!("cannot write --rejects {}", path.display()))?)
        }
    };
    let metrics = EmitMetrics::new(&args.kafka.topic);
    let emit =
        Emit::new(&plan, submitter, rejects, interrupt, metrics).context("cannot start reading")?;
    let report = emit.run();
    tell(&report, &plan, args.output.format)?;
    // A read that blocks must not keep the process alive.
    runtime.shutdown_background();
    Ok(report.exit_code())
}

/// Runs a command that asks the database and ends.
fn command(command: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(command)
}

fn serve(args: ServeArgs) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let interrupt = Interrupt::default();
    runtime.spawn(
        interrupt
            .clone()
            .on_signals(|| std::process::exit(i32::from(exit::INTERRUPTED))),
    );
    let health = Health::awaiting(&["kafka", "database"]);
    listen(&runtime, &args.telemetry, &health)?;
    let ended = runtime.block_on(async {
        let prepared = tokio::select! {
            prepared = prepare(args) => prepared?,
            () = interrupt.asked() => return Ok(exit::INTERRUPTED),
        };
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        tokio::spawn(async move {
            interrupt.asked().await;
            stopping.cancel();
        });
        prepared.serve(health, stop).await?;
        Ok(exit::DONE)
    });
    runtime.shutdown_background();
    ended
}

fn listen(runtime: &Runtime, args: &TelemetryArgs, health: &Health) -> anyhow::Result<()> {
    let Some(address) = args.metrics_listen else {
        return Ok(());
    };
    let served = millrace_telemetry::serve(address, health.clone(), CancellationToken::new());
    let bound = runtime
        .block_on(served)
        .with_context(|| format!("cannot listen on --metrics-listen {address}"))?;
    let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
    millrace_telemetry::build_info(&librdkafka);
    // Printed whatever the log filter says: with port 0 nobody could know the address otherwise.
    writeln!(io::stderr(), "metrics at http://{bound}/metrics")
        .context("cannot write to standard error")
}

async fn connect(args: &EmitArgs) -> anyhow::Result<Submitter> {
    let kafka = &args.kafka;
    let config = kafka.client_config(Role::Producer)?;
    let framing = match args.framing.schema_id {
        None => Framing::SingleObject,
        Some(schema_id) => Framing::Confluent { schema_id },
    };
    let limit_patience = if kafka.allow_unreplicated {
        BRIEFLY
    } else {
        PATIENCE
    };
    let (topic, replicated) = tokio::join!(
        Topic::find(&config, &kafka.topic, PATIENCE, limit_patience),
        check_replication(kafka),
    );
    let topic = topic?;
    replicated?;
    tracing::debug!(topic = kafka.topic, ?topic, "the topic is there");
    Ok(Submitter::new(
        config,
        &kafka.topic,
        &topic,
        framing,
        args.max_event_bytes,
    )?)
}

fn tell(report: &Report, plan: &Plan, format: Format) -> anyhow::Result<()> {
    let mut errors = io::stderr().lock();
    for line in report.words(plan) {
        // Whoever closed standard error does not want to know.
        let _ = writeln!(errors, "{line}");
    }
    let mut out = io::stdout().lock();
    match format {
        Format::Table => write!(out, "{}", report.summary),
        Format::Json => writeln!(out, "{}", serde_json::to_string(&report.summary)?),
    }
    .and_then(|()| out.flush())
    .context("cannot write the summary")
}
