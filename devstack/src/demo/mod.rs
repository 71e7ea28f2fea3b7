//! The demo: real data through the whole pipeline, with a worker killed half-way.
//!
//! A file of edits is sent by `producer emit --once`, its end is sent a second time, and
//! `consumer run` processes write each edit to Postgres once, although one of them is killed with
//! SIGKILL while it holds events that it has read and not yet written. What is shown at the end is
//! looked up in Kafka's log and in Postgres, not in the programs that did the work.
//!
//! Everything that the demo starts ends with it, also on Ctrl-C and on errors, unless it is told
//! to stay; then `devstack down` ends it.

mod audit;
mod books;
mod emission;
mod error;
mod kill;
mod lines;
mod log_ends;
mod place;
mod play;
mod progress;
mod queries;
mod summary;
mod table;
mod words;
mod workers;

pub use audit::Audit;
pub use error::DemoError;
pub use progress::Screen;
pub use queries::Answer;
pub use summary::{Figures, Report};

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{DevstackError, KafkaChoice, StackRecord};
use place::Place;
use play::play;
use workers::Crew;

/// What is done, with what and where.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which Kafka.
    pub kafka: KafkaChoice,
    /// NDJSON packed with gzip, no two lines the same.
    pub file: PathBuf,
    /// How many of the last lines are sent a second time.
    pub sent_again: usize,
    /// Events sent per second.
    pub rate: u32,
    /// The folder of logs, and of the stack if it stays.
    pub dir: PathBuf,
    /// The folder of the `producer`, `consumer` and `devstack` binaries.
    pub programs: PathBuf,
    /// Leave everything running.
    pub stay: bool,
}

impl Plan {
    /// The shipped data at a rate that leaves time to watch, with the binaries of `programs`.
    #[must_use]
    pub fn shipped(kafka: KafkaChoice, programs: PathBuf) -> Self {
        let file = "data/wikipedia-edits-2015-09-12.ndjson.gz";
        Self {
            kafka,
            file: Path::new(env!("CARGO_MANIFEST_DIR")).join(file),
            sent_again: 5_000,
            rate: 3_000,
            dir: PathBuf::from(".millrace"),
            programs,
            stay: false,
        }
    }

    /// The folder of the logs of producer and workers. Workers that stay keep theirs apart, so
    /// that the next demo does not write into them.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        let logs = self.dir.join("logs");
        if self.stay { logs.join("stay") } else { logs }
    }

    /// How long a worker may be silent before the group goes on without it: short, so that the
    /// take-over can be watched. Kafka's own least, unless the broker is ours and allows less.
    fn session(&self) -> Duration {
        match self.kafka {
            // It waits for the living about as long again.
            KafkaChoice::Embedded => Duration::from_secs(2),
            KafkaChoice::Apache | KafkaChoice::ApacheThree => Duration::from_secs(3),
            KafkaChoice::Given(_) => Duration::from_secs(6),
        }
    }

    /// What a reader of the log has to know about this Kafka, as flags.
    fn reading(&self) -> &'static [&'static str] {
        match self.kafka {
            // A waiting fetch is not woken by a new record there.
            KafkaChoice::Embedded => &["-X", "fetch.wait.max.ms=20"],
            KafkaChoice::Apache | KafkaChoice::ApacheThree | KafkaChoice::Given(_) => &[],
        }
    }

    fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    fn check(&self) -> Result<(), DemoError> {
        for name in ["producer", "consumer"] {
            let path = self.program(name);
            if !path.exists() {
                return Err(DemoError::NotBuilt { path });
            }
        }
        if self.stay && StackRecord::load(&self.dir)?.is_some_and(|record| record.is_running()) {
            return Err(DemoError::AlreadyRunning);
        }
        Ok(())
    }
}

/// Runs the demo. The report says whether the counts are exact.
///
/// # Errors
/// When something could not be started, ended on its own, or made no progress; or on Ctrl-C and
/// SIGTERM. Everything that was started has ended then.
pub async fn run(plan: &Plan, screen: &mut Screen) -> Result<Report, DemoError> {
    plan.check()?;
    let lines = lines::read(&plan.file)?;
    screen.title(lines.len());
    screen.say(&format!("starting Postgres and Kafka ({})", plan.kafka));
    let mut signals = Signals::listen()?;
    let place = tokio::select! {
        place = Place::open(plan) => place?,
        // What is started for the background has to be known before it can be ended.
        () = signals.received(), if !plan.stay => return Err(DemoError::Interrupted),
    };
    let mut crew = Crew::default();
    let played = tokio::select! {
        report = play(plan, &place, &lines, &mut crew, screen) => report,
        () = signals.received() => Err(DemoError::Interrupted),
    };
    screen.clear();
    match played {
        Ok(report) if plan.stay => Ok(report.kept(place.keep(crew)?)),
        Ok(report) => {
            let stopped = crew.stop().await;
            place.end().await?;
            stopped.map(|()| report)
        }
        Err(error) => {
            drop(crew);
            // The first error is the one to tell.
            let _ = place.end().await;
            Err(error)
        }
    }
}

/// Ctrl-C and SIGTERM, from now on.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, DevstackError> {
        let listen = |kind| signal(kind).map_err(DevstackError::process("listen for signals"));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
