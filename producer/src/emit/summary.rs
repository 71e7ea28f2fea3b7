//! The summary that `emit` ends with, on standard output.

use std::fmt;

use serde::Serialize;

/// What was read and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Events read; blank lines and lines before `--from-line` do not count.
    pub read: u64,
    /// Events that all in-sync replicas have.
    pub acknowledged: u64,
    /// Lines that did not become an event, and events that the broker refused.
    pub rejected: u64,
    /// Events that were sent and not answered: they may be in the topic or not.
    #[serde(skip_serializing_if = "is_zero")]
    pub unknown: u64,
    /// Events that were given up before they were sent, or that the broker did not take for a
    /// reason that is not theirs.
    #[serde(skip_serializing_if = "is_zero")]
    pub not_sent: u64,
    /// From the start of reading to the last acknowledgement, in seconds.
    pub seconds: f64,
    /// Acknowledged events per second.
    pub events_per_s: f64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Summary {
    /// Sets time and rate.
    pub fn timed(mut self, seconds: f64) -> Self {
        self.seconds = (seconds * 1000.0).round() / 1000.0;
        self.events_per_s = if seconds > 0.0 {
            (self.acknowledged as f64 / seconds).round()
        } else {
            0.0
        };
        self
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "read          {:>15}", grouped(self.read))?;
        writeln!(f, "acknowledged  {:>15}", grouped(self.acknowledged))?;
        writeln!(f, "rejected      {:>15}", grouped(self.rejected))?;
        for (name, count) in [("unknown", self.unknown), ("not_sent", self.not_sent)] {
            if count > 0 {
                writeln!(f, "{name:13} {:>15}", grouped(count))?;
            }
        }
        writeln!(f, "seconds       {:>15.3}", self.seconds)?;
        writeln!(f, "events_per_s  {:>15}", grouped(self.events_per_s as u64))
    }
}

/// A count with a comma between groups of three digits.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        reason = "a test that cannot set up its case has failed"
    )]

    use super::*;

    #[test]
    fn the_json_has_the_agreed_keys() {
        let summary = Summary {
            read: 5,
            acknowledged: 4,
            rejected: 1,
            ..Summary::default()
        }
        .timed(2.0);
        assert_eq!(
            serde_json::to_string(&summary).unwrap(),
            r#"{"read":5,"acknowledged":4,"rejected":1,"seconds":2.0,"events_per_s":2.0}"#
        );
    }

    #[test]
    fn the_table_groups_digits_and_names_the_unknown_only_when_there_are_some() {
        let summary = Summary {
            read: 1_234_567,
            acknowledged: 39_244,
            ..Summary::default()
        }
        .timed(0.5);
        let table = summary.to_string();
        assert!(
            table.contains("1,234,567") && table.contains("78,488") && !table.contains("unknown")
        );
        assert!(
            Summary {
                unknown: 2,
                ..summary
            }
            .to_string()
            .contains("unknown")
        );
        assert_eq!(
            [grouped(0), grouped(999), grouped(1_000)],
            ["0", "999", "1,000"]
        );
    }
}
