//! What a flush asks the tables before it decides how its records end.
//!
//! Keys are always looked up, since anybody may have used one before. Rows and letters of the records
//! themselves are looked up only where they may be there: new offsets have none, by the fence.

use sqlx::PgConnection;

use crate::dedup::Owners;
use crate::draft::Draft;
use crate::fate::Fate;
use crate::fence::Locked;
use crate::flush::{Footing, Setup};
use crate::present::Present;
use crate::trouble::Trouble;

/// Asks the tables for what the decision needs: owners of keys, rows of their owners where somebody may
/// ask for a repeat, and, where this may be a repeat itself, rows and letters of the records.
pub(crate) async fn ask(
    connection: &mut PgConnection,
    setup: &Setup<'_>,
    drafts: &[Draft<'_>],
    locked: &Locked,
) -> Result<(Owners, Present), Trouble> {
    let candidates = || {
        drafts
            .iter()
            .filter(|draft| matches!(draft.fate, Fate::Result))
    };
    let mut hashes: Vec<[u8; 16]> = candidates()
        .filter_map(|draft| Some(draft.event()?.dedup_hash()?.0))
        .collect();
    hashes.sort_unstable();
    hashes.dedup();
    let from = setup.retention.dedup_from(locked.today);
    let owners = Owners::look_up(connection, &hashes, from, locked.today).await?;
    let plain = hashes.is_empty() && candidates().count() == drafts.len();
    let mut present = Present::remembering(setup.footing == Footing::Repeat || !plain);
    if !hashes.is_empty() {
        let answering = candidates().filter_map(|draft| {
            let event = draft.event().filter(|event| event.reply)?;
            owners.owner(&event.dedup_hash()?.0)
        });
        present
            .look_up_rows(connection, setup.consumer, answering)
            .await?;
    }
    if setup.footing == Footing::Repeat {
        let ids = drafts
            .iter()
            .filter_map(|draft| Some(draft.event()?.task_id));
        present
            .look_up_rows(connection, setup.consumer, ids)
            .await?;
        let mut rest = drafts;
        while let Some(first) = rest.first() {
            let partition = first.partition;
            let end = rest.partition_point(|draft| draft.partition <= partition);
            let (own, others) = rest.split_at(end);
            rest = others;
            let last = own.last().map_or(0, |draft| draft.record.offset);
            let range = (first.record.offset, last);
            let log_book = locked.log_book(partition).unwrap_or_default();
            present
                .look_up_letters(connection, setup.consumer, partition, log_book, range)
                .await?;
        }
    }
    Ok((owners, present))
}
