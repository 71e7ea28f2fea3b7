//! Parked tasks come back: keys that are due, tasks whose time has come, and those that end without running.
//!
//! The table is asked by one question at a time for all partitions. An answer may be older than what this
//! worker has done since, so whatever is in memory, on its way into the database, or ended while the question
//! was out is left alone. A key's tasks join its lane in log order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_schemas::TaskId;
use millrace_store::parked::{self, Parked, Wake, Waking, WokenKey};
use millrace_store::{DeadLetter, Due, Ending, ParkKind, Reason, Trouble};
use uuid::Uuid;

use super::admission::{Admitted, admit_parked};
use super::owner::Owner;
use super::partition::Running;
use super::standing::Standing;
use crate::engine::{LaneKey, Laned as _, Pressure, Spot};
use crate::work::floor::News;
use crate::work::job::Job;
use crate::work::waking::Woken;

/// Most parked tasks in memory at once, and most bytes of them that one question brings.
const MOST_TASKS: usize = 4_000;
const MOST_BYTES: u64 = 8 << 20;
/// Most tasks that one question brings.
const MOST_AT_ONCE: usize = 1_000;
/// How often the table is asked while something is parked, and while nothing is known to be.
const WHILE_PARKED: Duration = Duration::from_millis(500);
const WHILE_NONE: Duration = Duration::from_secs(5);
/// Least time between two questions.
const BREATH: Duration = Duration::from_millis(10);
/// Longest that one question may take.
const DEADLINE: Duration = Duration::from_secs(20);

impl Owner {
    /// Asks for parked tasks when it is time.
    pub(super) fn ask_for_parked(&mut self, now: Instant) {
        let clock = &self.floor.waking;
        if clock.asking || now < clock.next || self.is_stopping() || self.pressure == Pressure::Hard
        {
            return;
        }
        let mut claims = Vec::new();
        let mut busy = Vec::new();
        let mut woken = 0;
        for (partition, standing) in &mut self.owned.partitions {
            if let Standing::Running(running) = standing {
                claims.push(running.held(*partition));
                let keys = running.lanes.busy_keys();
                busy.extend(keys.into_iter().map(|key| (*partition, key)));
                running.ended_while_asking.clear();
                running.parked_while_asking.clear();
                running.asked_for_parked = true;
                woken += running.woken;
            }
        }
        let most_tasks = MOST_TASKS.saturating_sub(woken).min(MOST_AT_ONCE);
        self.floor.waking.next = now + WHILE_NONE;
        if claims.is_empty() || most_tasks == 0 {
            self.floor.waking.next = now + WHILE_PARKED;
            return;
        }
        self.floor.waking.asking = true;
        let controls = self.floor.controls.clone();
        let (work, back) = (self.claims.clone(), self.floor.news.clone());
        let pool = self.floor.pool.clone();
        tokio::spawn(async move {
            let types: Vec<String> = controls.paused_types.iter().cloned().collect();
            let tenants: Vec<String> = controls.paused_tenants.iter().cloned().collect();
            let cancels: Vec<TaskId> = controls.cancels.keys().copied().collect();
            let asked = async {
                let mut connection = pool.acquire().await?;
                let waking = Waking {
                    claims: &claims,
                    busy: &busy,
                    paused_types: &types,
                    paused_tenants: &tenants,
                    cancels: &cancels,
                    most_tasks,
                    most_bytes: MOST_BYTES,
                };
                parked::wake(&mut connection, &work.consumer, &waking).await
            };
            let found = match tokio::time::timeout(DEADLINE, asked).await {
                Ok(found) => found,
                Err(_) => Err(Trouble::Outage(format!(
                    "asking for parked tasks took over {DEADLINE:?}"
                ))),
            };
            let claims = claims
                .iter()
                .map(|held| (held.partition, held.claim))
                .collect();
            // The owner is gone only at the very end.
            let _ = back.send(News::Woken(Woken { claims, found }));
        });
    }

    /// Takes in parked tasks.
    pub(super) fn woken(&mut self, woken: Woken) {
        self.floor.waking.asking = false;
        let now = Instant::now();
        match woken.found {
            Ok(found) => {
                let count = found.keys.iter().map(|key| key.tasks.len()).sum::<usize>();
                self.gauges
                    .consumer
                    .woken((count + found.delayed.len()) as u64);
                let parked = self
                    .owned
                    .running()
                    .any(|(_, running)| running.parked.tasks > 0);
                let next = match found.next_due {
                    _ if found.is_full => BREATH,
                    Some(due) => due.clamp(BREATH, WHILE_PARKED),
                    None if parked => WHILE_PARKED,
                    None => WHILE_NONE,
                };
                self.floor.waking.by(now + next);
                if self.take_woken(&woken.claims, found) {
                    self.floor.waking.by(now + BREATH);
                }
            }
            Err(trouble) => {
                tracing::debug!(error = %trouble, "parked tasks cannot be asked for now");
                self.floor.waking.by(now + WHILE_PARKED);
            }
        }
        for (_, running) in self.owned.running_mut() {
            running.asked_for_parked = false;
            running.ended_while_asking.clear();
            running.parked_while_asking.clear();
        }
        self.balance_all();
    }

    /// Returns whether tasks were ended, so that there may be more of that kind.
    fn take_woken(&mut self, claims: &HashMap<i32, Uuid>, found: Wake) -> bool {
        let mut ended = false;
        for (partition, running) in self.owned.running_mut() {
            running.deep_key = found.deep.contains(&partition);
        }
        for (tasks, ending) in [
            (found.expired, Ending::Expired),
            (found.cancelled, Ending::Cancelled),
        ] {
            for task in tasks {
                ended |= self.end_parked(claims, task, &ending);
            }
        }
        for key in found.keys {
            self.wake_key(claims, key);
        }
        for task in found.delayed {
            self.wake_delayed(claims, task);
        }
        ended
    }

    /// A partition that is still ours as it was when the question went out.
    fn still(&mut self, claims: &HashMap<i32, Uuid>, partition: i32) -> Option<&mut Running> {
        let claim = *claims.get(&partition)?;
        match self.owned.partitions.get_mut(&partition)? {
            Standing::Running(running) if running.fence.claim == claim => Some(running),
            _ => None,
        }
    }

    /// Ends a parked task that is not in memory; one that is in memory ends there.
    fn end_parked(&mut self, claims: &HashMap<i32, Uuid>, task: Parked, ending: &Ending) -> bool {
        let partition = task.partition;
        let spot = spot_of(&task);
        let Some(running) = self.still(claims, partition) else {
            return false;
        };
        if running.is_known_here(spot) || running.busy_with(&task.key_hash, spot) {
            return false;
        }
        let Some(admitted) = self.admit(task) else {
            return false;
        };
        let (Admitted::Runs { lane, job } | Admitted::Ends { lane, job, .. }) = admitted;
        if let Some(running) = self.still(claims, partition) {
            running.hold(&job);
            running.settle(lane, job, ending.clone());
            return true;
        }
        false
    }

    fn wake_key(&mut self, claims: &HashMap<i32, Uuid>, key: WokenKey) {
        let (partition, now) = (key.partition, Instant::now());
        let mut by_lane: Vec<(LaneKey, Vec<Job>)> = Vec::new();
        let mut more = key.more;
        for task in key.tasks {
            let spot = spot_of(&task);
            let Some(running) = self.still(claims, partition) else {
                return;
            };
            if running.is_read_again(spot) {
                // Its copy from the log has not left yet. Those behind it must not come before it.
                more = true;
                break;
            }
            if running.is_known_here(spot) {
                continue;
            }
            if task.kind == ParkKind::Redrive {
                // Somebody else put it there: it is counted when it is seen.
                running.parked.note(&task.key_hash);
            }
            let in_memory = running.busy_with(&task.key_hash, spot);
            match self.admit(task) {
                // By a policy that was in force when it was taken, it stands in another lane.
                Some(Admitted::Runs { lane, .. })
                    if in_memory && !self.is_in_lane(partition, lane, spot) => {}
                Some(Admitted::Runs { lane, job }) => match by_lane.last_mut() {
                    Some((last, jobs)) if *last == lane => jobs.push(job),
                    _ => by_lane.push((lane, vec![job])),
                },
                Some(Admitted::Ends { lane, job, ending }) => {
                    if let Some(running) = self.still(claims, partition) {
                        running.hold(&job);
                        running.settle(lane, job, ending);
                    }
                }
                None => {}
            }
        }
        for (lane, jobs) in by_lane {
            let Some(running) = self.still(claims, partition) else {
                return;
            };
            let more = more || running.parked_while_asking.contains(&key.key_hash);
            let more = more && matches!(lane, LaneKey::Key(_));
            let keyed: Vec<_> = jobs
                .iter()
                .filter(|job| job.is_to_be_looked_up())
                .filter_map(|job| Some((job.dedup?, job.spot())))
                .collect();
            let may_start = running.wake(lane, jobs, more, now);
            for (hash, spot) in keyed {
                running.look_up_keyed(hash, lane, spot);
            }
            if may_start {
                self.offer(partition, lane);
            }
        }
    }

    fn is_in_lane(&mut self, partition: i32, lane: LaneKey, spot: Spot) -> bool {
        let running = self.at_work(partition);
        running.is_some_and(|running| running.lanes.has_task(lane, spot))
    }

    /// A delayed task whose time has come joins its lane at the end; where tasks of its key wait in the
    /// database, it waits with them.
    fn wake_delayed(&mut self, claims: &HashMap<i32, Uuid>, task: Parked) {
        let (partition, spot, behind) = (task.partition, spot_of(&task), task.key_is_parked);
        let now = Instant::now();
        let Some(running) = self.still(claims, partition) else {
            return;
        };
        if running.is_known_here(spot)
            || running.busy_with(&task.key_hash, spot)
            || running.is_read_again(spot)
        {
            return;
        }
        match self.admit(task) {
            Some(Admitted::Runs { lane, job }) => {
                let Some(running) = self.still(claims, partition) else {
                    return;
                };
                let behind = behind
                    || running.lanes.has_given(lane)
                    || running.parked_while_asking.contains(&job.key_hash);
                if behind {
                    running.lanes.sent(lane, now);
                    running.hold(&job);
                    let ending = job.parking(ParkKind::Behind, Due::WithKey);
                    running.settle(lane, job, ending);
                } else {
                    let keyed = job.dedup.filter(|_| job.is_to_be_looked_up());
                    let may_start = running.wake(lane, vec![job], false, now);
                    if let Some(hash) = keyed {
                        running.look_up_keyed(hash, lane, spot);
                    }
                    if may_start {
                        self.offer(partition, lane);
                    }
                }
            }
            Some(Admitted::Ends { lane, job, ending }) => {
                if let Some(running) = self.still(claims, partition) {
                    running.hold(&job);
                    running.settle(lane, job, ending);
                }
            }
            None => {}
        }
    }

    /// Makes a task in memory of a parked one. `None` when its bytes are of a schema that is not known yet: it
    /// stays where it is.
    fn admit(&mut self, task: Parked) -> Option<Admitted> {
        let token = self.at_work(task.partition)?.token;
        let decoders = self.decoders.clone();
        match decoders.decode(&Arc::clone(&task.value)) {
            Ok(decoded) => Some(admit_parked(&mut self.floor, token, task, &decoded.event())),
            Err(error) if error.unknown_schema().is_some() => {
                tracing::warn!(partition = task.partition, offset = task.offset, %error, "a parked task waits for a schema");
                None
            }
            Err(error) => {
                let letter = DeadLetter::about_event(Reason::Undecodable, error.to_string());
                let (lane, job) = super::admission::unreadable(token, task);
                Some(Admitted::Ends {
                    lane,
                    job,
                    ending: Ending::Dead(Box::new(letter)),
                })
            }
        }
    }
}

const fn spot_of(task: &Parked) -> Spot {
    Spot {
        log_book: task.log_book,
        offset: task.offset,
    }
}
