//! Memory for bodies, all requests together: of what is handed over while it is read and on its way, and of results
//! until they are read.
//!
//! Counted in bytes, and never waited for: what does not fit is refused with 503. The last eighth is kept for small
//! bodies, so a few large ones do not shut out everybody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::refusal::{Kind, Refusal};

/// A body of at most so many bytes is small.
const SMALL: usize = 64 * 1024;

/// The memory of one front door. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct BodyMemory {
    used: Arc<AtomicUsize>,
    most: usize,
}

/// Room for one body; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    memory: BodyMemory,
    bytes: usize,
}

impl BodyMemory {
    /// At most so many bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            used: Arc::default(),
            most,
        }
    }

    /// Room that holds nothing yet.
    pub(crate) fn nothing(&self) -> Held {
        Held {
            memory: self.clone(),
            bytes: 0,
        }
    }

    /// Room for so many bytes.
    ///
    /// # Errors
    /// There is none at present.
    pub(crate) fn hold(&self, bytes: usize) -> Result<Held, Refusal> {
        let mut held = self.nothing();
        held.grow(bytes)?;
        Ok(held)
    }
}

impl Held {
    /// Takes room for so many more bytes.
    ///
    /// # Errors
    /// There is none at present; what was held stays held.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let most = match self.bytes + bytes {
            0..=SMALL => self.memory.most,
            _ => self.memory.most - self.memory.most / 8,
        };
        self.memory
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= most)
            })
            .map_err(|_| {
                Refusal::new(
                    Kind::Unavailable,
                    "too much is being read and written at present",
                )
                .after(Duration::from_secs(1))
            })?;
        self.bytes += bytes;
        Ok(())
    }

    /// Takes over what another one holds of the same memory.
    pub(crate) fn merge(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Gives back all but so many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let back = self.bytes.saturating_sub(bytes);
        self.memory.used.fetch_sub(back, Ordering::Relaxed);
        self.bytes -= back;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test states what must hold")]

    use super::*;

    #[test]
    fn large_bodies_leave_room_for_small_ones() {
        let memory = BodyMemory::new(16 * SMALL);
        let large = memory.hold(14 * SMALL).unwrap();
        assert!(memory.hold(SMALL + 1).is_err());
        let small = memory.hold(SMALL).unwrap();
        let other = memory.hold(SMALL).unwrap();
        assert!(memory.hold(1).is_err(), "now it is full");
        drop((small, other));
        drop(large);
        assert!(memory.hold(14 * SMALL).is_ok(), "all was given back");
    }

    #[test]
    fn a_body_that_grows_and_shrinks_is_counted_once() {
        let memory = BodyMemory::new(1_000);
        let mut held = memory.nothing();
        held.grow(600).unwrap();
        assert!(held.grow(401).is_err());
        held.shrink_to(100);
        held.grow(900).unwrap();
        assert_eq!(memory.used.load(Ordering::Relaxed), 1_000);
        drop(held);
        assert_eq!(memory.used.load(Ordering::Relaxed), 0);
    }
}
