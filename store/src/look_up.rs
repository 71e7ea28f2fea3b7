//! What a flush asks the tables before it decides how its records end.
//!
//! Keys are always looked up, since anybody may have used one before. Rows, parked tasks and letters of the
//! records themselves are looked up only where they may be there, that is, where this may be a repeat, and where
//! no primary key would refuse a second one.

use std::collections::HashSet;

use millrace_schemas::TaskId;
use sqlx::PgConnection;

use crate::dedup::{KeyDays, Owners};
use crate::draft::Draft;
use crate::fate::Fate;
use crate::fence::Locked;
use crate::flush::{Footing, Setup};
use crate::present::Present;
use crate::trouble::Trouble;

/// Asks for what the decision needs: the owners of keys; rows of those tasks, and of their repeats, that
/// meet on a key, and of those that leave no row; and, where this may be a repeat itself, rows, letters and
/// parked tasks of all records.
pub(crate) async fn ask(
    connection: &mut PgConnection,
    setup: &Setup<'_>,
    drafts: &[Draft<'_>],
    locked: &Locked,
    key_days: &mut KeyDays,
) -> Result<(Owners, Present), Trouble> {
    let keyed: Vec<([u8; 16], TaskId)> = drafts
        .iter()
        .filter(|draft| draft.is_judged())
        .filter_map(|draft| {
            let event = draft.event()?;
            Some((event.dedup_hash()?.0, event.task_id))
        })
        .collect();
    let mut hashes: Vec<[u8; 16]> = keyed.iter().map(|(hash, _)| *hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    let from = setup.retention.dedup_from(locked.today);
    let owners = if hashes.is_empty() {
        Owners::default()
    } else {
        let days = key_days.within(connection, from, locked.today).await?;
        Owners::look_up(connection, &hashes, days).await?
    };
    let plain = keyed.is_empty() && drafts.iter().all(|d| matches!(d.fate, Fate::Result));
    let mut present = Present::remembering(setup.footing == Footing::Repeat || !plain);
    let mut ids = meeting(&keyed, &owners);
    // The primary key refuses a second result. A task that is parked or fails has none to be refused.
    let leaves_no_result = |draft: &&Draft<'_>| {
        setup.footing == Footing::Repeat
            || (draft.is_judged() && !matches!(draft.fate, Fate::Result))
    };
    ids.extend(
        drafts
            .iter()
            .filter(leaves_no_result)
            .filter_map(|draft| Some(draft.event()?.task_id)),
    );
    present
        .look_up_rows(connection, setup.consumer, ids.iter().copied())
        .await?;
    present
        .look_up_parked(
            connection,
            setup.consumer,
            ids.into_iter(),
            Some(setup.decoders),
        )
        .await?;
    if setup.footing == Footing::Repeat {
        look_up_places(connection, setup, drafts, locked, &mut present).await?;
    }
    Ok((owners, present))
}

async fn look_up_places(
    connection: &mut PgConnection,
    setup: &Setup<'_>,
    drafts: &[Draft<'_>],
    locked: &Locked,
    present: &mut Present,
) -> Result<(), Trouble> {
    let mut rest = drafts;
    while let Some(first) = rest.first() {
        let partition = first.partition;
        let end = rest.partition_point(|draft| draft.partition <= partition);
        let (own, others) = rest.split_at(end);
        rest = others;
        let mut from_log = own.iter().filter(|draft| draft.is_from_log());
        let Some(first) = from_log.next() else {
            continue;
        };
        let last = from_log.next_back().unwrap_or(first);
        let range = (first.record.offset, last.record.offset);
        let log_book = locked.log_book(partition).unwrap_or_default();
        present
            .look_up_places(connection, setup.consumer, partition, log_book, range)
            .await?;
    }
    Ok(())
}

/// Tasks that are not the first of their key, and the owners whom they meet.
fn meeting(keyed: &[([u8; 16], TaskId)], owners: &Owners) -> Vec<TaskId> {
    let mut seen = HashSet::with_capacity(keyed.len());
    let mut ids = Vec::new();
    for (hash, id) in keyed {
        let owner = owners.owner(hash).filter(|owner| owner != id);
        if !seen.insert(hash) || owner.is_some() {
            ids.push(*id);
            ids.extend(owner);
        }
    }
    ids
}
