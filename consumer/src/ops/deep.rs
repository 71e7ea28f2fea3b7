//! The deep audit: a range of the log is read again, and each of its records looked up in the tables.
//!
//! It trusts no count: what it compares with the books it has found itself. What lies before the log's
//! start, or in a day that retention dropped, is said to be unverifiable, never assumed.

use std::time::Duration;

use anyhow::{Context as _, bail};
use millrace_schemas::{Decoded, Decoders};
use millrace_store::audit::{self, Traceable, Traced};
use millrace_store::position::Progress;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use sqlx::PgConnection;

use super::place::Place;

/// Records looked up together.
const BATCH: usize = 5_000;
/// How long the brokers may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// What the log and the tables say about a range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Deep {
    /// From this offset on.
    pub from: i64,
    /// Up to this offset, not included.
    pub to: i64,
    /// Records read.
    pub records: i64,
    /// With a result of their own.
    pub results: i64,
    /// Of another task again.
    pub duplicates: i64,
    /// Set aside.
    pub dead_letters: i64,
    /// Waiting in the table of parked tasks.
    pub parked: i64,
    /// Offsets without a record.
    pub gaps: i64,
    /// No longer in the log, or in a day that is gone.
    pub unverifiable: i64,
    /// In the log and nowhere else.
    pub missing: i64,
}

/// Which part of the book is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    from: i64,
    to: i64,
    whole: bool,
}

impl Range {
    /// The part of the open book that was asked for. What was booked as lost by hand stands at the book's
    /// head and is not read.
    #[must_use]
    pub fn of(progress: &Progress, from: Option<i64>, to: Option<i64>) -> Self {
        let (first, next) = (
            progress.first_offset + progress.counts.lost,
            progress.next_offset,
        );
        let range = Self {
            from: from.unwrap_or(first).max(first),
            to: to.unwrap_or(next).min(next),
            whole: false,
        };
        Self {
            whole: range.from == first && range.to == next,
            ..range
        }
    }
}

impl Deep {
    /// What does not add up, in words.
    #[must_use]
    pub fn findings(&self, progress: &Progress, range: Range) -> Vec<String> {
        let mut findings = Vec::new();
        if self.missing > 0 {
            findings.push(format!(
                "{} records of the log are neither result, duplicate, dead letter nor parked",
                self.missing
            ));
        }
        if range.whole && self.unverifiable == 0 {
            let counts = progress.counts;
            for (what, booked, found) in [
                ("results", counts.results, self.results),
                ("duplicates", counts.duplicates, self.duplicates),
                ("dead letters", counts.dead_letters, self.dead_letters),
                ("parked tasks", counts.parked, self.parked),
                ("gaps", counts.gaps, self.gaps),
            ] {
                if booked != found {
                    findings.push(format!(
                        "{booked} {what} are booked, reading the log again finds {found}"
                    ));
                }
            }
        }
        findings
    }

    fn count(&mut self, traced: &[Traced]) {
        for one in traced {
            match one {
                Traced::Result => self.results += 1,
                Traced::DeadLetter => self.dead_letters += 1,
                Traced::Parked => self.parked += 1,
                Traced::Duplicate => self.duplicates += 1,
                Traced::Unverifiable => self.unverifiable += 1,
                Traced::Missing => self.missing += 1,
            }
        }
    }
}

/// Reads the range of one partition and looks its records up.
///
/// # Errors
/// When the brokers or the database do not answer.
pub async fn partition(
    place: &Place,
    connection: &mut PgConnection,
    decoders: &Decoders,
    progress: &Progress,
    range: Range,
) -> anyhow::Result<Deep> {
    let number = progress.partition;
    let mut deep = Deep {
        from: range.from,
        to: range.to,
        ..Deep::default()
    };
    let bounds = place.bounds(&[number]).await?;
    let start = bounds
        .get(&number)
        .map_or(range.from, |bounds| bounds.start.0)
        .max(range.from)
        .min(range.to);
    deep.unverifiable = start - range.from;
    if start == range.to {
        return Ok(deep);
    }
    let (client, topic) = (&place.claims.client, &place.consumer().topic);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, number, KafkaOffset::Offset(start))?;
    client
        .assign(&list)
        .context("assigning the partition to read it again")?;
    let mut batch: Vec<Traceable> = Vec::with_capacity(BATCH);
    loop {
        let received = tokio::time::timeout(SILENCE, client.recv()).await;
        let done = match received {
            Ok(Ok(message)) if message.offset() >= range.to => true,
            Ok(Ok(message)) => {
                let event = decoders.decode(message.payload().unwrap_or_default()).ok();
                let event = event.as_ref().map(Decoded::event);
                batch.push(Traceable {
                    offset: message.offset(),
                    event: event
                        .map(|event| (event.task_id, event.dedup_hash().map(|hash| hash.0))),
                });
                message.offset() + 1 == range.to
            }
            Ok(Err(KafkaError::PartitionEOF(_))) => true,
            Ok(Err(error)) => {
                return Err(error).with_context(|| format!("reading partition {number} again"));
            }
            Err(_) => bail!("partition {number}: the brokers were silent for {SILENCE:?}"),
        };
        if batch.len() == BATCH || done {
            deep.records += i64::try_from(batch.len())?;
            deep.count(&audit::trace(connection, place.consumer(), number, &batch).await?);
            batch.clear();
        }
        if done {
            break;
        }
    }
    client.unassign()?;
    deep.gaps = range.to - start - deep.records;
    Ok(deep)
}
