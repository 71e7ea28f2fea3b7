//! Whether most recent records of a partition did not decode: then it is not single records that are broken.
//!
//! The owner stops such a partition before it makes dead letters of everything. The window spans the last 63
//! records and fits the partition's row, so that a restart does not forgive what came before. It is a plain
//! value: to see what one more record would mean, push it onto a copy.

/// Records that have to be seen before the window can trip: a few broken ones after a start are no pattern.
const FEWEST: u32 = 32;
/// Where the mark stands when the window is full.
const TOP: u64 = 1 << 63;

/// The last records of one partition: a bit each, the latest lowest, set when it did not decode, below a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeWindow(u64);

impl Default for DecodeWindow {
    fn default() -> Self {
        Self(1)
    }
}

impl DecodeWindow {
    /// The window as a partition's row keeps it. Any number is a window; 0, like none, is one in which nothing
    /// was seen.
    #[must_use]
    pub fn from_stored(stored: Option<i64>) -> Self {
        match stored.unwrap_or_default().cast_unsigned() {
            0 => Self::default(),
            bits => Self(bits),
        }
    }

    /// What the row is to keep; never none, so that an emptied window replaces the one before.
    #[must_use]
    pub const fn to_stored(self) -> Option<i64> {
        Some(self.0.cast_signed())
    }

    /// Takes in whether one more record decoded. When the window is full, the oldest one leaves it.
    #[inline]
    pub const fn push(&mut self, decoded: bool) {
        self.0 = self.0 << 1 | !decoded as u64 | self.0 & TOP;
    }

    /// How many records it knows of, up to 63.
    #[must_use]
    pub const fn seen(self) -> u32 {
        // The mark makes the number positive.
        63 - self.0.leading_zeros()
    }

    /// How many of them did not decode.
    #[must_use]
    pub const fn undecoded(self) -> u32 {
        self.0.count_ones() - 1
    }

    /// Whether 32 records or more were seen and more than half of them did not decode.
    #[must_use]
    pub const fn trips(self) -> bool {
        self.seen() >= FEWEST && self.undecoded() * 2 > self.seen()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn after(records: impl IntoIterator<Item = bool>) -> DecodeWindow {
        let mut window = DecodeWindow::default();
        for decoded in records {
            window.push(decoded);
        }
        window
    }

    proptest! {
        #[test]
        fn a_window_is_the_last_63_records_also_across_restarts(
            records in prop::collection::vec((any::<bool>(), prop::bool::weighted(0.1)), 0..300)
        ) {
            let mut window = DecodeWindow::default();
            let mut last: VecDeque<bool> = VecDeque::new();
            for (decoded, restart) in records {
                window.push(decoded);
                last.push_back(decoded);
                if last.len() > 63 {
                    last.pop_front();
                }
                if restart {
                    window = DecodeWindow::from_stored(window.to_stored());
                }
                let undecoded = last.iter().filter(|decoded| !**decoded).count();
                prop_assert_eq!(window.seen() as usize, last.len());
                prop_assert_eq!(window.undecoded() as usize, undecoded);
                prop_assert_eq!(window.trips(), last.len() >= 32 && undecoded * 2 > last.len());
            }
        }

        #[test]
        fn any_stored_number_is_a_window(stored in any::<i64>(), decoded in any::<bool>()) {
            let mut window = DecodeWindow::from_stored(Some(stored));
            prop_assert!(window.undecoded() <= window.seen() && window.seen() <= 63);
            window.push(decoded);
            prop_assert!(window.undecoded() <= window.seen() && window.seen() <= 63);
        }
    }

    #[test]
    fn nothing_stored_means_nothing_seen() {
        assert_eq!(DecodeWindow::from_stored(None), DecodeWindow::default());
        assert_eq!(DecodeWindow::from_stored(Some(0)), DecodeWindow::default());
        assert_eq!(DecodeWindow::default().seen(), 0);
        let full = after([false; 63]);
        assert_eq!(DecodeWindow::from_stored(Some(-1)), full);
        assert_eq!(full.to_stored(), Some(-1));
    }

    #[test]
    fn thirty_one_broken_records_do_not_trip_it_and_one_more_does() {
        assert!(!after([false; 31]).trips());
        assert!(after([false; 32]).trips());
    }

    #[test]
    fn half_is_not_most() {
        let half = (0..62).map(|n| n % 2 == 0);
        assert!(!after(half.clone()).trips());
        assert!(after(half.chain([false])).trips());
    }

    #[test]
    fn records_that_decode_drive_the_broken_ones_out() {
        let broken = after([false; 63]);
        assert!(broken.trips());
        let mut window = broken;
        for _ in 0..32 {
            window.push(true);
        }
        assert!(!window.trips());
    }
}
