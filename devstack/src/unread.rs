//! How many bytes of a partition lie between the committed offset and the end of its log.
//!
//! Never less than what the broker stores for them: sizes are uncompressed, with the overhead of
//! a record that is alone in its batch. Memory is bounded: neighbouring records are counted
//! together, so a figure may stay up to one step (16 KiB) too high, never too low.

use std::collections::VecDeque;

/// Header of a record batch (61 bytes) and of the record in it (up to 21).
const OVERHEAD: u64 = 82;
const STEP: u64 = 16 * 1024;

/// The unread end of one partition.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    /// Runs of records: the offset behind the last one, and their bytes.
    runs: VecDeque<(i64, u64)>,
    bytes: u64,
    end: i64,
}

impl Unread {
    /// Counts the next record. Returns how many offsets before it were never seen.
    pub fn append(&mut self, offset: i64, payload_bytes: usize) -> i64 {
        let size = u64::try_from(payload_bytes).unwrap_or(u64::MAX).saturating_add(OVERHEAD);
        let missed = (offset - self.end).max(0);
        self.end = offset + 1;
        self.bytes += size;
        match self.runs.back_mut() {
            Some((end, bytes)) if *bytes + size <= STEP => {
                *end = self.end;
                *bytes += size;
            }
            _ => self.runs.push_back((self.end, size)),
        }
        missed
    }

    /// Forgets what lies before `offset`, the next one that the group will read.
    pub fn commit(&mut self, offset: i64) {
        while let Some((end, bytes)) = self.runs.front().copied()
            && end <= offset
        {
            self.bytes -= bytes;
            self.runs.pop_front();
        }
    }

    /// Bytes not yet committed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_records_before_the_committed_offset_no_longer_count() {
        let mut unread = Unread::default();
        for offset in 0..4 {
            assert_eq!(unread.append(offset, 20_000), 0);
        }
        assert_eq!(unread.bytes(), 4 * (20_000 + OVERHEAD));
        unread.commit(3);
        assert_eq!(unread.bytes(), 20_000 + OVERHEAD);
        unread.commit(4);
        assert_eq!(unread.bytes(), 0);
    }

    #[test]
    fn a_run_of_small_records_counts_until_its_last_one_is_committed() {
        let mut unread = Unread::default();
        for offset in 0..10 {
            unread.append(offset, 100);
        }
        unread.commit(9);
        assert_eq!(unread.bytes(), 10 * (100 + OVERHEAD));
        unread.commit(10);
        assert_eq!(unread.bytes(), 0);
    }

    #[test]
    fn a_hole_in_the_log_is_told() {
        let mut unread = Unread::default();
        unread.append(0, 1);
        assert_eq!(unread.append(5, 1), 4);
    }
}
