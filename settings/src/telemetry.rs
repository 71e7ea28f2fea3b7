//! What the program tells about itself while it runs.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

/// Flags for logs and metrics.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetryArgs {
    /// Serve /metrics, /healthz and /readyz at this address
    ///
    /// Such as 127.0.0.1:9464. Port 0 takes a free port; the address is printed. Without the flag
    /// a worker takes a free port of 127.0.0.1, and every other command serves nothing.
    #[arg(long, env = "MILLRACE_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<SocketAddr>,

    /// Which log lines are written to standard error
    ///
    /// A level (error, warn, info, debug, trace) or a list of module=level, such as
    /// info,millrace_consumer=debug.
    #[arg(long, env = "RUST_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// How log lines are written
    #[arg(
        long,
        env = "MILLRACE_LOG_FORMAT",
        value_enum,
        value_name = "FORMAT",
        default_value_t
    )]
    pub log_format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// For programs: one JSON object a line
    Json,
}
