//! A UTC calendar day, the unit by which results are kept and dropped.
//!
//! The day of a task is the day its id was born, so it never depends on when or where a result is
//! written. Stored as whole days since 1970-01-01, which is also how it is compared and counted.

use std::fmt;

use chrono::NaiveDate;

const MS_PER_DAY: u64 = 86_400_000;
/// Days from 0000-12-31, chrono's day 0 of the common era, to 1970-01-01.
const EPOCH_FROM_CE: i32 = 719_163;

/// Whole UTC days since 1970-01-01; displayed as an ISO 8601 date such as `2026-11-21`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i32);

impl Day {
    /// The day that is `days` whole days after 1970-01-01 (before it, when negative).
    pub const fn new(days: i32) -> Self {
        Self(days)
    }

    /// The UTC day that contains this instant, given in milliseconds since the Unix epoch.
    pub const fn from_unix_ms(unix_ms: u64) -> Self {
        let days = unix_ms / MS_PER_DAY;
        if days > i32::MAX as u64 {
            Self(i32::MAX)
        } else {
            Self(days as i32)
        }
    }

    /// Whole days since 1970-01-01.
    pub const fn days_since_epoch(self) -> i32 {
        self.0
    }

    /// The day that many days later, or earlier when negative; stops at the ends of the range.
    pub const fn plus(self, days: i32) -> Self {
        Self(self.0.saturating_add(days))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = self
            .0
            .checked_add(EPOCH_FROM_CE)
            .and_then(NaiveDate::from_num_days_from_ce_opt);
        match date {
            Some(date) => write!(f, "{date}"),
            None => write!(f, "1970-01-01 plus {} days", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Day;

    #[test]
    fn a_day_begins_at_midnight_utc_and_is_shown_as_an_iso_date() {
        assert_eq!(Day::from_unix_ms(0), Day::new(0));
        assert_eq!(Day::from_unix_ms(86_399_999), Day::new(0));
        assert_eq!(Day::from_unix_ms(86_400_000), Day::new(1));
        assert_eq!(
            Day::from_unix_ms(1_795_219_200_000).to_string(),
            "2026-11-21"
        );
        assert_eq!(Day::new(-1).to_string(), "1969-12-31");
        assert_eq!(Day::new(19_782).plus(1).to_string(), "2024-03-01");
    }

    #[test]
    fn no_instant_and_no_step_leaves_the_range() {
        assert_eq!(Day::from_unix_ms(u64::MAX), Day::new(i32::MAX));
        assert_eq!(Day::new(i32::MAX).plus(1), Day::new(i32::MAX));
        assert_eq!(
            Day::new(i32::MAX).to_string(),
            "1970-01-01 plus 2147483647 days"
        );
    }
}
