//! Redrive: a dead letter's task goes back to work, in one transaction for each batch of a partition.
//!
//! The letter is marked, its failed result withdrawn, the task parked with its next run, and the books moved
//! from dead letters to parked. So at every moment a task has one result at most, and the books balance. The
//! partition's row is locked, which keeps its owner's flush out meanwhile; claim and seq stay as they are, so
//! the owner's fence holds. What the position has not passed belongs to the owner alone and is refused.

mod judge;
mod tables;

use sqlx::{Connection, PgConnection};

use crate::days::{self, Daily};
use crate::letters::{self, LetterPlace};
use crate::notices::{self, Notice};
use crate::operations_log::Journal;
use crate::position::Consumer;
use crate::trouble::Trouble;

use self::judge::{Ready, judge};
pub use self::judge::{Refusal, Refused, Terms};
use self::tables::Standing;

/// What became of letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Sent to work again; in a dry run those that would be.
    pub redriven: Vec<LetterPlace>,
    /// Not sent, and why.
    pub refused: Vec<Refused>,
    /// Decided on by somebody else meanwhile.
    pub closed: u64,
}

/// Says what a redrive of these letters would do, and does nothing.
///
/// # Errors
/// When the database cannot be read.
pub async fn examine(
    connection: &mut PgConnection,
    consumer: &Consumer,
    places: &[LetterPlace],
    terms: Terms<'_>,
) -> Result<Redriven, Trouble> {
    let mut found = Redriven::default();
    for of_partition in places.chunk_by(|one, next| one.partition == next.partition) {
        let Some(partition) = of_partition.first().map(|place| place.partition) else {
            continue;
        };
        let ready = prepare(connection, consumer, of_partition, terms, &mut found).await?;
        let standing = tables::standing(connection, consumer, partition).await?;
        let ready = admit(connection, consumer, standing.as_ref(), ready, &mut found).await?;
        found.redriven.extend(ready.iter().map(|one| one.place));
    }
    Ok(found)
}

/// Redrives letters, the neighbours of one partition in one transaction; a few hundred at most, since their
/// bytes are held in memory. Keeps `journal` up to date in the same transactions.
///
/// # Errors
/// When the database cannot be written: the transaction at hand did nothing, those before it stay done.
/// Redriving the same letters again is harmless.
pub async fn redrive(
    connection: &mut PgConnection,
    consumer: &Consumer,
    places: &[LetterPlace],
    terms: Terms<'_>,
    journal: &mut Journal,
) -> Result<Redriven, Trouble> {
    let mut done = Redriven::default();
    for of_partition in places.chunk_by(|one, next| one.partition == next.partition) {
        let mut found = Redriven::default();
        // The bytes of a letter never change, so they are decoded before anything is locked.
        let ready = prepare(connection, consumer, of_partition, terms, &mut found).await?;
        let mut transaction = connection.begin().await?;
        let ready = apply(&mut transaction, consumer, ready, terms, &mut found).await?;
        let counts = [
            ("redriven", ready as u64),
            ("refused", found.refused.len() as u64),
        ];
        journal.write(&mut transaction, &counts).await?;
        transaction.commit().await?;
        journal.add(&counts);
        done.redriven.append(&mut found.redriven);
        done.refused.append(&mut found.refused);
        done.closed += found.closed;
    }
    Ok(done)
}

/// Reads the letters and judges each by itself.
async fn prepare(
    connection: &mut PgConnection,
    consumer: &Consumer,
    places: &[LetterPlace],
    terms: Terms<'_>,
    found: &mut Redriven,
) -> Result<Vec<Ready>, Trouble> {
    let oldest = days::oldest(connection, Daily::Results).await?;
    let today = days::today(connection).await?;
    let kept = oldest.unwrap_or(today)..=today.plus(1);
    let mut ready = Vec::with_capacity(places.len());
    for whole in letters::whole(connection, consumer, places).await? {
        if !whole.letter.is_open() {
            found.closed += 1;
            continue;
        }
        match judge(&whole, terms, &kept) {
            Ok(one) => ready.push(one),
            Err((refusal, detail)) => found.refused.push(Refused {
                place: whole.letter.place,
                task_id: whole.letter.task_id,
                refusal,
                detail,
            }),
        }
    }
    Ok(ready)
}

/// Does it, under the lock of the partition's row. Returns how many were redriven.
async fn apply(
    connection: &mut PgConnection,
    consumer: &Consumer,
    ready: Vec<Ready>,
    terms: Terms<'_>,
    found: &mut Redriven,
) -> Result<usize, Trouble> {
    let Some(partition) = ready.first().map(|one| one.place.partition) else {
        return Ok(0);
    };
    tables::lock(connection, consumer, partition).await?;
    let standing = tables::standing(connection, consumer, partition).await?;
    let mut ready = admit(connection, consumer, standing.as_ref(), ready, found).await?;
    let Some(standing) = standing else {
        return Ok(0);
    };
    let marked = tables::mark(connection, consumer, &ready, terms.by).await?;
    let wanted = ready.len();
    ready.retain(|one| marked.contains(&one.place));
    found.closed += (wanted - ready.len()) as u64;
    if ready.is_empty() {
        return Ok(0);
    }
    tables::withdraw_failed_results(connection, consumer, &ready).await?;
    tables::park(connection, consumer, &ready, standing.now).await?;
    let in_the_books = ready
        .iter()
        .filter(|one| {
            one.place.log_book == standing.log_book && one.place.offset >= standing.first_offset
        })
        .count();
    tables::move_books(connection, consumer, partition, in_the_books).await?;
    notices::tell(connection, Notice::Parked).await?;
    found.redriven.extend(ready.iter().map(|one| one.place));
    Ok(ready.len())
}

/// Holds the letters against the position and the tables; keeps those that may go.
async fn admit(
    connection: &mut PgConnection,
    consumer: &Consumer,
    standing: Option<&Standing>,
    ready: Vec<Ready>,
    found: &mut Redriven,
) -> Result<Vec<Ready>, Trouble> {
    let with_result = tables::with_result(connection, consumer, &ready).await?;
    let parked = tables::parked(connection, consumer, &ready).await?;
    let mut admitted = Vec::with_capacity(ready.len());
    for one in ready {
        let place = one.place;
        let (refusal, detail) = match standing {
            None => (
                Refusal::NoPosition,
                "its partition has no position".to_owned(),
            ),
            Some(at) if place.log_book == at.log_book && place.offset >= at.next_offset => (
                Refusal::BeyondPosition,
                format!("the position is {}: its worker comes to it", at.next_offset),
            ),
            Some(_) if with_result.contains(&place) => (
                Refusal::HasResult,
                "it has a result that is no failure".to_owned(),
            ),
            Some(_) if parked.contains(&(place.log_book, place.offset)) => (
                Refusal::Waiting,
                "it waits among the parked tasks already".to_owned(),
            ),
            Some(_) => {
                admitted.push(one);
                continue;
            }
        };
        found.refused.push(Refused {
            place,
            task_id: Some(one.task_id),
            refusal,
            detail,
        });
    }
    Ok(admitted)
}
