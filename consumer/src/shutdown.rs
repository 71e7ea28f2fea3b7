//! The two signals: the first drains, the second ends at once.
//!
//! SIGINT and SIGTERM mean the same. Nothing is lost by the second one, only repeated: what was not
//! written is read again by whoever comes next.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels the token at the first signal, and ends the process with `exit::INTERRUPTED` at the second.
///
/// # Errors
/// When the signals cannot be listened to.
pub fn on_signals(stop: CancellationToken) -> std::io::Result<()> {
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::spawn(async move {
        next(&mut interrupt, &mut terminate).await;
        stop.cancel();
        next(&mut interrupt, &mut terminate).await;
        tracing::warn!("second signal: ending now; what was not written is read again");
        std::process::exit(millrace_settings::exit::INTERRUPTED.into());
    });
    Ok(())
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
