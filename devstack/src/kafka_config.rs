//! How the one node is configured, and under which ports and name it is known.
//!
//! Ports and cluster id stay with the folder, so a node that is started again is the same one.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{DevstackError, ports};

/// Where the node listens, on 127.0.0.1.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub broker: u16,
    pub controller: u16,
}

impl Ports {
    /// Those of the former start in `home` while they are free, else new ones.
    pub fn choose(home: &Path) -> Result<Self, DevstackError> {
        let file = home.join("ports.json");
        let former = fs::read(&file)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        let free = |ports: &Ports| ports::is_free(ports.broker) && ports::is_free(ports.controller);
        if let Some(ports) = former.filter(free) {
            return Ok(ports);
        }
        let [broker, controller] = ports::free_ports()?;
        let ports = Ports { broker, controller };
        let text = serde_json::json!(ports).to_string();
        fs::write(&file, text).map_err(DevstackError::path("write", &file))?;
        Ok(ports)
    }
}

/// The node's own settings, with its data in `data`.
pub(crate) fn properties(ports: Ports, data: &Path) -> Vec<(String, String)> {
    let Ports { broker, controller } = ports;
    [
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", "1".to_owned()),
        (
            "controller.quorum.voters",
            format!("1@127.0.0.1:{controller}"),
        ),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        (
            "listeners",
            format!("PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}"),
        ),
        (
            "advertised.listeners",
            format!("PLAINTEXT://127.0.0.1:{broker}"),
        ),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
        ),
        ("log.dirs", data.display().to_string()),
        ("auto.create.topics.enable", "false".to_owned()),
        ("offsets.topic.replication.factor", "1".to_owned()),
        ("offsets.topic.num.partitions", "10".to_owned()),
        ("transaction.state.log.replication.factor", "1".to_owned()),
        ("transaction.state.log.min.isr", "1".to_owned()),
        ("transaction.state.log.num.partitions", "10".to_owned()),
        (
            "share.coordinator.state.topic.replication.factor",
            "1".to_owned(),
        ),
        ("share.coordinator.state.topic.min.isr", "1".to_owned()),
        // After a kill the controller waits for the former broker's session to end.
        ("broker.session.timeout.ms", "3000".to_owned()),
        ("broker.heartbeat.interval.ms", "500".to_owned()),
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        ("group.min.session.timeout.ms", "1000".to_owned()),
        ("group.consumer.min.session.timeout.ms", "1000".to_owned()),
        ("group.consumer.min.heartbeat.interval.ms", "50".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// 128 bits in URL-safe base64 without padding, as Kafka wants it; hexadecimal digits are a part
/// of that alphabet, and the final `A` leaves no bits over.
pub(crate) fn new_cluster_id() -> String {
    let id = uuid::Uuid::now_v7().simple().to_string();
    format!("{}A", id.get(11..).unwrap_or_default())
}
