//! The sender's rounds: lease, send, delete; and what a failure costs, which is time only.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_store::outbox::{self, Leased};
use millrace_store::position::Consumer;
use millrace_store::{Database, Purpose, Trouble};
use millrace_telemetry::{OutboxKind, OutboxMetrics};
use rdkafka::config::ClientConfig;
use sqlx::PgConnection;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::letter_producer::{DELIVERY_DEADLINE, LetterProducer};

/// Rows taken at once.
const ROWS: i64 = 500;
/// Bytes of records taken at once.
const BYTES: i64 = 8 << 20;
/// How long taken rows are ours without another word: so long their copies are late when a sender died.
const LEASE: Duration = Duration::from_secs(6);
/// How often the lease is renewed while copies are on their way.
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How often an empty outbox is looked at.
const IDLE: Duration = Duration::from_secs(1);
/// The longest pause after failures in a row.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a statement may take, a connection that hangs included.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(20);
/// How long records in the air are waited for at the end.
const LAST_WAIT: Duration = Duration::from_secs(3);
/// How often the backlog is counted.
const COUNT_EVERY: Duration = Duration::from_secs(15);

/// Sends what the outbox holds until it is told to stop.
pub struct Outbox {
    /// Where the outbox is; one connection is opened.
    pub database: Database,
    /// Whose.
    pub consumer: Consumer,
    /// The settings of a producer. The client is made when there is something to send.
    pub kafka: ClientConfig,
    /// The topic that dead letters are copied to. It is never created.
    pub dlq_topic: String,
    /// What is counted.
    pub metrics: OutboxMetrics,
}

/// What a round found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Nothing, or less than it could take.
    Emptied,
    /// As much as it could take: there may be more.
    Full,
}

/// Why a round did not get through.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Database(#[from] Trouble),
    /// No copy went through.
    #[error("{0}")]
    Kafka(String),
}

/// What is kept between rounds.
#[derive(Default)]
struct Hold {
    connection: Option<PgConnection>,
    producer: Option<LetterProducer>,
    /// Whether the brokers said that the topic is there, and nothing failed since.
    confirmed: bool,
    /// Whether a person was told that copies fail.
    complained: bool,
    counted: Option<Instant>,
}

impl Outbox {
    /// Runs until `stop`; ends within a few seconds of it. What is in the air then is sent again by another.
    pub async fn run(self, stop: CancellationToken) {
        let mut hold = Hold::default();
        let mut failures = 0;
        while !stop.is_cancelled() {
            let pause = match self.round(&mut hold, &stop).await {
                Ok(Round::Full) => {
                    failures = 0;
                    Duration::ZERO
                }
                Ok(Round::Emptied) => {
                    failures = 0;
                    IDLE
                }
                Err(failure) => {
                    self.note(&mut hold, &failure);
                    failures += 1;
                    pause_after(failures)
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.metrics.backlog(None);
    }

    fn note(&self, hold: &mut Hold, failure: &Failure) {
        match failure {
            Failure::Database(error) => {
                // Its owner says so already.
                tracing::debug!(%error, "the outbox cannot be read");
                hold.connection = None;
                self.metrics.backlog(None);
                hold.counted = None;
            }
            Failure::Kafka(error) => {
                hold.confirmed = false;
                if hold
                    .producer
                    .as_ref()
                    .is_some_and(LetterProducer::is_beyond_repair)
                {
                    drop_apart(hold.producer.take());
                }
                if !hold.complained {
                    tracing::warn!(
                        topic = self.dlq_topic,
                        error,
                        "dead letters cannot be copied: the copies wait in the outbox"
                    );
                    hold.complained = true;
                }
            }
        }
    }

    async fn round(&self, hold: &mut Hold, stop: &CancellationToken) -> Result<Round, Failure> {
        let mut connection = match hold.connection.take() {
            Some(connection) => connection,
            None => self.database.connect(Purpose::Operations).await?,
        };
        self.count(&mut connection, hold).await?;
        let taken = outbox::take(&mut connection, &self.consumer, ROWS, BYTES, LEASE);
        let leased = within(taken).await?;
        if leased.is_empty() {
            hold.connection = Some(connection);
            return Ok(Round::Emptied);
        }
        let bytes: i64 = leased.iter().map(|one| one.letter.letter.bytes).sum();
        let round = if leased.len() as i64 >= ROWS || bytes * 2 >= BYTES {
            Round::Full
        } else {
            Round::Emptied
        };
        let ids: Vec<i64> = leased.iter().map(|one| one.id).collect();
        let sent = {
            let sending = self.send(hold, &leased, stop);
            tokio::pin!(sending);
            loop {
                tokio::select! {
                    sent = &mut sending => break sent,
                    () = tokio::time::sleep(RENEW_EVERY) => {}
                }
                // Not beside the sending: a statement that is given up leaves its connection unusable.
                if let Err(error) = within(outbox::renew(&mut connection, &ids, LEASE)).await {
                    tracing::debug!(%error, "the lease of copies on their way was not renewed");
                    let sent = sending.await;
                    connection = self.database.connect(Purpose::Operations).await?;
                    break sent;
                }
            }
        };
        let delivered: Vec<i64> = sent.delivered;
        if !delivered.is_empty() {
            within(outbox::sent(&mut connection, &delivered)).await?;
            self.metrics
                .sent(OutboxKind::DeadLetterCopy, delivered.len() as u64);
        }
        let mut first = None;
        for (error, ids) in sent.failed {
            within(outbox::failed(&mut connection, &ids, &error)).await?;
            self.metrics
                .failed(OutboxKind::DeadLetterCopy, ids.len() as u64);
            first.get_or_insert(error);
        }
        hold.connection = Some(connection);
        match first {
            Some(error) => Err(Failure::Kafka(error)),
            None => {
                if hold.complained && !delivered.is_empty() {
                    tracing::info!(topic = self.dlq_topic, "dead letters are copied again");
                    hold.complained = false;
                }
                Ok(round)
            }
        }
    }

    async fn count(&self, connection: &mut PgConnection, hold: &mut Hold) -> Result<(), Failure> {
        if hold.counted.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
            let backlog = within(outbox::backlog(connection, &self.consumer)).await?;
            self.metrics.backlog(Some((backlog.rows, backlog.oldest)));
            hold.counted = Some(Instant::now());
        }
        Ok(())
    }

    /// Sends what was leased. No connection and no lock is held up by it: the rows are ours by their lease.
    async fn send(&self, hold: &mut Hold, leased: &[Leased], stop: &CancellationToken) -> Sent {
        let mut sent = Sent::default();
        let producer = match self.producer(hold).await {
            Ok(producer) => producer,
            Err(error) => {
                sent.failed
                    .insert(error, leased.iter().map(|one| one.id).collect());
                return sent;
            }
        };
        let mut in_the_air = Vec::with_capacity(leased.len());
        for one in leased {
            match producer.send(&self.consumer, &one.letter) {
                Ok(delivery) => in_the_air.push((one.id, delivery)),
                Err(error) => sent.failed.entry(error).or_default().push(one.id),
            }
        }
        let arrivals = async {
            for (id, delivery) in in_the_air {
                match delivery.await {
                    Ok(Ok(_)) => sent.delivered.push(id),
                    Ok(Err((error, _))) => {
                        sent.failed.entry(error.to_string()).or_default().push(id);
                    }
                    Err(_) => {
                        let gone = "the Kafka client ended".to_owned();
                        sent.failed.entry(gone).or_default().push(id);
                    }
                }
            }
        };
        let stopped = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_WAIT).await;
        };
        let overdue = tokio::time::sleep(DELIVERY_DEADLINE + DELIVERY_DEADLINE / 2);
        tokio::select! {
            () = arrivals => {}
            () = stopped => {}
            () = overdue => {}
        }
        sent
    }

    /// A client that has found its topic.
    async fn producer(&self, hold: &mut Hold) -> Result<LetterProducer, String> {
        let producer = match &hold.producer {
            Some(producer) => producer.clone(),
            None => {
                let made = LetterProducer::new(self.kafka.clone(), &self.dlq_topic)
                    .map_err(|error| format!("making the Kafka client: {error}"))?;
                hold.producer = Some(made.clone());
                made
            }
        };
        if !hold.confirmed {
            producer.confirm_topic().await?;
            hold.confirmed = true;
        }
        Ok(producer)
    }
}

/// What became of leased rows; those in neither list become due again by their lease.
#[derive(Default)]
struct Sent {
    delivered: Vec<i64>,
    /// By what went wrong.
    failed: BTreeMap<String, Vec<i64>>,
}

/// 1 s, 2 s, 4 s and so on.
fn pause_after(failures: u32) -> Duration {
    Duration::from_secs(1)
        .saturating_mul(1 << failures.saturating_sub(1).min(10))
        .min(LONGEST_PAUSE)
}

/// A client's end waits for its threads: that is nobody's time but its own.
fn drop_apart(producer: Option<LetterProducer>) {
    drop(tokio::task::spawn_blocking(move || drop(producer)));
}

async fn within<T>(work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    match tokio::time::timeout(STATEMENT_DEADLINE, work).await {
        Ok(done) => done,
        Err(_) => Err(Trouble::Outage(format!(
            "no answer within {STATEMENT_DEADLINE:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let pauses: Vec<u64> = (1..8).map(|n| pause_after(n).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    }
}
