//! What can be seen of a running Millrace process: its log, its metrics and its health.
//!
//! This crate is the only place that names a metric. Everyone else holds a handle struct
//! ([`ConsumerMetrics`], [`PartitionMetrics`], [`HandlerMetrics`], [`DatabaseMetrics`] and so on)
//! whose methods say what happened, in units that cannot be confused. Label values are bounded by construction:
//! topic, partition, registered task types and closed lists; never an id, a key or an error text.
//!
//! A leaf of the workspace: it knows neither Kafka nor Postgres.

mod broker_metrics;
mod build_info;
mod consumer_metrics;
mod database_metrics;
mod definition;
mod door_metrics;
mod handler_metrics;
mod health;
mod latency;
mod latency_series;
mod listener;
pub mod logging;
mod outbox_metrics;
mod partition_metrics;
mod plain_fields;
mod policy_metrics;
mod probe;
mod process_metrics;
mod producer_metrics;
mod recorder;
mod seconds_counter;
mod standing_gauges;
mod task_metrics;
mod waiting_metrics;

pub use broker_metrics::{BrokerErrorKind, BrokerMetrics};
pub use build_info::build_info;
pub use consumer_metrics::{ConsumerMetrics, Pressure, RebalanceEvent};
pub use database_metrics::{ClaimResult, DatabaseErrorKind, DatabaseMetrics, RedoPath};
pub use definition::{Definition, Kind, definitions};
pub use door_metrics::{DoorMetrics, DoorOutcome, DoorRoute};
pub use handler_metrics::{AttemptBatch, AttemptOutcome, HandlerMetrics, TypeMetrics};
pub use health::{Health, Heartbeat};
pub use latency::{LatencyBatch, LatencyHistogram};
pub use listener::serve;
pub use logging::LogFormat;
pub use outbox_metrics::{OutboxKind, OutboxMetrics};
pub use partition_metrics::PartitionMetrics;
pub use policy_metrics::PolicyMetrics;
pub use probe::{ProbeError, probe};
pub use producer_metrics::EmitMetrics;
pub use recorder::render;
pub use task_metrics::Outcome;
