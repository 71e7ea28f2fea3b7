//! Who is followed with whom: few streams for any number of tasks, however far apart they begin to be awaited.
//!
//! A group of tasks has one stream. While there are few groups, those that begin to be awaited together are a new
//! one. Once there are as many as there may be, the smallest are closed and followed on together with what is new,
//! so that groups grow in steps and each task changes its group seldom. A group that nobody awaits any more ends.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;

use super::following::Shared;
use super::group::{self, Refused};

/// Streams of one client at a time.
const STREAMS_MOST: usize = 8;
/// Tasks that one stream follows: as many as a front door allows unless it is told otherwise.
pub(super) const STREAM_MOST: usize = 10_000;
/// How long handles are gathered before something follows them.
const GATHERED: Duration = Duration::from_millis(2);
/// The same while a group has to be closed for it, and how much longer for each of that group's tasks.
const GATHERED_FULL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_micros(50));
/// The longest that handles are gathered while the front door refuses streams.
const GATHERED_REFUSED: Duration = Duration::from_secs(1);
/// How often it is looked for handles that were dropped.
const LOOKED_AFTER: Duration = Duration::from_secs(1);

/// Tasks that are followed together. Dropping it ends its stream.
struct Group {
    /// Those that it was opened for, but for what is known to have ended.
    ids: Vec<String>,
    /// Those that its stream tells of in vain.
    abandoned: usize,
    following: AbortOnDropHandle<()>,
}

/// Brings together what begins to be awaited, until the client is gone.
pub(super) async fn gather(shared: Weak<Shared>, mut new: mpsc::UnboundedReceiver<String>) {
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut refused = None;
    let mut groups: Vec<Group> = Vec::new();
    let mut look = tokio::time::interval(LOOKED_AFTER);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut ids = Vec::new();
        tokio::select! {
            count = new.recv_many(&mut ids, STREAM_MOST) => if count == 0 {
                return;
            },
            Some(now) = told.recv() => refused = now,
            _ = look.tick(), if !groups.is_empty() => {
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                ids = left(&shared, &mut groups);
            }
        }
        if ids.is_empty() {
            continue;
        }
        tokio::time::sleep(window(&groups, refused)).await;
        while let Ok(id) = new.try_recv() {
            ids.push(id);
        }
        while let Ok(now) = told.try_recv() {
            refused = now;
        }
        let Some(shared) = shared.upgrade() else {
            return;
        };
        while !ids.is_empty() {
            let rest = ids.split_off(ids.len().min(STREAM_MOST));
            open(&shared, &mut groups, ids, refused, &tell);
            ids = rest;
        }
    }
}

/// Closes the groups that nobody awaits, and those whose streams tell of more abandoned tasks than of awaited ones;
/// of the latter, what is to be followed anew.
fn left(shared: &Shared, groups: &mut Vec<Group>) -> Vec<String> {
    let abandoned = shared.forget_abandoned();
    let mut anew = Vec::new();
    groups.retain_mut(|group| {
        if group.following.is_finished() {
            return false;
        }
        group.abandoned += group
            .ids
            .extract_if(.., |id| abandoned.contains(id))
            .count();
        shared.retain_awaited(&mut group.ids);
        let is_worth_it = group.ids.len() >= group.abandoned;
        if !is_worth_it {
            anew.append(&mut group.ids);
        }
        is_worth_it && !group.ids.is_empty()
    });
    anew
}

/// How long to wait for more before something follows them.
fn window(groups: &[Group], refused: Option<Refused>) -> Duration {
    let smallest = groups.iter().map(|group| group.ids.len()).min();
    let full = match u32::try_from(smallest.unwrap_or_default()) {
        Ok(smallest) if groups.len() >= STREAMS_MOST => {
            GATHERED_FULL.0 + GATHERED_FULL.1 * smallest
        }
        _ => GATHERED,
    };
    let held = refused.map_or(Duration::ZERO, |refused| {
        refused.until.saturating_duration_since(Instant::now())
    });
    full.max(held.min(GATHERED_REFUSED))
}

/// Has a new group follow these tasks, together with those of the groups that have to give way.
fn open(
    shared: &Arc<Shared>,
    groups: &mut Vec<Group>,
    mut ids: Vec<String>,
    refused: Option<Refused>,
    tell: &mpsc::UnboundedSender<Option<Refused>>,
) {
    groups.retain(|group| !group.following.is_finished());
    groups.sort_by_key(|group| group.ids.len());
    let sizes: Vec<_> = groups.iter().map(|group| group.ids.len()).collect();
    for mut group in groups.drain(..give_way(&sizes, ids.len())) {
        ids.append(&mut group.ids);
    }
    ids.sort_unstable();
    // One that was abandoned and is awaited again may be in two groups.
    ids.dedup();
    shared.retain_awaited(&mut ids);
    if ids.is_empty() {
        return;
    }
    let following = group::follow(shared.clone(), ids.clone(), refused, tell.clone());
    groups.push(Group {
        ids,
        abandoned: 0,
        following: AbortOnDropHandle::new(tokio::spawn(following)),
    });
}

/// How many of the smallest groups are to be followed on together with so many new tasks. `sizes` ascend.
fn give_way(sizes: &[usize], new: usize) -> usize {
    if sizes.len() < STREAMS_MOST {
        return 0;
    }
    let mut size = new;
    let mut count = 0;
    for &next in sizes {
        let has_place = sizes.len() - count < STREAMS_MOST;
        let is_small = next <= size && size + next <= STREAM_MOST;
        if has_place && !is_small {
            break;
        }
        size += next;
        count += 1;
    }
    count
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn there_are_never_more_streams_than_there_may_be(
            arrivals in prop::collection::vec(1..STREAM_MOST, 0..200),
        ) {
            let mut sizes: Vec<usize> = Vec::new();
            for new in arrivals {
                sizes.sort_unstable();
                let gone = give_way(&sizes, new);
                let merged: usize = sizes.drain(..gone).sum();
                sizes.push(new + merged);
                prop_assert!(sizes.len() <= STREAMS_MOST);
            }
        }
    }

    #[test]
    fn a_task_changes_its_stream_seldom() {
        let mut sizes: Vec<usize> = Vec::new();
        let mut followed_anew = 0;
        for _ in 0..4_096 {
            sizes.sort_unstable();
            let gone = give_way(&sizes, 1);
            let merged: usize = sizes[..gone].iter().sum();
            sizes.drain(..gone);
            sizes.push(merged + 1);
            followed_anew += merged;
        }
        assert!(followed_anew < 4_096 * 10, "{followed_anew}");
    }
}
