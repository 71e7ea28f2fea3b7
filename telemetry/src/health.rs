//! Whether the process lives, and whether it is ready, by named component with a reason.
//!
//! Alive means: every loop that promised a heartbeat has turned within its limit; an orchestrator
//! may restart a process that is not. Ready means: every component says so; an outage of Kafka or
//! Postgres makes a process unready, never dead, since restarting it would not help.

use crate::definition::{Definition, Kind};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const READY: Definition = Definition {
    name: "millrace_ready",
    kind: Kind::Gauge,
    labels: &["component"],
    help: "1 while the component is ready, else 0; /readyz says why.",
};

pub(crate) const DEFINITIONS: &[&Definition] = &[&READY];

#[derive(Debug)]
struct Heart {
    name: &'static str,
    limit: Duration,
    last_beat_ms: Arc<AtomicU64>,
}

#[derive(Debug)]
struct State {
    origin: Instant,
    components: Mutex<BTreeMap<&'static str, Result<(), String>>>,
    hearts: Mutex<Vec<Heart>>,
}

/// The health of one process. Clones are the same health.
#[derive(Clone, Debug)]
pub struct Health(Arc<State>);

/// A loop's promise to turn; the loop calls [`Heartbeat::beat`] at each turn.
#[derive(Debug)]
pub struct Heartbeat {
    origin: Instant,
    last_beat_ms: Arc<AtomicU64>,
}

/// What `/healthz` and `/readyz` answer.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// `ok` or `failing`.
    pub(crate) status: &'static str,
    /// Component or loop, and `ok` or the reason.
    pub(crate) components: BTreeMap<&'static str, String>,
}

impl Report {
    fn of(components: BTreeMap<&'static str, Result<(), String>>) -> Report {
        let well = components.values().all(Result::is_ok);
        Report {
            status: if well { "ok" } else { "failing" },
            components: components
                .into_iter()
                .map(|(name, state)| (name, state.err().unwrap_or_else(|| "ok".to_owned())))
                .collect(),
        }
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.status == "ok"
    }
}

impl Health {
    /// Alive, and unready until each of these components has said that it is ready.
    pub fn awaiting(components: &[&'static str]) -> Health {
        let starting = |name: &&'static str| (*name, Err("starting".to_owned()));
        Health(Arc::new(State {
            origin: Instant::now(),
            components: Mutex::new(components.iter().map(starting).collect()),
            hearts: Mutex::new(Vec::new()),
        }))
    }

    /// A component is ready, or is not for this reason. The reason is shown to whoever asks
    /// `/readyz`: it must hold no secret.
    pub fn ready(&self, component: &'static str, state: Result<(), String>) {
        self.0
            .components
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(component, state);
    }

    /// Registers a loop that promises to turn at least once in `limit`; it has just done so.
    pub fn heartbeat(&self, name: &'static str, limit: Duration) -> Heartbeat {
        let heartbeat = Heartbeat {
            origin: self.0.origin,
            last_beat_ms: Arc::new(AtomicU64::new(0)),
        };
        heartbeat.beat();
        self.0
            .hearts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Heart {
                name,
                limit,
                last_beat_ms: Arc::clone(&heartbeat.last_beat_ms),
            });
        heartbeat
    }

    pub(crate) fn liveness(&self) -> Report {
        let now = millis_since(self.0.origin);
        let hearts = self.0.hearts.lock().unwrap_or_else(PoisonError::into_inner);
        let check = |heart: &Heart| {
            let last = heart.last_beat_ms.load(Ordering::Relaxed);
            let silent = Duration::from_millis(now.saturating_sub(last));
            let state = if silent <= heart.limit {
                Ok(())
            } else {
                Err(format!(
                    "has not turned for {:.1} s, limit {:.1} s",
                    silent.as_secs_f64(),
                    heart.limit.as_secs_f64()
                ))
            };
            (heart.name, state)
        };
        Report::of(hearts.iter().map(check).collect())
    }

    pub(crate) fn readiness(&self) -> Report {
        let components = self
            .0
            .components
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Report::of(components.clone())
    }

    /// Sets the readiness gauges; called before each scrape.
    pub(crate) fn publish(&self) {
        let components = self
            .0
            .components
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (name, state) in components.iter() {
            READY
                .gauge(&[name])
                .set(if state.is_ok() { 1.0 } else { 0.0 });
        }
    }
}

impl Heartbeat {
    /// The loop turned. Costs one clock reading and one store.
    pub fn beat(&self) {
        self.last_beat_ms
            .store(millis_since(self.origin), Ordering::Relaxed);
    }
}

fn millis_since(origin: Instant) -> u64 {
    u64::try_from(origin.elapsed().as_millis()).unwrap_or(u64::MAX)
}
