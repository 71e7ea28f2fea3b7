//! Every way in which a ledger can be told something that contradicts what it has seen.
//!
//! None of them is repaired in place: the partition's state is dropped, the partition claimed again
//! and the consumer seeks to the claimed position. What was durable stays, the rest runs again.

use thiserror::Error;

use super::counts::Outcome;
use super::offsets::Offset;

/// A use of the ledger that contradicts what it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LedgerError {
    /// A record came whose offset was received before, or lies before the position: the fetcher
    /// went back, or the log under the position is another one.
    #[error("received offset {found} where {expected} or later was due")]
    Rewound {
        /// The lowest offset that could come next.
        expected: Offset,
        /// The offset that came.
        found: Offset,
    },
    /// An offset was named that no record was received for.
    #[error("offset {offset} is not open")]
    NotOpen {
        /// The offset named.
        offset: Offset,
    },
    /// An offset was settled twice.
    #[error("offset {offset} is already settled as {outcome:?}")]
    AlreadySettled {
        /// The offset named.
        offset: Offset,
        /// How it ended the first time.
        outcome: Outcome,
    },
    /// An offset was named that the books have closed.
    #[error("offset {offset} lies below the frontier {frontier}")]
    BelowFrontier {
        /// The offset named.
        offset: Offset,
        /// The first offset that is not in the books.
        frontier: Offset,
    },
    /// The frontier was to pass a record that has not ended.
    #[error("the frontier cannot pass offset {offset}, which is not settled")]
    Unsettled {
        /// The first such record.
        offset: Offset,
    },
    /// Offsets that must come in ascending order, each once, did not.
    #[error("offset {found} came after {after}; they must ascend")]
    Unsorted {
        /// The offset before.
        after: Offset,
        /// The offset that should have been higher.
        found: Offset,
    },
}
