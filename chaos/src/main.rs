//! `chaos`: plays rounds and says whether every law held. Exit code 0 only when all did.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use millrace_chaos::checker;
use millrace_chaos::doors;
use millrace_chaos::place::Place;
use millrace_chaos::plan::{Handlers, Plan, Size};
use millrace_chaos::report::{self, Summary};
use millrace_chaos::round;
use millrace_chaos::servers::Servers;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// Kills, freezes and cuts off workers, brokers and the database while planned tasks run, and checks every
/// law afterwards.
#[derive(Parser)]
#[command(name = "chaos", version)]
struct Arguments {
    /// Rounds to play.
    #[arg(long, env = "ROUNDS", default_value_t = 1)]
    rounds: u32,
    /// What the first round's plan is made from; each round that follows takes the next number. Drawn when
    /// not given.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// Brokers: 1 or 3.
    #[arg(long, env = "BROKERS", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    brokers: u8,
    /// Records a round, about.
    #[arg(long, default_value_t = 2_100)]
    records: u32,
    /// How long faults are injected in a round, in milliseconds.
    #[arg(long, default_value_t = 7_000)]
    storm_ms: u32,
    /// Workers at a time.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=12))]
    workers: u8,
    /// Run the stock `consumer run`, which records whatever comes, instead of `chaos-worker`.
    #[arg(long)]
    stock: bool,
    /// For so many seconds kill front doors and workers in turn while callers wait for their results, instead of
    /// playing rounds.
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["stock", "calm", "show_plan", "show_record"])]
    front_doors: Option<u32>,
    /// Inject no faults: the plan's tasks alone.
    #[arg(long)]
    calm: bool,
    /// Print the plan's faults before each round.
    #[arg(long)]
    show_plan: bool,
    /// Print what the plan says of this record, and play nothing. May be given more than once.
    #[arg(long, value_name = "N")]
    show_record: Vec<usize>,
    /// The folder of the binaries `consumer` and `chaos-worker`: that of this program when not given.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Where journals and logs of rounds with broken laws are kept.
    #[arg(long, default_value = "target/chaos")]
    keep: PathBuf,
    /// Keep those of all rounds.
    #[arg(long)]
    keep_all: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let played = tokio::select! {
        played = run(arguments) => played,
        // What was started ends with what is dropped here.
        stopped = told_to_stop() => stopped,
    };
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn told_to_stop() -> anyhow::Result<bool> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.context("listen for SIGINT")?,
    }
    bail!("told to stop: this round is not judged")
}

async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let program = std::env::current_exe().context("find this program")?;
    let beside = program.parent().context("find this program's folder")?;
    let programs = arguments.programs.unwrap_or_else(|| beside.to_owned());
    let handlers = if arguments.stock {
        Handlers::Stock
    } else {
        Handlers::Planned
    };
    let worker = match handlers {
        Handlers::Planned => "chaos-worker",
        Handlers::Stock => "consumer",
    };
    for name in ["consumer", worker] {
        let path = programs.join(name);
        ensure!(
            path.exists(),
            "{} is not built: cargo build --workspace --bins",
            path.display()
        );
    }
    let size = Size {
        records: arguments.records,
        storm_ms: arguments.storm_ms,
        workers: arguments.workers.into(),
        brokers: arguments.brokers.into(),
    };
    if let Some(seconds) = arguments.front_doors {
        ensure!(
            programs.join("producer").exists(),
            "{} is not built: cargo build --workspace --bins",
            programs.join("producer").display()
        );
        return front_doors(programs, &arguments.keep, size, seconds).await;
    }
    let first_seed = arguments.seed.unwrap_or_else(drawn);
    if !arguments.show_record.is_empty() {
        let plan = Plan::new(first_seed, size, handlers);
        for number in arguments.show_record {
            println!("{number}: {:?}", plan.records.get(number));
        }
        return Ok(true);
    }
    println!(
        "{} rounds from seed {first_seed}, {} brokers, {} workers",
        arguments.rounds, size.brokers, size.workers
    );
    let began = Instant::now();
    let servers = Arc::new(Servers::start(size.brokers).await?);
    println!("servers started in {:.1} s", began.elapsed().as_secs_f64());
    let mut summary = Summary::default();
    for number in 0..arguments.rounds {
        let seed = first_seed.wrapping_add(number.into());
        let mut plan = Plan::new(seed, size, handlers);
        if arguments.calm {
            plan.faults.clear();
        }
        if arguments.show_plan {
            for fault in &plan.faults {
                println!("  {fault}");
            }
        }
        let began = Instant::now();
        let place = Place {
            programs: programs.clone(),
            dir: arguments.keep.join(format!("seed-{seed}")),
            name: format!("chaos-{number}"),
            handlers,
        };
        // What an earlier run of this seed left is not this one's evidence.
        if place.dir.exists() {
            std::fs::remove_dir_all(&place.dir).context("delete an earlier run's evidence")?;
        }
        let played = round::play(&servers, place, plan, size)
            .await
            .with_context(|| format!("round {} (seed {seed})", number + 1))?;
        let verdict = checker::judge(&servers, &played)
            .await
            .with_context(|| format!("judging round {} (seed {seed})", number + 1))?;
        println!(
            "{}",
            summary.round(&played, &verdict, (began, Instant::now()))
        );
        if verdict.violations.is_empty() && !arguments.keep_all {
            std::fs::remove_dir_all(&played.place.dir).context("delete what is not needed")?;
        } else {
            let tables = checker::tables_of(&servers, &played)
                .await
                .context("read the tables that are kept")?;
            report::keep(&played, &verdict, &tables).context("keep the verdict")?;
        }
    }
    println!("{}", summary.text());
    Ok(summary.all_held())
}

/// Kills front doors and workers for so many seconds; whether every promise was kept.
async fn front_doors(
    programs: PathBuf,
    keep: &Path,
    size: Size,
    seconds: u32,
) -> anyhow::Result<bool> {
    let size = doors::Size {
        doors: 2,
        workers: size.workers,
        callers: 60,
        storm: Duration::from_secs(seconds.into()),
        between: Duration::from_millis(700),
    };
    let place = Place {
        programs,
        dir: keep.join("front-doors"),
        name: "chaos-doors".to_owned(),
        handlers: Handlers::Stock,
    };
    if place.dir.exists() {
        std::fs::remove_dir_all(&place.dir).context("delete an earlier run's logs")?;
    }
    let servers = Servers::start(1).await?;
    let verdict = doors::play(&servers, place, size).await?;
    println!("{verdict}");
    Ok(verdict.violations.is_empty())
}

fn drawn() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::from(now.unwrap_or_default().subsec_nanos())
}
