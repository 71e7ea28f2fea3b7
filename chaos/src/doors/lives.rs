//! Which front doors are there, as far as callers may know: by this alone a connection that breaks is excused.
//!
//! A front door counts as down from before the signal that kills it until it listens again. A request whose front
//! door was open from its start to its end has no excuse.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

struct Life {
    address: SocketAddr,
    /// Goes up with each change; odd while the front door is down.
    changes: AtomicU64,
}

/// See the module.
pub(super) struct Lives(Vec<Life>);

/// One request's view of its front door, from its start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visit {
    /// Where to.
    pub address: SocketAddr,
    door: usize,
    changes: u64,
}

/// Why a connection may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excuse {
    /// The front door was down when the request began.
    Down,
    /// It was killed after that.
    Killed,
}

impl Lives {
    /// All down.
    pub(super) fn new(addresses: &[SocketAddr]) -> Self {
        let life = |address: &SocketAddr| Life {
            address: *address,
            changes: AtomicU64::new(1),
        };
        Self(addresses.iter().map(life).collect())
    }

    /// Where this front door listens while it does.
    pub(super) fn address(&self, door: usize) -> Option<SocketAddr> {
        self.0.get(door).map(|life| life.address)
    }

    /// It is about to be killed.
    pub(super) fn down(&self, door: usize) {
        self.turn(door, 1);
    }

    /// It listens.
    pub(super) fn up(&self, door: usize) {
        self.turn(door, 0);
    }

    fn turn(&self, door: usize, parity: u64) {
        if let Some(life) = self.0.get(door)
            && life.changes.load(Ordering::SeqCst) % 2 != parity
        {
            life.changes.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Begins a request to a front door, counted round.
    pub(super) fn visit(&self, turn: usize) -> Option<Visit> {
        let door = turn % self.0.len().max(1);
        let life = self.0.get(door)?;
        Some(Visit {
            address: life.address,
            door,
            changes: life.changes.load(Ordering::SeqCst),
        })
    }

    /// What excuses that the request's connection broke: its front door was down at some time since it began.
    pub(super) fn excuse(&self, visit: Visit) -> Option<Excuse> {
        let now = self.0.get(visit.door);
        let now = now.map(|life| life.changes.load(Ordering::SeqCst));
        if visit.changes % 2 == 1 {
            Some(Excuse::Down)
        } else if now != Some(visit.changes) {
            Some(Excuse::Killed)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn only_a_front_door_that_was_down_meanwhile_is_an_excuse() {
        let lives = Lives::new(&[1, 2].map(|port| (Ipv4Addr::LOCALHOST, port).into()));
        let excuse = |visit: Option<Visit>| lives.excuse(visit?);
        let before = lives.visit(0);
        lives.up(0);
        lives.up(1);
        assert_eq!(excuse(before), Some(Excuse::Down));

        let (here, there) = (lives.visit(0), lives.visit(1));
        assert_eq!(excuse(here), None);
        lives.down(0);
        assert_eq!(excuse(here), Some(Excuse::Killed));
        lives.up(0);
        assert_eq!(excuse(here), Some(Excuse::Killed));
        assert_eq!(excuse(there), None);
        assert_eq!(excuse(lives.visit(0)), None);
    }
}
