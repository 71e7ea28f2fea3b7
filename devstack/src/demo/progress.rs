//! The screen: what just happened, line by line, and below it how far everything is.
//!
//! On a terminal the last line is drawn anew again and again; elsewhere it is printed every two
//! seconds.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::play::Look;
use super::words::grouped;

const LINE_EVERY: Duration = Duration::from_secs(2);
/// Over which the rate is measured.
const RATE_OVER: Duration = Duration::from_secs(1);

/// Where the demo is watched.
pub struct Screen {
    began: Instant,
    bar: Option<ProgressBar>,
    shown: Option<Instant>,
    /// When the rate was last measured, and the results of that moment.
    measured: (Instant, i64),
    rate: i64,
}

impl Screen {
    /// Standard output.
    #[must_use]
    pub fn standard_output() -> Self {
        Self::new(std::io::stdout().is_terminal().then(bar))
    }

    /// Standard output, printed line by line even if it is a terminal.
    #[must_use]
    pub fn plain() -> Self {
        Self::new(None)
    }

    fn new(bar: Option<ProgressBar>) -> Self {
        let now = Instant::now();
        Self {
            began: now,
            bar,
            shown: None,
            measured: (now, 0),
            rate: 0,
        }
    }

    pub(super) fn title(&self, lines: usize) {
        let lines = grouped(i64::try_from(lines).unwrap_or_default());
        self.print(&format!(
            "\nMillrace demo. {lines} edits, a day of Wikipedia, go through Kafka, and each becomes one row\n\
             in Postgres, although a worker is killed on the way.\n"
        ));
    }

    /// Something happened.
    pub(super) fn say(&self, what: &str) {
        self.print(&format!(
            "{:6.1} s  {what}",
            self.began.elapsed().as_secs_f64()
        ));
    }

    /// How far everything is, of so many events in all.
    pub(super) fn show(&mut self, look: &Look, expected: i64) {
        if look.sent == 0 {
            return;
        }
        let now = Instant::now();
        let (at, settled) = self.measured;
        let since = now.saturating_duration_since(at);
        if since >= RATE_OVER {
            let fresh = (look.books.settled - settled) as f64;
            self.rate = (fresh / since.as_secs_f64()) as i64;
            self.measured = (now, look.books.settled);
        }
        let line = format!(
            "sent {:>6}  results {:>6}  lag {:>6}  {:>6}/s  workers {}",
            grouped(look.sent),
            grouped(look.books.results),
            grouped((look.sent - look.books.settled).max(0)),
            grouped(self.rate),
            look.workers
        );
        if let Some(bar) = &self.bar {
            bar.set_length(u64::try_from(expected).unwrap_or_default());
            bar.set_position(u64::try_from(look.books.settled).unwrap_or_default());
            bar.set_message(line);
        } else if self.shown.is_none_or(|shown| now - shown >= LINE_EVERY) {
            self.shown = Some(now);
            self.say(&format!("  {line}"));
        }
    }

    /// Takes the drawn line away.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn print(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{text}")),
            None => println!("{text}"),
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stdout());
    match ProgressStyle::with_template("[{wide_bar}] {msg}") {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}
