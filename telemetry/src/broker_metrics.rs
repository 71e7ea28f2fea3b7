//! Errors that the Kafka client reports, for producer and consumer alike.

use crate::definition::{Definition, Kind};
use metrics::Counter;

const BROKER_ERRORS: Definition = Definition {
    name: "millrace_broker_errors_total",
    kind: Kind::Counter,
    labels: &["kind"],
    help: "Errors reported by the Kafka client, by kind.",
};

pub(crate) const DEFINITIONS: &[&Definition] = &[&BROKER_ERRORS];

/// What went wrong between the client and the brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerErrorKind {
    /// No connection to a broker, or it broke.
    Connection,
    /// A request was not answered in time.
    Timeout,
    /// Credentials, certificates or rights were refused.
    Authorization,
    /// The client instance cannot go on and has to be made anew.
    Fatal,
    /// Anything else; the log has its text.
    Other,
}

/// Counts broker errors.
#[derive(Clone, Debug)]
pub struct BrokerMetrics {
    connection: Counter,
    timeout: Counter,
    authorization: Counter,
    fatal: Counter,
    other: Counter,
}

impl Default for BrokerMetrics {
    fn default() -> BrokerMetrics {
        BrokerMetrics::new()
    }
}

impl BrokerMetrics {
    /// Handles to the process's broker errors, all kinds present from zero.
    pub fn new() -> BrokerMetrics {
        let of = |kind: &str| BROKER_ERRORS.counter(&[kind]);
        BrokerMetrics {
            connection: of("connection"),
            timeout: of("timeout"),
            authorization: of("authorization"),
            fatal: of("fatal"),
            other: of("other"),
        }
    }

    /// The client reported an error.
    pub fn error(&self, kind: BrokerErrorKind) {
        match kind {
            BrokerErrorKind::Connection => &self.connection,
            BrokerErrorKind::Timeout => &self.timeout,
            BrokerErrorKind::Authorization => &self.authorization,
            BrokerErrorKind::Fatal => &self.fatal,
            BrokerErrorKind::Other => &self.other,
        }
        .increment(1);
    }
}
