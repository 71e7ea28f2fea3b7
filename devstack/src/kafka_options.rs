//! What may differ from node to node: memory, broker properties, and what the Java machine is tuned for.

use std::process::Command;

/// What a caller may want different.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// The Java heap, in MiB. A broker under load takes about 300 MiB more than that.
    pub heap_mib: u32,
    /// Broker properties; a later one of the same name wins over devstack's own.
    pub properties: Vec<(String, String)>,
    /// What the Java machine is tuned for.
    pub tuning: Tuning,
    /// The port of a proxy on 127.0.0.1: clients that come by way of it are told to stay with it. Where it
    /// has to lead to is [`outside_port`](crate::ApacheKafka::outside_port).
    pub by_way_of: Option<u16>,
}

/// What the Java machine is tuned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tuning {
    /// Much work: the optimising compiler, and a collector with short pauses.
    Throughput,
    /// Short lives and little memory: no optimising compiler, a collector without threads of its own.
    QuickStart,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            heap_mib: 768,
            properties: Vec::new(),
            tuning: Tuning::Throughput,
            by_way_of: None,
        }
    }
}

impl KafkaOptions {
    /// The Java machine's own flags.
    pub(crate) fn tune(&self, command: &mut Command) {
        let heap = self.heap_mib;
        command
            .arg(format!("-Xms{heap}m"))
            .arg(format!("-Xmx{heap}m"))
            .arg("-Djava.awt.headless=true");
        command.args(match self.tuning {
            // Those of Kafka's own start script.
            Tuning::Throughput => [
                "-server",
                "-XX:+UseG1GC",
                "-XX:MaxGCPauseMillis=20",
                "-XX:InitiatingHeapOccupancyPercent=35",
            ]
            .as_slice(),
            Tuning::QuickStart => &["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"],
        });
    }
}
