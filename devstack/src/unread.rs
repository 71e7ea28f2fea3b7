//! How many stored bytes of a partition lie behind the committed offset.
//!
//! Exact, by batch: a batch counts until its last record is committed.

use std::collections::VecDeque;

/// The unread end of one partition.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    /// The offset behind each batch, and its bytes.
    batches: VecDeque<(i64, u64)>,
    bytes: u64,
    committed: i64,
}

impl Unread {
    /// Counts a batch that ends before `end`.
    pub fn append(&mut self, end: i64, bytes: u64) {
        self.batches.push_back((end, bytes));
        self.bytes += bytes;
    }

    /// Forgets what lies before `offset`, the next one that the group will read.
    pub fn commit(&mut self, offset: i64) {
        self.committed = offset;
        while let Some((end, bytes)) = self.batches.front().copied()
            && end <= offset
        {
            self.bytes -= bytes;
            self.batches.pop_front();
        }
    }

    /// Bytes not yet committed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Batches not yet committed.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// The next offset that the group will read.
    pub fn committed(&self) -> i64 {
        self.committed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_counts_until_its_last_record_is_committed() {
        let mut unread = Unread::default();
        unread.append(10, 1_000);
        unread.append(30, 5_000);
        unread.commit(10);
        assert_eq!((unread.bytes(), unread.batches()), (5_000, 1));
        unread.commit(29);
        assert_eq!(unread.bytes(), 5_000);
        unread.commit(30);
        assert_eq!((unread.bytes(), unread.batches()), (0, 0));
    }
}
