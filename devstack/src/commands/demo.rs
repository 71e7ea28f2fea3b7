//! `devstack demo`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use clap::builder::FalseyValueParser;
use millrace_devstack::KafkaChoice;
use millrace_devstack::demo::{self, DemoError, Plan, Screen};

/// Sends a day of Wikipedia edits through the pipeline, kills a worker on the way, and shows that
/// the counts are exact. Exit code 0 only when they are.
#[derive(Args)]
pub struct Demo {
    /// embedded, apache, or host:port of a cluster; the demo makes and deletes a topic of its own there.
    #[arg(long, env = "KAFKA", default_value = "embedded")]
    kafka: KafkaChoice,
    /// Brokers of Apache Kafka: 1 or 3.
    #[arg(long, env = "BROKERS", default_value_t = 1)]
    brokers: u8,
    /// Leave everything running; `devstack down` ends it.
    #[arg(long, env = "STAY", value_parser = FalseyValueParser::new())]
    stay: bool,
    /// Events sent per second.
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// The folder of logs, and of the stack if it stays.
    #[arg(long, default_value = ".millrace")]
    dir: PathBuf,
}

impl Demo {
    /// Returns when the summary is printed.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let program = std::env::current_exe().context("find this program")?;
        let kafka = self
            .kafka
            .with_brokers(self.brokers)
            .map_err(anyhow::Error::msg)?;
        let programs = program.parent().context("find this program's folder")?;
        let plan = Plan {
            rate: self.rate,
            dir: self.dir,
            stay: self.stay,
            ..Plan::shipped(kafka, programs.to_owned())
        };
        match demo::run(&plan, &mut Screen::standard_output()).await {
            Ok(report) => {
                println!("{report}");
                Ok(ExitCode::from(u8::from(!report.faults().is_empty())))
            }
            Err(error @ DemoError::Interrupted) => {
                eprintln!("devstack: {error}");
                Ok(ExitCode::from(130))
            }
            Err(error @ (DemoError::AlreadyRunning | DemoError::NotBuilt { .. })) => {
                Err(error.into())
            }
            Err(error) => {
                eprintln!("devstack: {error}");
                eprintln!(
                    "Everything that the demo started has ended; its logs are in {}.",
                    plan.logs().display()
                );
                Ok(ExitCode::FAILURE)
            }
        }
    }
}
