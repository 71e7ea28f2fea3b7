//! `consumer dead-letters redrive`: tasks go back to work.
//!
//! Batches of one partition, each in one transaction; between them the pace is kept. A running worker hears
//! of its tasks by a notice, another finds them when it claims the partition.

use std::time::Duration;

use anyhow::Context as _;
use millrace_settings::exit;
use millrace_store::letters::{Letter, LetterPlace};
use millrace_store::operations_log::Journal;
use millrace_store::position::Consumer;
use millrace_store::redrive::{self, Redriven, Terms};
use millrace_store::{Purpose, Trouble};
use sqlx::PgConnection;
use tokio::time::Instant;

use super::args::RedriveArgs;
use super::choice::Choice;
use super::decoders;
use super::tables::Tables;
use super::tally::Tally;

/// Letters in one transaction: it holds the partition's row, so it has to be short.
const BATCH: usize = 100;
/// How often a batch is tried again whose lock was not had within its timeout.
const TRIES: u32 = 3;
/// Bytes of records in one transaction.
const BATCH_BYTES: i64 = 8 << 20;

/// Redrives the chosen letters and prints the counts. Exit code 1 when one was refused.
///
/// # Errors
/// When a setting is wrong or the database does not answer; what was redriven by then stays so.
pub async fn run(args: &RedriveArgs) -> anyhow::Result<u8> {
    let tables = Tables::new(&args.tables)?;
    let mut reading = tables.database.connect(Purpose::Reading).await?;
    let mut choice = Choice::new(&args.choice, &mut reading).await?;
    let decoders = decoders::known(args.framing, &mut reading).await?;
    let by = args.by.clone().unwrap_or_else(millrace_settings::operator);
    let terms = Terms {
        by: &by,
        max_redrives: args.max_redrives,
        decoders: &decoders,
    };
    let mut hand = if args.choice.dry_run {
        Hand::Looking
    } else {
        let mut connection = tables.database.connect(Purpose::Operations).await?;
        let about = serde_json::json!({
            "filter": args.choice.filter.filter(false).describe(),
            "limit": args.choice.limit,
            "rate": args.rate,
            "max_redrives": args.max_redrives,
        });
        let because = args.because.as_deref();
        let journal = Journal::open(&mut connection, &by, "redrive", because, about).await?;
        Hand::Doing(Box::new((connection, journal)))
    };
    let mut pace = Pace::new(args.rate);
    let mut tally = Tally::new(args.choice.dry_run);
    loop {
        let page = choice.next(&mut reading, &tables.consumer).await?;
        if page.is_empty() {
            break;
        }
        for batch in batches(&page, pace.batch()) {
            let found = hand
                .take(&mut reading, &tables.consumer, batch, terms)
                .await
                .with_context(|| format!("after {} were redriven", tally.done()))?;
            if !args.choice.dry_run {
                pace.wait(found.redriven.len()).await;
            }
            count(&mut tally, batch, found);
        }
    }
    tally.print(args.tables.output.format, "redriven")?;
    Ok(if tally.refused() > 0 {
        exit::REJECTED
    } else {
        exit::DONE
    })
}

/// Whether it is done, or only looked at.
enum Hand {
    Looking,
    Doing(Box<(PgConnection, Journal)>),
}

impl Hand {
    async fn take(
        &mut self,
        reading: &mut PgConnection,
        consumer: &Consumer,
        batch: &[Letter],
        terms: Terms<'_>,
    ) -> Result<Redriven, Trouble> {
        let places: Vec<LetterPlace> = batch.iter().map(|letter| letter.place).collect();
        match self {
            Self::Looking => redrive::examine(reading, consumer, &places, terms).await,
            Self::Doing(doing) => {
                let (connection, journal) = doing.as_mut();
                let mut tries = 0;
                loop {
                    let done = redrive::redrive(connection, consumer, &places, terms, journal);
                    match done.await {
                        // Somebody holds the partition's row; a frozen one is thrown out within seconds.
                        Err(Trouble::Held(_)) if tries < TRIES => tries += 1,
                        ended => return ended,
                    }
                }
            }
        }
    }
}

fn count(tally: &mut Tally, batch: &[Letter], found: Redriven) {
    for letter in batch {
        tally.count(letter, found.redriven.contains(&letter.place));
    }
    for refused in found.refused {
        if let Some(letter) = batch.iter().find(|letter| letter.place == refused.place) {
            tally.refuse(letter, refused);
        }
    }
    tally.close(found.closed);
}

/// Neighbours of one partition, bounded in number and bytes.
fn batches(page: &[Letter], most: usize) -> impl Iterator<Item = &[Letter]> {
    let mut rest = page;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let mut bytes = 0;
        let fits = rest
            .iter()
            .take(most)
            .take_while(|letter| {
                bytes += letter.bytes;
                letter.place.partition == first.place.partition && bytes <= BATCH_BYTES
            })
            .count();
        // One record alone may be larger than the bound.
        let (batch, after) = rest.split_at_checked(fits.max(1))?;
        rest = after;
        Some(batch)
    })
}

/// Keeps to a number of letters a second.
struct Pace {
    rate: Option<f64>,
    since: Instant,
    done: u64,
}

impl Pace {
    fn new(rate: Option<f64>) -> Self {
        Self {
            rate,
            since: Instant::now(),
            done: 0,
        }
    }

    /// Letters at once: at most what may go in a second.
    fn batch(&self) -> usize {
        let bound = |rate: f64| (rate.clamp(1.0, BATCH as f64)) as usize;
        self.rate.map_or(BATCH, bound)
    }

    async fn wait(&mut self, more: usize) {
        self.done += more as u64;
        if let Some(rate) = self.rate
            && let Ok(planned) = Duration::try_from_secs_f64(self.done as f64 / rate)
        {
            tokio::time::sleep_until(self.since + planned).await;
        }
    }
}
