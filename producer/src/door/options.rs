//! The flags of `producer serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use millrace_settings::{DatabaseArgs, FramingArgs, GroupArgs, KafkaArgs, TelemetryArgs};
use millrace_store::results::ON_ITS_WAY;

/// Take tasks over HTTP: submit, ask, wait, watch, cancel
///
/// A task is accepted once all in-sync replicas of Kafka have it. Start as many front doors as you like: what
/// matters is in Kafka and Postgres. Without any API key (`producer keys create`) it listens on loopback only.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Where to listen; port 0 takes a free port, which is printed
    #[arg(
        long,
        env = "MILLRACE_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: SocketAddr,

    /// Certificate chain for TLS, PEM; without it requests come in the clear
    #[arg(
        long,
        env = "MILLRACE_TLS_CERTIFICATE",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub tls_certificate: Option<PathBuf>,

    /// Private key of the certificate, PEM
    #[arg(
        long,
        env = "MILLRACE_TLS_KEY",
        value_name = "FILE",
        requires = "tls_certificate"
    )]
    pub tls_key: Option<PathBuf>,

    /// Tenant of all tasks while there are no API keys
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub tenant: String,

    /// Tasks that a tenant may submit in a second, in the long run; none: no limit
    ///
    /// Of this front door. `producer limits` sets others for single tenants.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub tenant_rate: Option<f64>,

    /// Tasks that a tenant may submit at once after a quiet time; a second's worth unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub tenant_burst: Option<u32>,

    /// Requests of a tenant that may be open at a time; none: no limit
    #[arg(long, value_name = "N")]
    pub tenant_in_flight: Option<usize>,

    /// Tasks on their way to Kafka at a time; beyond it, and while Kafka is slow, requests are refused with 503
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub max_in_flight: usize,

    /// Connections at a time; others wait
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub max_connections: usize,

    /// Open streams of events at a time
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub max_streams: usize,

    /// Tasks that all open streams together may follow; with API keys, half of it for one tenant at most
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub max_followed: usize,
    /// Largest event, encoded
    #[arg(long, value_name = "BYTES", default_value_t = 1_000_000, value_parser = event_bytes)]
    pub max_event_bytes: usize,

    /// Largest body with many tasks in one JSON array
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    pub max_bulk_bytes: usize,

    /// Tasks in one JSON array, and ids that one stream may follow
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub max_bulk_tasks: usize,

    /// Memory for bodies, all requests together: of tasks on their way in, and of results on their way out
    #[arg(long, value_name = "BYTES", default_value_t = 128 << 20)]
    pub max_body_memory: usize,

    /// How long a task may be on its way to Kafka before its outcome counts as unknown; 15 s at most
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = on_its_way)]
    pub submit_timeout: Duration,

    /// How long an idempotency key belongs to its first request: the same as the workers' --dedup-days
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = humantime::parse_duration)]
    pub idempotency_window: Duration,

    /// How long open requests may take to end when the front door is told to stop
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub shutdown_timeout: Duration,

    /// Kafka's address, topic and properties.
    #[command(flatten)]
    pub kafka: KafkaArgs,

    /// The workers' group.
    #[command(flatten)]
    pub group: GroupArgs,

    /// Where the results are.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// How events are framed.
    #[command(flatten)]
    pub framing: FramingArgs,

    /// Logs and metrics.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Less than the time after which a task that nobody has seen is unknown, by as much as clocks may differ.
fn on_its_way(text: &str) -> Result<Duration, String> {
    let most = ON_ITS_WAY.saturating_sub(Duration::from_secs(5));
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() && time <= most => Ok(time),
        _ => Err(format!(
            "expected a time up to {}, such as 10s",
            humantime::format_duration(most)
        )),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("expected a number above 0".to_owned()),
    }
}

fn event_bytes(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(bytes) if (1_000..=100_000_000).contains(&bytes) => Ok(bytes),
        _ => Err("expected 1000 to 100000000 bytes".to_owned()),
    }
}
