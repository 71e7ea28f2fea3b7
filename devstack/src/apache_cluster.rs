//! Apache Kafka with several brokers, each a process that can be killed, frozen and started again.
//!
//! With three, every topic has three copies and a record counts once two have it, so the loss of any one
//! broker costs nothing but time. With one, it is a single node. All nodes are controllers too: the
//! quorum stands while most of them do.

use std::path::Path;

use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::kafka_config::{Membership, new_cluster_id};
use crate::process::Lifetime;
use crate::{ApacheKafka, DevstackError, KafkaOptions, ProcessMark, Topics};

/// The brokers of one cluster. Dropping it ends them; killing the owning process ends them too.
pub struct ApacheCluster {
    nodes: Vec<ApacheKafka>,
    _temp: Option<TempDir>,
}

impl ApacheCluster {
    /// Starts a fresh cluster in a temporary folder that disappears with it: a broker for each of
    /// `options`. Ready when this returns.
    ///
    /// # Errors
    /// As [`ApacheKafka::start`].
    pub async fn start_temp(options: Vec<KafkaOptions>) -> Result<Self, DevstackError> {
        let temp = tempfile::Builder::new()
            .prefix("millrace-kafka-")
            .tempdir()
            .map_err(DevstackError::path(
                "create a folder in",
                std::env::temp_dir(),
            ))?;
        let dir = temp.path().to_owned();
        let mut cluster = Self::launch(&dir, options, Lifetime::Owned).await?;
        cluster._temp = Some(temp);
        Ok(cluster)
    }

    /// Starts the cluster of `dir` as background processes that outlive this one.
    ///
    /// # Errors
    /// As [`ApacheKafka::start`].
    pub async fn start_background(
        dir: impl AsRef<Path>,
        options: Vec<KafkaOptions>,
    ) -> Result<(Self, Vec<ProcessMark>), DevstackError> {
        let mut cluster = Self::launch(dir.as_ref(), options, Lifetime::Background).await?;
        let marks: Result<Vec<ProcessMark>, DevstackError> = cluster
            .nodes
            .iter_mut()
            .map(ApacheKafka::leave_running)
            .collect();
        let marks = marks?;
        Ok((cluster, marks))
    }

    /// The addresses of all brokers for `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(ApacheKafka::bootstrap).collect();
        addresses.join(",")
    }

    /// How many brokers it has, running or not.
    #[must_use]
    pub fn brokers(&self) -> usize {
        self.nodes.len()
    }

    /// Broker number `index`, from 0.
    #[must_use]
    pub fn broker(&self, index: usize) -> Option<&ApacheKafka> {
        self.nodes.get(index)
    }

    /// Broker number `index`, from 0, to be killed or started.
    pub fn broker_mut(&mut self, index: usize) -> Option<&mut ApacheKafka> {
        self.nodes.get_mut(index)
    }

    /// Administration of its topics.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn topics(&self) -> Result<Topics, DevstackError> {
        Topics::of(&self.bootstrap())
    }

    async fn launch(
        dir: &Path,
        options: Vec<KafkaOptions>,
        lifetime: Lifetime,
    ) -> Result<Self, DevstackError> {
        let mut nodes = Vec::with_capacity(options.len());
        for (index, options) in options.into_iter().enumerate() {
            let home = dir.join((index + 1).to_string());
            nodes.push(ApacheKafka::prepare(&home, None, options, lifetime).await?);
        }
        let controllers: Vec<u16> = nodes.iter().map(ApacheKafka::controller_port).collect();
        let cluster_id = new_cluster_id();
        // None is ready before most of them run.
        let mut starting = JoinSet::new();
        for (index, mut node) in nodes.into_iter().enumerate() {
            node.join(Membership {
                node: index + 1,
                controllers: controllers.clone(),
            });
            let cluster_id = cluster_id.clone();
            starting.spawn(async move {
                node.start_as(&cluster_id).await?;
                Ok::<_, DevstackError>((index, node))
            });
        }
        let mut started = Vec::with_capacity(controllers.len());
        while let Some(node) = starting.join_next().await {
            started.push(
                node.map_err(std::io::Error::other)
                    .map_err(DevstackError::process("start a broker"))??,
            );
        }
        started.sort_unstable_by_key(|(index, _)| *index);
        let cluster = Self {
            nodes: started.into_iter().map(|(_, node)| node).collect(),
            _temp: None,
        };
        Ok(cluster)
    }
}
