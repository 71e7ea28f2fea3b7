//! How a node is configured, and under which ports and name it is known.
//!
//! Ports and cluster id stay with the folder, so a node that is started again is the same one.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{DevstackError, ports};

/// Where the node listens, on 127.0.0.1.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Ports {
    /// For clients and for the other brokers.
    pub broker: u16,
    /// For the controllers' quorum.
    pub controller: u16,
    /// For clients that come by way of a proxy, when there is one.
    #[serde(default)]
    pub outside: u16,
}

impl Ports {
    /// Those of the former start in `home` while they are free, else new ones.
    pub fn choose(home: &Path) -> Result<Self, DevstackError> {
        let file = home.join("ports.json");
        let former = fs::read(&file)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        let free = |ports: &Ports| {
            [ports.broker, ports.controller, ports.outside]
                .iter()
                .all(|port| *port != 0 && ports::is_free(*port))
        };
        if let Some(ports) = former.filter(free) {
            return Ok(ports);
        }
        let [broker, controller, outside] = ports::free_ports()?;
        let ports = Ports {
            broker,
            controller,
            outside,
        };
        let text = serde_json::json!(ports).to_string();
        fs::write(&file, text).map_err(DevstackError::path("write", &file))?;
        Ok(ports)
    }
}

/// The place of one node in its cluster.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    /// Its number, from 1.
    pub node: usize,
    /// The controllers' ports, of node 1, 2 and so on, its own among them.
    pub controllers: Vec<u16>,
}

impl Membership {
    /// A cluster of one.
    pub fn alone(ports: Ports) -> Self {
        Self {
            node: 1,
            controllers: vec![ports.controller],
        }
    }

    fn voters(&self) -> String {
        let voter = |(index, port)| format!("{}@127.0.0.1:{port}", index + 1);
        let voters: Vec<String> = self.controllers.iter().enumerate().map(voter).collect();
        voters.join(",")
    }
}

/// The node's own settings, with its data in `data`. `by_way_of` is the port of a proxy that stands in
/// front of the outside listener.
pub(crate) fn properties(
    ports: Ports,
    membership: &Membership,
    by_way_of: Option<u16>,
    data: &Path,
) -> Vec<(String, String)> {
    let Ports {
        broker,
        controller,
        outside,
    } = ports;
    // All of three keep a copy, and one may be away.
    let nodes = membership.controllers.len();
    let (replicas, insync) = (nodes.min(3).to_string(), nodes.div_ceil(2).to_string());
    let mut listeners =
        format!("PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}");
    let mut advertised = format!("PLAINTEXT://127.0.0.1:{broker}");
    if let Some(proxy) = by_way_of {
        listeners.push_str(&format!(",OUTSIDE://127.0.0.1:{outside}"));
        advertised.push_str(&format!(",OUTSIDE://127.0.0.1:{proxy}"));
    }
    [
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", membership.node.to_string()),
        ("controller.quorum.voters", membership.voters()),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("listeners", listeners),
        ("advertised.listeners", advertised),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,OUTSIDE:PLAINTEXT".to_owned(),
        ),
        ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
        ("log.dirs", data.display().to_string()),
        ("auto.create.topics.enable", "false".to_owned()),
        ("default.replication.factor", replicas.clone()),
        ("min.insync.replicas", insync.clone()),
        ("offsets.topic.replication.factor", replicas.clone()),
        ("offsets.topic.num.partitions", "10".to_owned()),
        ("transaction.state.log.replication.factor", replicas.clone()),
        ("transaction.state.log.min.isr", insync.clone()),
        ("transaction.state.log.num.partitions", "10".to_owned()),
        ("share.coordinator.state.topic.replication.factor", replicas),
        ("share.coordinator.state.topic.min.isr", insync),
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
