//! How many callbacks are on their way at once, and to whom.
//!
//! A host may hold as many places as are free at that moment. So a single one gets half of them, two get a third
//! each, and one that does not answer never keeps the others from being told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug)]
struct Held {
    free: usize,
    by_host: HashMap<Box<str>, usize>,
}

/// The places of one worker. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Mutex<Held>>);

/// A place on the way to a host; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    host: Box<str>,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Held {
            free: most,
            by_host: HashMap::new(),
        })))
    }

    /// Places that nobody holds.
    pub(super) fn free(&self) -> usize {
        self.with(|held| held.free)
    }

    /// A place on the way to this host, if it may have another one.
    pub(super) fn enter(&self, host: &str) -> Option<Place> {
        let entered = self.with(|held| {
            let its = held.by_host.get(host).copied().unwrap_or(0);
            let may = its < held.free;
            if may {
                held.by_host.insert(host.into(), its + 1);
                held.free -= 1;
            }
            may
        });
        entered.then(|| Place {
            places: self.clone(),
            host: host.into(),
        })
    }

    /// Hosts that may have no more at present.
    pub(super) fn full(&self) -> Vec<String> {
        self.with(|held| {
            let full = held.by_host.iter().filter(|(_, its)| **its >= held.free);
            full.map(|(host, _)| host.to_string()).collect()
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Held) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.with(|held| {
            held.free += 1;
            if let Some(its) = held.by_host.get_mut(&self.host) {
                *its -= 1;
                if *its == 0 {
                    held.by_host.remove(&self.host);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test states what must hold")]

    use super::*;

    fn fill(places: &Places, host: &str) -> Vec<Place> {
        std::iter::from_fn(|| places.enter(host)).collect()
    }

    #[test]
    fn one_host_gets_half_and_the_next_half_of_the_rest() {
        let places = Places::new(256);
        let first = fill(&places, "a");
        let second = fill(&places, "b");
        assert_eq!((first.len(), second.len()), (128, 64));
        assert!(places.enter("c").is_some(), "there is room for a third");
        let mut full = places.full();
        full.sort();
        assert_eq!(full, ["a", "b"]);
    }

    #[test]
    fn a_place_that_is_given_back_is_free_again() {
        let places = Places::new(2);
        let place = places.enter("a").unwrap();
        assert!(places.enter("a").is_none());
        assert_eq!(places.full(), ["a"]);
        drop(place);
        assert_eq!((places.free(), places.full().len()), (2, 0));
        assert!(places.enter("a").is_some());
    }
}
