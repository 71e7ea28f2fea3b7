//! A worker in small, and the database under it: tasks run beside each other, fail, run long and kill, and the
//! worker is killed from outside and released, all by a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Spot;
use super::careful::{AloneEnd, CAREFUL_STARTS, Careful, Permit, SUSPICIOUS_WAKES, UNCLEAN_STARTS};

/// What a task does when it runs.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// It never ends, but the process does.
    pub kills: bool,
    /// It is parked while it runs, and goes on.
    pub runs_long: bool,
    /// Attempts that fail before, in each process anew.
    pub fails: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Result,
    SetAside,
}

/// Draws from a seed; splitmix64.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from(mixed >> 33).unwrap_or(0) % sides.max(1)
    }

    /// Whether this is the one time in so many; never without a number.
    fn hits(&mut self, one_in: Option<usize>) -> bool {
        one_in.is_some_and(|one_in| self.below(one_in) == 0)
    }
}

/// What the database keeps.
#[derive(Debug, Default)]
pub struct Database {
    frontier: usize,
    /// The times it was loaded, of each task that has a row.
    parked: BTreeMap<usize, u16>,
    pub ended: BTreeMap<usize, End>,
    unclean_starts: i32,
    suspect: Option<(usize, u16)>,
}

/// What a history did, and what was promised of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// By tasks, since the frontier moved, a task was set aside or the partition was released.
    crashes_in_a_row: usize,
    /// By each task since it was parked.
    crashes_when_parked: BTreeMap<usize, usize>,
    /// From outside, while a note named this task.
    pub kills_when_noted: BTreeMap<usize, u16>,
    pub crashes: usize,
    pub left_by_ends: usize,
}

#[derive(Clone, Copy, Debug)]
struct InMemory {
    wakes: u16,
    has_row: bool,
    failed: u8,
    running: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Draining,
    Running,
    /// Ended or set aside, and that is not durable yet.
    Over,
}

/// One process, from a claim to its end.
pub struct Worker<'a> {
    tasks: &'a [Task],
    database: &'a mut Database,
    tally: &'a mut Tally,
    dice: &'a mut Dice,
    now: Instant,
    careful: Careful,
    read_up_to: usize,
    memory: BTreeMap<usize, InMemory>,
    unflushed: BTreeMap<usize, End>,
    alone: Option<(usize, Phase)>,
}

/// How a process ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    Crashed,
    Released,
    AllDone,
}

fn spot(task: usize) -> Spot {
    Spot {
        log_book: 0,
        offset: i64::try_from(task).unwrap_or(i64::MAX),
    }
}

impl<'a> Worker<'a> {
    pub fn claim(
        tasks: &'a [Task],
        database: &'a mut Database,
        tally: &'a mut Tally,
        dice: &'a mut Dice,
        now: Instant,
    ) -> Self {
        database.unclean_starts += 1;
        let suspect = database.suspect;
        let mut careful = Careful::at_claim(
            database.unclean_starts,
            suspect.map(|(task, starts)| (0, spot(task).offset, starts)),
        );
        if let Some((task, _)) = suspect.filter(|(task, _)| database.ended.contains_key(task)) {
            assert!(careful.gone(spot(task)));
        }
        Self {
            read_up_to: database.frontier,
            tasks,
            database,
            tally,
            dice,
            now,
            careful,
            memory: BTreeMap::new(),
            unflushed: BTreeMap::new(),
            alone: None,
        }
    }

    /// Runs until the process ends. `kill_one_in` and `release_one_in` steps it is killed or released.
    pub fn run(mut self, kill_one_in: Option<usize>, release_one_in: Option<usize>) -> Exit {
        loop {
            if self.database.ended.len() == self.tasks.len() {
                self.careful.nothing_pending(self.now);
                assert!(self.alone.is_some() || !self.careful.is_careful());
                return Exit::AllDone;
            }
            if self.alone.is_none() && !self.careful.to_clear() && self.dice.hits(kill_one_in) {
                // A task of another partition, which is nobody's fault here.
                return Exit::Crashed;
            }
            if self.dice.hits(kill_one_in) {
                if let Some((task, _)) = self.database.suspect {
                    *self.tally.kills_when_noted.entry(task).or_default() += 1;
                }
                return Exit::Crashed;
            }
            if self.dice.hits(release_one_in) {
                self.release();
                return Exit::Released;
            }
            match self.dice.below(11) {
                0 | 1 => self.read(),
                2 => self.wake(),
                3..=5 => self.start(),
                6..=8 => {
                    if let Some(killer) = self.go_on() {
                        self.crash(killer);
                        return Exit::Crashed;
                    }
                }
                9 => self.flush(),
                _ => self.clear(),
            }
        }
    }

    fn crash(&mut self, killer: usize) {
        self.tally.crashes += 1;
        self.tally.crashes_in_a_row += 1;
        let most = UNCLEAN_STARTS.unsigned_abs() as usize + usize::from(CAREFUL_STARTS);
        assert!(self.tally.crashes_in_a_row <= most, "{:?}", self.tally);
        if self.database.parked.contains_key(&killer) {
            let crashes = self.tally.crashes_when_parked.entry(killer).or_default();
            *crashes += 1;
            // The first one ends the process that parked it.
            let most = usize::from(SUSPICIOUS_WAKES) + usize::from(CAREFUL_STARTS);
            assert!(*crashes <= most, "{:?}", self.tally);
        }
    }

    fn release(&mut self) {
        self.flush();
        self.leave_note();
        self.database.unclean_starts = 0;
        self.tally.crashes_in_a_row = 0;
    }

    fn leave_note(&mut self) {
        let task_at = |spot: Spot| usize::try_from(spot.offset).unwrap_or(usize::MAX);
        let suspect = self.careful.suspect();
        self.database.suspect = suspect.map(|(spot, starts)| (task_at(spot), starts));
    }

    fn read(&mut self) {
        let task = self.read_up_to;
        if task == self.tasks.len() || self.memory.len() >= 20 {
            return;
        }
        self.read_up_to += 1;
        let known = self.database.ended.contains_key(&task)
            || self.database.parked.contains_key(&task)
            || self.memory.contains_key(&task);
        if !known {
            self.hold(task, 0, false);
        }
    }

    fn wake(&mut self) {
        let due = self.database.parked.iter_mut();
        let woken: Vec<(usize, u16)> = due
            .filter(|(task, _)| {
                !self.memory.contains_key(task) && !self.unflushed.contains_key(task)
            })
            .map(|(task, wakes)| {
                *wakes += 1;
                (*task, *wakes)
            })
            .collect();
        for (task, wakes) in woken {
            self.hold(task, wakes, true);
        }
    }

    fn hold(&mut self, task: usize, wakes: u16, has_row: bool) {
        self.memory.insert(
            task,
            InMemory {
                wakes,
                has_row,
                failed: 0,
                running: false,
            },
        );
    }

    fn start(&mut self) {
        if let Some((task, phase)) = self.alone {
            if phase == Phase::Draining && !self.memory.values().any(|held| held.running) {
                self.note(task);
            }
            return;
        }
        let still: Vec<usize> = self
            .memory
            .iter()
            .filter(|(_, held)| !held.running)
            .map(|(task, _)| *task)
            .collect();
        let Some(&task) = still.get(self.dice.below(still.len())) else {
            return;
        };
        let wakes = self.memory.get(&task).map_or(0, |held| held.wakes);
        match self.careful.may_start(spot(task), wakes, self.now) {
            Permit::Freely => {
                assert!(!self.careful.is_careful());
                assert_eq!(
                    self.database.suspect, None,
                    "its crash would count for another"
                );
                self.set_running(task, true);
            }
            Permit::Alone => self.alone = Some((task, Phase::Draining)),
            Permit::NotYet => {}
            Permit::SetAside => self.set_aside(task),
        }
    }

    fn note(&mut self, task: usize) {
        self.database.suspect = Some((task, self.careful.starts()));
        self.alone = Some((task, Phase::Running));
        self.set_running(task, true);
    }

    fn set_aside(&mut self, task: usize) {
        let killed = self.tally.kills_when_noted.get(&task).copied().unwrap_or(0);
        let kills = self.tasks.get(task).is_some_and(|task| task.kills);
        assert!(kills || killed >= CAREFUL_STARTS, "{task} is innocent");
        self.memory.remove(&task);
        self.unflushed.insert(task, End::SetAside);
        self.alone = Some((task, Phase::Over));
    }

    fn set_running(&mut self, task: usize, running: bool) {
        if let Some(held) = self.memory.get_mut(&task) {
            held.running = running;
        }
    }

    /// One step of a running task; the task, if that was the end of the process.
    fn go_on(&mut self) -> Option<usize> {
        let running: Vec<usize> = self
            .memory
            .iter()
            .filter(|(_, held)| held.running)
            .map(|(task, _)| *task)
            .collect();
        let is_alone = matches!(self.alone, Some((_, Phase::Running)));
        assert!(!is_alone || running.len() <= 1, "it runs alone");
        let &task = running.get(self.dice.below(running.len()))?;
        let (plan, held) = (self.tasks.get(task)?, self.memory.get_mut(&task)?);
        if held.failed < plan.fails {
            held.failed += 1;
            held.running = false;
            if is_alone {
                self.alone = None;
                self.careful.ended(spot(task), AloneEnd::Waits);
            }
            return None;
        }
        if plan.runs_long && !held.has_row {
            held.has_row = true;
            self.database.parked.insert(task, 0);
            self.move_frontier();
            return None;
        }
        if plan.kills {
            return Some(task);
        }
        self.memory.remove(&task);
        self.unflushed.insert(task, End::Result);
        if is_alone {
            self.alone = Some((task, Phase::Over));
        }
        None
    }

    fn flush(&mut self) {
        for (task, end) in std::mem::take(&mut self.unflushed) {
            self.database.parked.remove(&task);
            let twice = self.database.ended.insert(task, end);
            assert_eq!(twice, None, "{task} ended twice");
            if end == End::SetAside {
                self.tally.crashes_in_a_row = 0;
            }
        }
        self.move_frontier();
        if let Some((task, Phase::Over)) = self.alone {
            self.alone = None;
            // The flush that carries its end takes the note away.
            self.database.suspect = None;
            if self.careful.ended(spot(task), AloneEnd::Durable) {
                self.tally.left_by_ends += 1;
            }
        }
    }

    fn clear(&mut self) {
        if self.careful.to_clear() {
            self.leave_note();
            self.careful.cleared();
        }
    }

    fn move_frontier(&mut self) {
        let before = self.database.frontier;
        let settled: BTreeSet<usize> = self
            .database
            .ended
            .keys()
            .chain(self.database.parked.keys())
            .copied()
            .collect();
        while settled.contains(&self.database.frontier) {
            self.database.frontier += 1;
        }
        if self.database.frontier > before {
            self.careful.frontier_moved();
            self.database.unclean_starts = 0;
            self.tally.crashes_in_a_row = 0;
        }
    }
}
