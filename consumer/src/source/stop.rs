//! Why a partition stands still until somebody decides, each with what happened and what to do.
//!
//! Nothing is skipped by guessing: a log that is not the one the position belongs to, a position outside
//! the log, a database that forgot. The text goes to the log, to readiness and to `position show`.

use millrace_schemas::UnknownSchema;

/// What stands against going on at the stored position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// The topic is gone.
    #[error(
        "topic {topic} does not exist any more: create it again and set the positions, or point the worker at the right topic"
    )]
    TopicMissing {
        /// Its name.
        topic: String,
    },
    /// Another group or topic owns this Postgres schema.
    #[error(
        "the Postgres schema belongs to group {group} on topic {topic}: give this worker another --schema"
    )]
    AnotherGroup {
        /// Its group.
        group: String,
        /// Its topic.
        topic: String,
    },
    /// The topic was deleted and created again, or the cluster is another one.
    #[error(
        "the log is another one: {what} was {was} when the positions were written and is {is} now; the offsets name other \
         records. `consumer position set --partition all --to earliest --reason …` starts over in the new log"
    )]
    AnotherLog {
        /// `topic id` or `cluster id`.
        what: &'static str,
        /// What was pinned.
        was: String,
        /// What the broker says.
        is: String,
    },
    /// The topic has more partitions than when the group started.
    #[error(
        "partition {partition} is new: the topic had {pinned} partitions when the group started and has {now} now, so keys have \
         moved between partitions. `consumer position set --partition {partition} --to earliest --reason …` takes it in"
    )]
    NewPartition {
        /// The partition.
        partition: i32,
        /// The pinned count.
        pinned: i32,
        /// The broker's count.
        now: i32,
    },
    /// Retention removed records that were not read.
    #[error(
        "offsets {position} to {start} are gone from the log before they were read: retention passed the position. \
         `consumer position set --partition {partition} --to earliest --reason …` goes on and books them as lost"
    )]
    RetentionPassed {
        /// The partition.
        partition: i32,
        /// The stored position.
        position: i64,
        /// Where the log begins now.
        start: i64,
    },
    /// The log is shorter than what was read of it.
    #[error(
        "the position {position} lies beyond the log's end {end}: the log was truncated, or created again. \
         `consumer position set --partition {partition} --to … --reason …` decides where to go on"
    )]
    BeyondEnd {
        /// The partition.
        partition: i32,
        /// The stored position.
        position: i64,
        /// Where the log ends now.
        end: i64,
    },
    /// Kafka remembers more than Postgres.
    #[error(
        "Kafka holds a committed offset of {committed}, but Postgres never stood beyond {highest}: the database went back to an \
         older state. Results from {highest} on are not there; `consumer position set --partition {partition} --to {highest} \
         --reason …` reads them again"
    )]
    DatabaseRestored {
        /// The partition.
        partition: i32,
        /// Kafka's committed offset.
        committed: i64,
        /// The highest position known to Postgres.
        highest: i64,
    },
    /// The group has worked here before, but its position is not in the database.
    #[error(
        "the group has a committed offset of {committed} in Kafka but no position in this schema: the table was lost, or --schema \
         or --group is wrong. `consumer position set --partition {partition} --to {committed} --reason …` goes on from there"
    )]
    LostTable {
        /// The partition.
        partition: i32,
        /// Kafka's committed offset.
        committed: i64,
    },
    /// A record was written with a schema that nobody here knows.
    #[error(
        "the record at offset {offset} was written with {schema}, which is not known here: {}",
        cure(*schema)
    )]
    UnknownSchema {
        /// Its offset.
        offset: i64,
        /// Which schema.
        schema: UnknownSchema,
    },
    /// Most of the last records do not decode: something is wrong with whoever writes them, or with this release.
    #[error(
        "most of the records before offset {offset} do not decode under the schema that they name: stop whoever writes them, or \
         publish the right schema (`consumer migrate` of the release that wrote them; the partition goes on by itself then). \
         `consumer resume --partition {partition}` goes on nevertheless, with a dead letter for each"
    )]
    MostUndecodable {
        /// The partition.
        partition: i32,
        /// The next offset.
        offset: i64,
    },
}

impl StopReason {
    /// Whether a schema that is published meanwhile may end it.
    #[must_use]
    pub const fn may_be_learnt(&self) -> bool {
        matches!(
            self,
            Self::UnknownSchema { .. } | Self::MostUndecodable { .. }
        )
    }

    /// Whether it may pass by itself, so that it is looked at again every few seconds without a decision.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::UnknownSchema { .. } | Self::TopicMissing { .. } | Self::MostUndecodable { .. }
        )
    }
}

/// How an unknown schema becomes a known one.
const fn cure(schema: UnknownSchema) -> &'static str {
    match schema {
        UnknownSchema::Fingerprint(_) => {
            "run `consumer migrate` of the release that wrote it; the partition goes on by itself then"
        }
        UnknownSchema::ConfluentId(_) => {
            "if it is the id of millrace.TaskEvent in your registry, start the worker with --schema-id of that number"
        }
    }
}
