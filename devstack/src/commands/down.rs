//! `devstack down`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use millrace_devstack::Background;

/// Ends the stack in the background.
#[derive(Args)]
pub struct Down {
    /// The stack's folder.
    #[arg(long, default_value = ".millrace")]
    dir: PathBuf,
}

impl Down {
    /// Returns when its servers have ended.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        if !self.dir.exists() {
            println!("Nothing is running.");
            return Ok(ExitCode::SUCCESS);
        }
        let program = std::env::current_exe().context("find this program")?;
        let ended = Background::of(&self.dir, program)?.down().await?;
        if ended.is_empty() {
            println!("Nothing is running.");
        } else {
            println!("Ended: {}.", ended.join(", "));
        }
        Ok(ExitCode::SUCCESS)
    }
}
