//! `devstack broker`: the embedded broker as a process of its own.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

/// Runs the guarded embedded broker until it is told to stop.
#[derive(Args)]
pub struct Broker {
    /// Where to write the address once the broker is ready.
    #[arg(long)]
    address_file: PathBuf,
}

impl Broker {
    /// Returns at SIGTERM or SIGINT.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let broker = millrace_devstack::embedded_with_topics()?;
        // Whole or not at all: the reader takes the file's presence for readiness.
        let draft = self.address_file.with_added_extension("new");
        fs::write(&draft, broker.bootstrap())
            .and_then(|()| fs::rename(&draft, &self.address_file))
            .with_context(|| format!("write {}", self.address_file.display()))?;
        tracing::info!(address = broker.bootstrap(), "embedded broker is ready");
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let state = broker.state();
        tracing::info!(
            holds = state.holds,
            most_unread_bytes = state.most_unread,
            lost = state.lost,
            "embedded broker ends"
        );
        Ok(ExitCode::SUCCESS)
    }
}
