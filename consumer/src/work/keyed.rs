//! Deduplication keys of tasks in memory: a repeat of a task that is here waits until that one is settled.
//!
//! The table knows a key only once a flush has written it, so a look-up must not be asked while an earlier task
//! with the same key is on its way: it would find nothing, and the handler would run for a duplicate.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::engine::{KeyHasher, LaneKey, Spot};

#[derive(Debug)]
struct Holder {
    spot: Spot,
    /// Later tasks with the same key, in log order.
    waiting: Vec<(LaneKey, Spot)>,
}

/// Keys in memory, of one partition.
#[derive(Debug, Default)]
pub struct Keyed {
    holders: HashMap<[u8; 16], Holder, BuildHasherDefault<KeyHasher>>,
}

impl Keyed {
    /// Takes in a task. True when it is the first of its key here and may be looked up at once; else it is
    /// returned by [`Keyed::settled`] when those before it are settled.
    pub fn enter(&mut self, hash: [u8; 16], lane: LaneKey, spot: Spot) -> bool {
        match self.holders.get_mut(&hash) {
            // One that came back from the database is before its repeats, which may stand behind it in its lane.
            Some(holder) if spot <= holder.spot => true,
            Some(holder) => {
                // It may have been here before, and come back from the database.
                if !holder.waiting.iter().any(|(_, other)| *other == spot) {
                    holder.waiting.push((lane, spot));
                }
                false
            }
            None => {
                let waiting = Vec::new();
                self.holders.insert(hash, Holder { spot, waiting });
                true
            }
        }
    }

    /// Takes in that a task is settled, or is no longer here. Returns the next with its key, to be looked up.
    pub fn settled(&mut self, hash: [u8; 16], spot: Spot) -> Option<(LaneKey, Spot)> {
        let holder = self.holders.get_mut(&hash)?;
        if holder.spot != spot {
            holder.waiting.retain(|(_, other)| *other != spot);
            return None;
        }
        if holder.waiting.is_empty() {
            self.holders.remove(&hash);
            return None;
        }
        let next = holder.waiting.remove(0);
        holder.spot = next.1;
        Some(next)
    }

    /// Whether it waits for an earlier task with its key: what was asked about it before that is out of date.
    #[must_use]
    pub fn waits(&self, hash: &[u8; 16], spot: Spot) -> bool {
        self.holders.get(hash).is_some_and(|holder| {
            // It is the holder whom answers are about: no need to look through those that wait.
            holder.spot != spot && holder.waiting.iter().any(|(_, other)| *other == spot)
        })
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.holders.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn spot(offset: i64) -> Spot {
        Spot {
            log_book: 1,
            offset,
        }
    }

    #[test]
    fn a_repeat_waits_until_the_first_is_settled_and_then_the_next() {
        let mut keyed = Keyed::default();
        let lane = LaneKey::Key([1; 16]);
        assert!(keyed.enter([7; 16], lane, spot(1)));
        assert!(!keyed.enter([7; 16], lane, spot(2)));
        assert!(!keyed.enter([7; 16], lane, spot(3)));
        assert!(keyed.enter([8; 16], lane, spot(4)));
        let waits = |keyed: &Keyed| [1, 2, 3].map(|offset| keyed.waits(&[7; 16], spot(offset)));
        assert_eq!(waits(&keyed), [false, true, true]);
        assert_eq!(keyed.settled([7; 16], spot(1)), Some((lane, spot(2))));
        assert_eq!(waits(&keyed), [false, false, true]);
        assert_eq!(keyed.settled([7; 16], spot(1)), None);
        assert_eq!(keyed.settled([7; 16], spot(2)), Some((lane, spot(3))));
        assert_eq!(keyed.settled([7; 16], spot(3)), None);
        assert!(keyed.enter([7; 16], lane, spot(9)));
    }

    #[test]
    fn one_that_comes_again_waits_once_and_leaves_nothing_behind() {
        let mut keyed = Keyed::default();
        let lane = LaneKey::Key([1; 16]);
        assert!(keyed.enter([7; 16], lane, spot(1)));
        assert!(!keyed.enter([7; 16], lane, spot(2)));
        assert!(!keyed.enter([7; 16], lane, spot(2)));
        assert_eq!(keyed.settled([7; 16], spot(1)), Some((lane, spot(2))));
        assert!(keyed.enter([7; 16], lane, spot(2)), "it is the first now");
        assert_eq!(keyed.settled([7; 16], spot(2)), None);
        assert!(keyed.enter([7; 16], lane, spot(3)), "nobody is before it");
    }

    #[test]
    fn one_that_comes_back_before_its_repeat_does_not_wait_for_it() {
        let mut keyed = Keyed::default();
        let lane = LaneKey::Key([1; 16]);
        assert!(keyed.enter([7; 16], lane, spot(5)));
        assert!(keyed.enter([7; 16], lane, spot(2)));
        assert_eq!(keyed.settled([7; 16], spot(2)), None);
        assert_eq!(keyed.settled([7; 16], spot(5)), None);
        assert!(keyed.enter([7; 16], lane, spot(9)));
    }

    #[test]
    fn one_that_left_before_its_turn_is_not_called() {
        let mut keyed = Keyed::default();
        let lane = LaneKey::Partition;
        assert!(keyed.enter([7; 16], lane, spot(1)));
        assert!(!keyed.enter([7; 16], lane, spot(2)));
        assert_eq!(keyed.settled([7; 16], spot(2)), None);
        assert_eq!(keyed.settled([7; 16], spot(1)), None);
    }
}
