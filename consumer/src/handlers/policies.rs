//! The policies in force, by task type, and the file that changes them without a restart.
//!
//! At start a wrong file is refused. Later, whoever holds the receiver always has policies that were valid:
//! a file that is wrong, or gone, leaves the old ones in force and is said once in the log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use millrace_telemetry::PolicyMetrics;
use tokio::sync::watch;

use super::policy_file::{self, PolicyFileError};
use super::registry::Registry;
use super::task::TypeIndex;
use crate::engine::Policy;

/// How often the file is looked at.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where policies come from.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Handlers")]
pub struct PolicyArgs {
    /// TOML file with what holds for each task type: tables `[default]` and `[type."name"]` with mode,
    /// max_attempts, max_age, backoff_base, backoff_cap, timeout, grace, max_in_flight, park_after,
    /// run_long_after. Read again whenever it changes.
    #[arg(long, env = "MILLRACE_POLICIES", value_name = "FILE")]
    pub policies: Option<PathBuf>,
}

/// A policy for each registered type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicySet {
    by_type: Vec<Policy>,
    other: Policy,
}

impl PolicySet {
    /// What the program says, type by type, and the defaults where it says nothing.
    pub(super) fn of_program(registry: &Registry) -> Self {
        Self::new(registry, &Policy::default())
    }

    /// The same, with other defaults.
    pub(super) fn new(registry: &Registry, default: &Policy) -> Self {
        let policy = |own: &Option<Policy>| own.clone().unwrap_or_else(|| default.clone());
        Self {
            by_type: registry.types().iter().map(|t| policy(&t.policy)).collect(),
            other: default.clone(),
        }
    }

    /// The policy of a type; the default one for an index of another registry.
    #[must_use]
    pub fn get(&self, index: TypeIndex) -> &Policy {
        self.by_type
            .get(usize::from(index.0))
            .unwrap_or(&self.other)
    }

    pub(super) fn get_mut(&mut self, index: TypeIndex) -> Option<&mut Policy> {
        self.by_type.get_mut(usize::from(index.0))
    }
}

/// The policies of a worker and where they come from.
#[derive(Debug)]
pub struct Policies {
    registry: Arc<Registry>,
    file: Option<PathBuf>,
    /// What the file held when it was last looked at, right or wrong; none when it could not be read.
    seen: Option<String>,
    set: watch::Sender<Arc<PolicySet>>,
}

impl Policies {
    /// The policies at start: what the program says and, on top of it, what the file says.
    ///
    /// # Errors
    /// When there is a file and it cannot be read, or anything in it is wrong.
    pub fn load(registry: Arc<Registry>, file: Option<PathBuf>) -> Result<Self, PolicyFileError> {
        let (seen, set) = match &file {
            None => (None, PolicySet::of_program(&registry)),
            Some(path) => {
                let text = policy_file::read(path)?;
                let set = policy_file::parse(path, &text, &registry)?;
                (Some(text), set)
            }
        };
        Ok(Self {
            registry,
            file,
            seen,
            set: watch::Sender::new(Arc::new(set)),
        })
    }

    /// The policies, now and as they change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<PolicySet>> {
        self.set.subscribe()
    }

    /// Looks at the file for ever, or returns at once when there is none. To be spawned.
    pub async fn follow(mut self, every: Duration, metrics: PolicyMetrics) {
        metrics.loaded(SystemTime::now());
        let Some(path) = self.file.take() else {
            return;
        };
        loop {
            tokio::time::sleep(every).await;
            let read = {
                let path = path.clone();
                tokio::task::spawn_blocking(move || policy_file::read(&path)).await
            };
            let Ok(read) = read else {
                continue;
            };
            let is_news = self.seen.as_ref() != read.as_ref().ok();
            if !is_news {
                continue;
            }
            self.seen = read.as_ref().ok().cloned();
            let parsed = read.and_then(|text| policy_file::parse(&path, &text, &self.registry));
            match parsed {
                Ok(set) => {
                    self.set.send_if_modified(|old| {
                        let changed = **old != set;
                        *old = Arc::new(set);
                        changed
                    });
                    metrics.loaded(SystemTime::now());
                    tracing::info!(file = %path.display(), "policies were read again");
                }
                Err(error) => {
                    metrics.refused();
                    tracing::error!(%error, "the policies stay as they were");
                }
            }
        }
    }
}
