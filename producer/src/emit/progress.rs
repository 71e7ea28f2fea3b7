//! Progress on standard error: a bar on a terminal, else a log line every few seconds.
//!
//! Rate is that of the time since the last line. How much is left is told by the stored bytes of
//! the inputs, where all of them are regular files.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::summary::{Summary, grouped};

const BAR_EVERY: Duration = Duration::from_millis(100);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows how far the sending is.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    /// Stored bytes of all inputs.
    total: Option<u64>,
    every: Duration,
    shown: Instant,
    started: Instant,
    acknowledged: u64,
}

impl Progress {
    /// Begins at `now`; a bar when standard error is a terminal. `total` are the stored bytes of
    /// all inputs, if they can be known.
    pub fn begin(total: Option<u64>, now: Instant) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| bar(total));
        let every = if bar.is_some() { BAR_EVERY } else { LINE_EVERY };
        Progress {
            bar,
            total,
            every,
            shown: now,
            started: now,
            acknowledged: 0,
        }
    }

    /// Shows the counts when it is time to; `taken` are the stored bytes read so far.
    pub fn show(&mut self, now: Instant, summary: &Summary, taken: u64) {
        let since = now.saturating_duration_since(self.shown);
        if since < self.every {
            return;
        }
        let fresh = summary.acknowledged.saturating_sub(self.acknowledged);
        let rate = (fresh as f64 / since.as_secs_f64()) as u64;
        self.shown = now;
        self.acknowledged = summary.acknowledged;
        let left = self
            .total
            .and_then(|total| left(now - self.started, taken, total));
        let left = left.map_or_else(
            || "?".to_owned(),
            |left| humantime::format_duration(left).to_string(),
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position(taken);
                bar.set_message(format!(
                    "{} events  {} rejected  {}/s  {left} left",
                    grouped(summary.acknowledged),
                    grouped(summary.rejected),
                    grouped(rate)
                ));
            }
            None => tracing::info!(
                read = summary.read,
                acknowledged = summary.acknowledged,
                rejected = summary.rejected,
                events_per_s = rate,
                left,
                "emitting"
            ),
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{bar:24} {percent:>3} %  {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Whole seconds left when the bytes go on as they did.
fn left(elapsed: Duration, taken: u64, total: u64) -> Option<Duration> {
    let rest = total.saturating_sub(taken) as f64 / taken as f64;
    Duration::try_from_secs_f64((elapsed.as_secs_f64() * rest).ceil()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_the_bytes_taken() {
        let elapsed = Duration::from_secs(10);
        assert_eq!(left(elapsed, 25, 100), Some(Duration::from_secs(30)));
        assert_eq!(left(elapsed, 100, 100), Some(Duration::ZERO));
        assert_eq!(left(elapsed, 0, 100), None);
    }
}
