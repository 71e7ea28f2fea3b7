//! The books' own words, as the store defines them: plain values without I/O.

pub use millrace_store::{Counts, Outcome};
