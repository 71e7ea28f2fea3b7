//! Which events the broker has answered for, in reading order.
//!
//! Acknowledgements come in any order across partitions. Up to the *frontier* of a file every
//! event is settled: acknowledged, or rejected and written down. That is the line after which
//! `--from-line` may go on. The window between frontier and the last event read is bounded: when
//! [`Acknowledged::is_full`], nothing more may be sent until the oldest event is answered.

use std::collections::VecDeque;

use thiserror::Error;

/// An event's place in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Index of the file on the command line.
    pub file: usize,
    /// Physical line where the event begins, counted from 1.
    pub line: u64,
}

/// How an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// All in-sync replicas have it.
    Acknowledged,
    /// It is in the rejects file: the frontier passes it.
    Rejected,
    /// The frontier stays before it: refused and not written down, unknown, or never sent.
    Stuck,
}

/// A ticket that was never given out, or is settled already: a bug of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("ticket {0} is not open")]
pub struct NotOpen(pub u64);

#[derive(Clone, Copy, Debug)]
struct Slot {
    place: Place,
    end: Option<Settled>,
}

/// The window of events between frontier and reader.
#[derive(Debug)]
pub struct Acknowledged {
    window: VecDeque<Slot>,
    /// Ticket of the window's first slot.
    base: u64,
    capacity: usize,
    /// By file: the last line up to which everything is settled.
    through: Vec<Option<u64>>,
}

impl Acknowledged {
    /// A window for events of `files` files that holds at most `capacity` events.
    pub fn new(files: usize, capacity: usize) -> Self {
        Acknowledged {
            window: VecDeque::new(),
            base: 0,
            capacity,
            through: vec![None; files],
        }
    }

    /// Whether the oldest event must be answered before another may be sent.
    pub fn is_full(&self) -> bool {
        self.window.len() >= self.capacity
    }

    /// The ticket that the next event will have.
    pub fn next_ticket(&self) -> u64 {
        self.base + self.window.len() as u64
    }

    /// Notes that the event at `place` was handed to the broker client; gives its ticket.
    pub fn sent(&mut self, place: Place) -> u64 {
        let ticket = self.next_ticket();
        self.window.push_back(Slot { place, end: None });
        ticket
    }

    /// Settles a ticket and says whose it was.
    pub fn settle(&mut self, ticket: u64, end: Settled) -> Result<Place, NotOpen> {
        let slot = ticket
            .checked_sub(self.base)
            .and_then(|index| self.window.get_mut(usize::try_from(index).ok()?))
            .filter(|slot| slot.end.is_none())
            .ok_or(NotOpen(ticket))?;
        slot.end = Some(end);
        let place = slot.place;
        self.advance();
        Ok(place)
    }

    /// Notes an event that was rejected before it was sent.
    pub fn rejected(&mut self, place: Place) {
        self.window.push_back(Slot {
            place,
            end: Some(Settled::Rejected),
        });
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(slot) = self.window.front() {
            match slot.end {
                Some(Settled::Acknowledged | Settled::Rejected) => {}
                Some(Settled::Stuck) | None => return,
            }
            if let Some(through) = self.through.get_mut(slot.place.file) {
                *through = Some(slot.place.line);
            }
            self.window.pop_front();
            self.base += 1;
        }
    }

    /// The last line of `file` up to which every event is settled; `None` when not even the first
    /// event read is.
    pub fn through(&self, file: usize) -> Option<u64> {
        self.through.get(file).copied().flatten()
    }

    /// Places beyond the frontier that are not acknowledged, in reading order.
    pub fn left_behind(&self) -> impl Iterator<Item = Place> + '_ {
        self.window
            .iter()
            .filter(|slot| matches!(slot.end, Some(Settled::Stuck) | None))
            .map(|slot| slot.place)
    }

    /// The last place beyond the frontier that was sent and acknowledged, if there is one.
    pub fn last_beyond(&self) -> Option<Place> {
        self.window
            .iter()
            .rev()
            .find(|slot| slot.end == Some(Settled::Acknowledged))
            .map(|slot| slot.place)
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        reason = "a test that cannot set up its case has failed"
    )]

    use proptest::prelude::*;

    use super::*;

    fn at(line: u64) -> Place {
        Place { file: 0, line }
    }

    #[test]
    fn the_frontier_waits_for_the_oldest_event() {
        let mut acknowledged = Acknowledged::new(1, 10);
        let first = acknowledged.sent(at(1));
        let second = acknowledged.sent(at(2));
        acknowledged.settle(second, Settled::Acknowledged).unwrap();
        assert_eq!(acknowledged.through(0), None);
        assert_eq!(acknowledged.last_beyond(), Some(at(2)));
        acknowledged.settle(first, Settled::Acknowledged).unwrap();
        assert_eq!(acknowledged.through(0), Some(2));
        assert_eq!(acknowledged.left_behind().next(), None);
    }

    #[test]
    fn a_rejected_line_is_passed_and_a_stuck_one_is_not() {
        let mut acknowledged = Acknowledged::new(1, 10);
        let first = acknowledged.sent(at(3));
        acknowledged.rejected(at(4));
        let third = acknowledged.sent(at(6));
        acknowledged.settle(first, Settled::Acknowledged).unwrap();
        assert_eq!(acknowledged.through(0), Some(4));
        assert_eq!(acknowledged.settle(third, Settled::Stuck), Ok(at(6)));
        acknowledged.rejected(at(7));
        assert_eq!(acknowledged.through(0), Some(4));
        assert_eq!(acknowledged.left_behind().collect::<Vec<_>>(), [at(6)]);
    }

    #[test]
    fn each_file_has_its_own_frontier() {
        let mut acknowledged = Acknowledged::new(2, 10);
        let last_of_first = acknowledged.sent(Place { file: 0, line: 9 });
        let first_of_second = acknowledged.sent(Place { file: 1, line: 1 });
        acknowledged
            .settle(first_of_second, Settled::Acknowledged)
            .unwrap();
        assert_eq!(
            (acknowledged.through(0), acknowledged.through(1)),
            (None, None)
        );
        acknowledged
            .settle(last_of_first, Settled::Acknowledged)
            .unwrap();
        assert_eq!(
            (acknowledged.through(0), acknowledged.through(1)),
            (Some(9), Some(1))
        );
    }

    #[test]
    fn the_window_is_bounded_and_misuse_is_told() {
        let mut acknowledged = Acknowledged::new(1, 1);
        let only = acknowledged.sent(at(1));
        assert!(acknowledged.is_full());
        assert_eq!(
            acknowledged.settle(only + 1, Settled::Acknowledged),
            Err(NotOpen(only + 1))
        );
        acknowledged.settle(only, Settled::Acknowledged).unwrap();
        assert_eq!(
            acknowledged.settle(only, Settled::Acknowledged),
            Err(NotOpen(only))
        );
        assert!(!acknowledged.is_full());
    }

    proptest! {
        #[test]
        fn in_any_order_the_frontier_is_the_longest_settled_beginning(
            order in Just((0..40_u64).collect::<Vec<_>>()).prop_shuffle(),
            cut in 0..40_usize,
        ) {
            let mut acknowledged = Acknowledged::new(1, 100);
            for line in 1..=40 {
                acknowledged.sent(at(line));
            }
            let settled = &order[..cut];
            for ticket in settled {
                acknowledged.settle(*ticket, Settled::Acknowledged).unwrap();
            }
            let expected = (0..40).take_while(|ticket| settled.contains(ticket)).count() as u64;
            prop_assert_eq!(acknowledged.through(0).unwrap_or(0), expected);
        }
    }
}
