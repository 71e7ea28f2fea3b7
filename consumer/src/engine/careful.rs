//! Finds the task that kills its worker, and sets it aside.
//!
//! A partition whose claims keep ending without a word is run carefully: one task at a time, alone in the
//! whole process and noted in the database before it starts, so that a crash speaks against that task only.
//! Guarantees: of a task that kills every worker that runs it, at most [`UNCLEAN_STARTS`] crashes come between
//! two moves of the frontier before the partition is run carefully, and then at most [`CAREFUL_STARTS`] more
//! until the task is set aside. A task that ends is never set aside, unless the worker was killed from
//! outside that often while this very task was noted.
//!
//! What the owner does for a task that goes [`Permit::Alone`]: wait until nothing runs in the process; note the
//! task with [`Careful::starts`]; run it; make durable what came of it; [`Careful::ended`]. When, and only when,
//! [`Careful::to_clear`] says so, it sets the note back to [`Careful::suspect`], and starts nothing beside it in the
//! process before; a release leaves the same in it.

use std::time::{Duration, Instant};

use super::lane::Spot;

/// A claim that counts so many starts since the frontier moved, itself included, is careful.
pub const UNCLEAN_STARTS: i32 = 3;
/// A task during which so many workers died, while it ran alone, is set aside.
pub const CAREFUL_STARTS: u16 = 3;
/// A parked task that was loaded so often since it was parked runs alone, whatever the mode: the frontier
/// passed it long ago, so it may have killed as many workers while all else went well.
pub const SUSPICIOUS_WAKES: u16 = 3;
/// Tasks that have to end in careful mode, and the frontier to move, before the partition is trusted again.
pub const ENDS_TO_LEAVE: u32 = 30;
/// How long others wait for a suspect to come up first. It may be paused, or have ended just before the
/// crash; otherwise it is among the first that are read.
pub const SUSPECT_PATIENCE: Duration = Duration::from_secs(30);

/// Whether a task may start now, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Beside others.
    Freely,
    /// Once nothing else runs in the process, and noted. Nothing of the partition starts until it has ended.
    Alone,
    /// Not yet: ask again when a task of the partition has ended, and from time to time.
    NotYet,
    /// Never: it is a dead letter, `crashed_worker`. Nothing of the partition starts until that is durable.
    SetAside,
}

/// How a task that ran alone, or was set aside, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AloneEnd {
    /// What came of it is durable, be it a result, a dead letter or a row among the parked.
    Durable,
    /// Its attempt failed, and the next one comes from memory.
    Waits,
    /// It did not start after all, whether it was noted or not.
    NotStarted,
}

/// A task during which workers died.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    spot: Spot,
    /// Starts that never ended; those that ended in a failure are not in it.
    starts: u16,
    /// Since when others wait for it.
    awaited_since: Option<Instant>,
}

/// The careful mode of one partition, from its claim on; see the module.
#[derive(Clone, Copy, Debug)]
pub struct Careful {
    /// Tasks that have to end before the mode is left; 0 when it is off.
    ends_to_leave: u32,
    /// The frontier has moved since the claim. Until then the mode stays on however many tasks end: the crashes
    /// that brought it about still count, and whoever caused them may be the one that has not come up yet.
    has_moved: bool,
    /// Whom the claim found noted. It goes first: any other note would overwrite how many died of it.
    suspect: Option<Suspect>,
    alone: Option<Spot>,
    /// A note may be there. Whoever starts beside others must not find one: their crashes would count in it.
    noted: bool,
    /// The note speaks of a start that has not killed its worker, of a task that goes on waiting.
    stale: bool,
    /// The mode was left since nothing was pending: the deaths before the claim count no more.
    rested: bool,
}

impl Careful {
    /// The mode in which a claim begins. `unclean_starts` counts the claims since the frontier moved or the
    /// partition was released, this one included; `suspect` is the log book, the offset and the number of
    /// starts in the note that was left.
    #[must_use]
    pub fn at_claim(unclean_starts: i32, suspect: Option<(i32, i64, u16)>) -> Self {
        let suspect = suspect.map(|(log_book, offset, starts)| Suspect {
            spot: Spot { log_book, offset },
            starts,
            awaited_since: None,
        });
        let is_careful = unclean_starts >= UNCLEAN_STARTS || suspect.is_some();
        Self {
            ends_to_leave: if is_careful { ENDS_TO_LEAVE } else { 0 },
            has_moved: false,
            noted: suspect.is_some(),
            suspect,
            alone: None,
            stale: false,
            rested: false,
        }
    }

    /// Whether every task of the partition runs alone.
    #[must_use]
    pub const fn is_careful(&self) -> bool {
        self.ends_to_leave > 0
    }

    /// The task that runs alone, is about to, or is being set aside.
    #[must_use]
    pub const fn alone(&self) -> Option<Spot> {
        self.alone
    }

    /// The task to suspect if this claim ended now without a crash, and how many of its starts never ended:
    /// what a release leaves in the note, and to what it is set back; none means no note.
    #[must_use]
    pub fn suspect(&self) -> Option<(Spot, u16)> {
        self.suspect.map(|suspect| (suspect.spot, suspect.starts))
    }

    /// The number of starts that the note of [`Careful::alone`] has to say: those that never ended, and the
    /// one to come.
    #[must_use]
    pub fn starts(&self) -> u16 {
        let known = self.suspect.filter(|known| Some(known.spot) == self.alone);
        known.map_or(0, |known| known.starts).saturating_add(1)
    }

    /// Decides about a task that is next in its lane. `wakes` counts how often it was loaded since it was
    /// parked, 0 for one from the log.
    #[must_use]
    pub fn may_start(&mut self, spot: Spot, wakes: u16, now: Instant) -> Permit {
        if self.alone.is_some() || self.to_clear() || self.awaits_other(spot, now) {
            return Permit::NotYet;
        }
        if !self.is_careful() && wakes < SUSPICIOUS_WAKES {
            return Permit::Freely;
        }
        self.alone = Some(spot);
        self.noted = true;
        if self.starts() > CAREFUL_STARTS {
            Permit::SetAside
        } else {
            Permit::Alone
        }
    }

    /// Takes in how a task that had [`Permit::Alone`] or [`Permit::SetAside`] ended. Returns whether careful
    /// mode ends with it.
    pub fn ended(&mut self, spot: Spot, end: AloneEnd) -> bool {
        if self.alone != Some(spot) {
            return false;
        }
        self.alone = None;
        if end != AloneEnd::Durable {
            // Proves nothing: a crash forgets it. The suspect goes on being one, and others wait for it anew. But this
            // start has killed nobody.
            self.stale = self.noted;
            if let Some(suspect) = &mut self.suspect {
                suspect.awaited_since = None;
            }
            return false;
        }
        self.suspect = None;
        let was_careful = self.is_careful();
        let least = u32::from(was_careful && !self.has_moved);
        self.ends_to_leave = self.ends_to_leave.saturating_sub(1).max(least);
        was_careful && !self.is_careful()
    }

    /// Takes in that the frontier moved: crashes are counted anew.
    pub const fn frontier_moved(&mut self) {
        self.has_moved = true;
    }

    /// Whether the note is to be set back, for nothing of the partition starts before: it runs side by side again,
    /// or what was noted did not kill its worker and waits. Otherwise the next note replaces it.
    #[must_use]
    pub const fn to_clear(&self) -> bool {
        self.noted && (self.stale || !self.is_careful()) && self.alone.is_none()
    }

    /// Whether the count of unclean starts goes with the note: nothing was pending, so none of what is still to
    /// come has killed anybody.
    #[must_use]
    pub const fn has_rested(&self) -> bool {
        self.rested
    }

    /// Takes in that the note was set back to [`Careful::suspect`].
    pub fn cleared(&mut self) {
        if self.to_clear() {
            self.rested = false;
            self.noted = self.suspect.is_some();
            self.stale = false;
        }
    }

    /// Takes in that a task turned out to have ended before, or not to come again: nobody waits for it.
    /// Returns whether it was the suspect. Its note goes like any other: see [`Careful::to_clear`].
    pub fn gone(&mut self, spot: Spot) -> bool {
        let was_suspect = self.suspect.is_some_and(|suspect| suspect.spot == spot);
        if was_suspect {
            self.suspect = None;
        }
        was_suspect
    }

    /// Takes in that the log's end was reached and no task of the partition is in memory or due. Returns
    /// whether careful mode ends with that.
    pub fn nothing_pending(&mut self, now: Instant) -> bool {
        if !self.is_careful() || self.alone.is_some() || self.awaits(now) {
            return false;
        }
        self.ends_to_leave = 0;
        // Also where no task was noted: the count is to go.
        self.noted = true;
        self.rested = true;
        true
    }

    fn awaits_other(&mut self, spot: Spot, now: Instant) -> bool {
        self.suspect.is_some_and(|suspect| suspect.spot != spot) && self.awaits(now)
    }

    /// Whether the suspect has still to come. Time runs only while somebody waits, so that neither an
    /// outage nor a slow claim uses it up.
    fn awaits(&mut self, now: Instant) -> bool {
        let Some(suspect) = &mut self.suspect else {
            return false;
        };
        let since = *suspect.awaited_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= SUSPECT_PATIENCE {
            self.suspect = None;
        }
        self.suspect.is_some()
    }
}
