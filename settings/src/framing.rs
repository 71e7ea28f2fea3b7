//! How events are framed on the wire.

use clap::Args;

/// The flag that turns on Confluent framing.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Kafka")]
pub struct FramingArgs {
    /// Schema Registry id of the current task event schema
    ///
    /// With it a producer writes events in Confluent wire format, and a consumer reads events of
    /// that id too. Without it events are in Avro single-object encoding, which is always read.
    #[arg(long, env = "MILLRACE_SCHEMA_ID", value_name = "N")]
    pub schema_id: Option<u32>,
}
