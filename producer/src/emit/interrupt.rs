//! Ctrl-C and SIGTERM. The first one asks `emit` to stop reading and to wait shortly for what is in
//! flight; the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Whether somebody asked to stop.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Asks to stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether a stop was asked for.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Waits until a stop is asked for.
    pub async fn asked(&self) {
        while !self.requested() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for the signals: asks to stop at the first and calls `at_once` at the second. Never
    /// returns by itself.
    pub async fn on_signals(self, at_once: impl FnOnce()) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminations = signal(SignalKind::terminate())?;
        for first in [true, false] {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {}
            }
            if first {
                tracing::info!(
                    "stopping: waiting for what is in flight; interrupt again to stop at once"
                );
                self.request();
            }
        }
        at_once();
        Ok(())
    }
}
