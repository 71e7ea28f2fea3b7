//! Attempts of the worker in small: they start, fail, wait, run long, and are cancelled.
//!
//! Whatever the model's test picks, an attempt starts only where the lanes say so, and what the world asserts
//! at a start therefore holds of the lanes.

use super::lanes_model::{Due, Ending, Kind, Record, World};
use super::lanes_model_owner::{Owner, Tracked};
use super::{LaneKey, Spot};

/// How an attempt ends.
#[derive(Clone, Copy, Debug)]
pub enum How {
    Ends,
    WaitsHere(u64),
    Parks(u64),
}

impl Owner {
    /// Parks a task that goes on running.
    pub fn park_running(&mut self, pick: usize) {
        let Some((&spot, &lane)) = self.attempts.iter().nth(pick % self.attempts.len().max(1))
        else {
            return;
        };
        let Some(job) = self.lanes.begun_mut(lane, spot) else {
            return;
        };
        if job.parked.is_some() || lane == LaneKey::Partition {
            return;
        }
        job.parked = Some(Kind::Running);
        let key_hash = job.key_hash;
        let tracked = Tracked {
            lane,
            key_hash,
            was: None,
            becomes: job.parked,
        };
        self.change(None, tracked.becomes, key_hash);
        self.tracked.insert((spot, true), tracked);
        self.batch.push_back(Record {
            spot,
            from_log: true,
            ending: Ending::Parked(Kind::Running, Due::In(0)),
        });
    }

    /// Starts what was offered, or puts it off.
    pub fn start(&mut self, world: &mut World, pick: usize, put_off: bool) {
        let at = pick % self.offers.len().max(1);
        let Some(lane) = self.offers.remove(at).filter(|_| !self.is_leaving) else {
            return;
        };
        let Some(job) = self.lanes.next(lane).map(|job| *job) else {
            return;
        };
        if self.cancels.contains(&job.spot) {
            self.end_in_lane(lane, job.spot, Ending::Done);
        } else if !put_off {
            world.start(job, &self.over);
            self.lanes.start(lane);
            self.attempts.insert(job.spot, lane);
        } else if lane == LaneKey::Partition {
            self.lanes.start(lane);
            self.lanes.wait(lane, job.spot);
            self.waiting.push((world.now + 1, lane, job.spot));
        } else {
            self.park_lane(lane, Due::In(0));
        }
    }

    /// An attempt ends.
    pub fn finish(&mut self, world: &mut World, pick: usize, how: How) {
        let at = pick % self.attempts.len().max(1);
        let Some((&spot, &lane)) = self.attempts.iter().nth(at) else {
            return;
        };
        self.attempts.remove(&spot);
        world.running.remove(&spot);
        if self.lanes.begun_mut(lane, spot).is_none() {
            return;
        }
        match how {
            How::Ends => {
                let removed = self.lanes.finish(lane, spot);
                self.end_removed(lane, removed, Ending::Done);
            }
            How::WaitsHere(wait) | How::Parks(wait) if lane == LaneKey::Partition => {
                self.wait_here(world, lane, spot, wait);
            }
            How::WaitsHere(wait) if !self.is_leaving => self.wait_here(world, lane, spot, wait),
            How::WaitsHere(wait) | How::Parks(wait) => self.park_lane(lane, Due::In(wait)),
        }
    }

    fn wait_here(&mut self, world: &World, lane: LaneKey, spot: Spot, wait: u64) {
        self.lanes.wait(lane, spot);
        self.waiting.push((world.now + wait, lane, spot));
    }

    /// Waits whose time has come are over.
    pub fn wake_retries(&mut self, world: &World) {
        let (due, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(at, ..)| *at <= world.now);
        self.waiting = waiting;
        let due: Vec<(u64, LaneKey, Spot)> = due;
        for (_, lane, spot) in due {
            if self.lanes.due(lane, spot) {
                self.offer(lane);
            }
        }
    }

    /// Somebody asks for a task to be cancelled.
    pub fn cancel(&mut self, spot: Spot, world: &World) {
        self.cancels.insert(spot);
        let lane = world.lane(spot);
        if !self.attempts.contains_key(&spot) && !self.is_leaving {
            self.end_in_lane(lane, spot, Ending::Done);
        }
    }
}
