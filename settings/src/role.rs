//! What a Kafka client is for, and the librdkafka settings that follow from it.
//!
//! Everything here can be overridden with `-X`, except what a guarantee depends on. Values that
//! differ from librdkafka's defaults say why.

/// What a Kafka client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role<'a> {
    /// Sends task events.
    Producer,
    /// Sends task events for callers who wait for the acknowledgement.
    FrontDoor,
    /// Reads task events as a member of this group.
    Consumer {
        /// The group's id.
        group: &'a str,
    },
    /// Looks at topics and offsets.
    Admin,
}

type Setting = (&'static str, &'static str);

const EVERY_ROLE: [Setting; 1] = [
    // Producers would otherwise create a misspelt topic with the broker's defaults.
    ("allow.auto.create.topics", "false"),
];

const PRODUCER: [Setting; 1] = [("linger.ms", "5")];

const FRONT_DOOR: [Setting; 1] = [
    // Long enough for neighbours to share a request, short beside the broker's own answer.
    ("linger.ms", "1"),
];

const EVERY_PRODUCER: [Setting; 5] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // As Java clients partition, so that events of one key meet whoever sends them.
    ("partitioner", "murmur2_random"),
    ("compression.type", "lz4"),
    // The default of 1 GiB would let a slow broker fill the memory.
    ("queue.buffering.max.kbytes", "65536"),
];

const CONSUMER: [Setting; 12] = [
    // Only offsets that the worker stored after a flush are committed, in the background.
    ("enable.auto.commit", "true"),
    ("enable.auto.offset.store", "false"),
    // A log that does not hold the position is an error to decide on, not a place to jump from.
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_committed"),
    ("enable.partition.eof", "true"),
    ("statistics.interval.ms", "1000"),
    // The default of a second caps the rate whenever the local queue was full for a moment.
    ("fetch.queue.backoff.ms", "5"),
    // A queued message costs two to three times its size, so these two bound the worker's memory.
    ("queued.min.messages", "20000"),
    ("queued.max.messages.kbytes", "16384"),
    // A broker that cannot wake a waiting fetch, as the embedded one, then delays nothing for long.
    ("fetch.wait.max.ms", "100"),
    // One fetch brings this much of one partition in a row; less keeps partitions in step.
    ("fetch.message.max.bytes", "262144"),
    ("fetch.max.bytes", "8388608"),
];

/// Gives partitions up one by one at a rebalance. The new group protocol refuses the property and
/// works that way by itself.
const CLASSIC_PROTOCOL: [Setting; 1] = [("partition.assignment.strategy", "cooperative-sticky")];

impl Role<'_> {
    /// The settings of the role, before those of the user.
    pub(crate) fn defaults(self, consumer_protocol: bool) -> impl Iterator<Item = Setting> {
        let own: &[Setting] = match self {
            Self::Producer => &PRODUCER,
            Self::FrontDoor => &FRONT_DOOR,
            Self::Consumer { .. } => &CONSUMER,
            Self::Admin => &[],
        };
        let protocol: &[Setting] = match self {
            Self::Consumer { .. } if !consumer_protocol => &CLASSIC_PROTOCOL,
            _ => &[],
        };
        let sends: &[Setting] = match self {
            Self::Producer | Self::FrontDoor => &EVERY_PRODUCER,
            Self::Consumer { .. } | Self::Admin => &[],
        };
        let settings = EVERY_ROLE.iter().chain(sends).chain(own).chain(protocol);
        settings.copied()
    }

    pub(crate) fn client_id(self) -> &'static str {
        match self {
            Self::Producer => "millrace-producer",
            Self::FrontDoor => "millrace-front-door",
            Self::Consumer { .. } => "millrace-consumer",
            Self::Admin => "millrace-admin",
        }
    }
}
