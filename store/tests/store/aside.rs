//! Hands for tasks that are parked: putting them there, loading them, and settling them again.

use std::sync::Arc;
use std::time::Duration;

use millrace_schemas::TaskEvent;
use millrace_store::parked::{self, Parked, Wake, Waking};
use millrace_store::{
    Advance, Counts, Due, End, Ending, Origin, Outcome, ParkKind, Parking, Settling, Share, Writer,
};

use crate::events::{event, record};
use crate::world::{Held, World, flush_of};

/// An event with an ordering key.
pub fn ordered(key: &str) -> TaskEvent {
    TaskEvent {
        key: Some(key.into()),
        ..event()
    }
}

/// The key hash of an event's lane.
pub fn lane(event: &TaskEvent) -> [u8; 16] {
    let own = *event.task_id.as_bytes();
    event.as_ref().lane_hash().unwrap_or(own)
}

pub fn parking(event: &TaskEvent, kind: ParkKind, due: Due) -> Ending {
    Ending::Parked(Box::new(Parking {
        kind,
        key_hash: lane(event),
        due,
        age: Duration::from_secs(3),
        error: Some("not now".into()),
    }))
}

/// A record of the log that is parked.
pub fn parks(offset: i64, event: &TaskEvent, kind: ParkKind, due: Due) -> Settling {
    Settling {
        ending: parking(event, kind, due),
        ..record(offset, event)
    }
}

/// A retry that is due so many seconds from now.
pub fn retries(offset: i64, event: &TaskEvent, seconds: u64) -> Settling {
    let due = Due::In(Duration::from_secs(seconds));
    parks(offset, event, ParkKind::Retry, due)
}

/// A task behind another of its key.
pub fn follows(offset: i64, event: &TaskEvent) -> Settling {
    parks(offset, event, ParkKind::Behind, Due::WithKey)
}

/// A loaded task as it is settled.
pub fn settles(task: &Parked, ending: Ending) -> Settling {
    Settling {
        offset: task.offset,
        timestamp_ms: task.timestamp_ms,
        value: Arc::clone(&task.value),
        headers: task.headers.clone(),
        origin: Origin::Parked {
            log_book: task.log_book,
            run: task.run,
        },
        attempts: task.attempts + 1,
        ending,
    }
}

/// A share that settles these and leaves the position at `next_offset`.
pub fn share_to(held: &Held, records: Vec<Settling>, next_offset: i64) -> Share {
    Share {
        partition: held.partition,
        fence: held.fence,
        records,
        advance: Advance {
            next_offset,
            counted: Counts::NONE,
            leader_epoch: None,
            frontier_ms: None,
            decode_window: None,
            clears_suspect: false,
        },
        may_repeat: false,
    }
}

/// Lands these and moves the position to `next_offset`.
pub async fn land_to(
    world: &World,
    writer: &mut Writer,
    held: &mut Held,
    records: Vec<Settling>,
    next_offset: i64,
) -> Vec<Outcome> {
    land_share(world, writer, held, share_to(held, records, next_offset)).await
}

pub async fn land_share(
    world: &World,
    writer: &mut Writer,
    held: &mut Held,
    share: Share,
) -> Vec<Outcome> {
    let next_offset = share.advance.next_offset;
    match world.flush(writer, &flush_of(vec![share])).await.remove(0) {
        End::Landed {
            fence, outcomes, ..
        } => {
            held.fence = fence;
            held.next = next_offset;
            outcomes
        }
        End::Lost(loss) => panic!("lost: {loss:?}"),
    }
}

/// Everything that is due.
pub async fn wake(world: &World, held: &Held) -> Wake {
    wake_with(world, held, |_| {}).await
}

pub async fn wake_with(
    world: &World,
    held: &Held,
    change: impl for<'a> FnOnce(&mut Waking<'a>),
) -> Wake {
    let claims = [millrace_store::parked::HeldPartition {
        partition: held.partition,
        claim: held.fence.claim,
        read_to: None,
    }];
    let mut waking = Waking {
        claims: &claims,
        busy: &[],
        paused_types: &[],
        paused_tenants: &[],
        cancels: &[],
        most_tasks: 1_000,
        most_bytes: 10_000_000,
    };
    change(&mut waking);
    let mut connection = world.operations().await;
    parked::wake(&mut connection, &world.consumer, &waking)
        .await
        .unwrap()
}

/// Everything parked becomes due, as if the time had passed.
pub async fn time_passes(world: &World) {
    world
        .sql(
            "UPDATE parked_keys SET due_at = now() - interval '1 second'; \
             UPDATE parked_tasks SET due_at = now() - interval '1 second' WHERE due_at IS NOT NULL",
        )
        .await;
}

/// `depth` and whether it is due, of the only parked key.
pub async fn key(world: &World) -> (i64, bool) {
    let depth = world.number("SELECT depth::bigint FROM parked_keys").await;
    let due = world.number("SELECT count(*) FROM parked_keys WHERE due_at <= clock_timestamp()");
    (depth, due.await == 1)
}
