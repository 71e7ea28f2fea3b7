//! `producer serve` from its flags to its end: connect, listen, look after what may change, and stop in good order.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use millrace_schemas::Framing;
use millrace_settings::{Role, check_replication};
use millrace_store::idempotency::{self, Terms};
use millrace_store::position::Consumer;
use millrace_store::{Database, Purpose, Trouble, api_keys, deployment};
use millrace_telemetry::{DoorMetrics, Health};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::descriptors;
use super::desk::Desk;
use super::entrance::Served;
use super::gate::{Defaults, Gate};
use super::grpc;
use super::http;
use super::intake::Intake;
use super::listener::{self, Wider};
use super::lookup::Lookup;
use super::memory::BodyMemory;
use super::names::Names;
use super::options::ServeArgs;
use super::overview::Overviews;
use super::pressure::Pressure;
use super::sender::Sender;
use super::state::{Bounds, Cancels, Door};
use super::waiting::Waiting;
use crate::topic::Topic;

/// How long the brokers may take to answer at start.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a broker for development may take to tell the topic's limits; the embedded one never does.
const BRIEFLY: Duration = Duration::from_secs(1);
/// How long a body may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// What a name is busy for beyond the time that an event may be on its way.
const LEASE_BEYOND: Duration = Duration::from_secs(5);
/// First looks at tasks that streams follow, at a time: a fifth of what may wait at the desk.
const FIRST_LOOKS: usize = 4_096;
/// How often keys and limits are read without being told.
const READ_ACCESS: Duration = Duration::from_secs(30);
/// How often a door that listens on loopback only looks whether there are keys.
const ASK_GATE: Duration = Duration::from_millis(500);
/// How often Kafka is asked whether it is there.
const ASK_KAFKA: Duration = Duration::from_secs(5);
/// How often names are forgotten whose window has closed, and how many at a time.
const FORGET: (Duration, i64) = (Duration::from_secs(60), 20_000);

/// A front door that was connected and is ready to be opened.
pub struct Prepared {
    args: ServeArgs,
    sender: Sender,
    database: Database,
    consumer: Consumer,
    gate: Gate,
    tls: Option<TlsAcceptor>,
}

/// Connects to Kafka and Postgres and checks that they belong together.
///
/// # Errors
/// A wrong setting, or a server that does not answer.
pub async fn prepare(args: ServeArgs) -> anyhow::Result<Prepared> {
    let tls = tls(&args)?;
    let database = Database::new(args.database.url()?, args.database.schema.as_ref())?;
    let config = args.kafka.client_config(Role::FrontDoor)?;
    let limit_patience = if args.kafka.allow_unreplicated {
        BRIEFLY
    } else {
        PATIENCE
    };
    let (topic, replicated) = tokio::join!(
        Topic::find(&config, &args.kafka.topic, PATIENCE, limit_patience),
        check_replication(&args.kafka),
    );
    let topic = topic?;
    replicated?;
    let consumer = Consumer {
        group: args.group.group.clone(),
        topic: args.kafka.topic.clone(),
    };
    let mut connection = database.connect(Purpose::Operations).await?;
    let pinned = deployment::pinned(&mut connection)
        .await
        .map_err(unmigrated)?;
    if let Some(pinned) = pinned {
        ensure!(
            pinned.group == consumer.group && pinned.topic == consumer.topic,
            "schema {} belongs to group {} on topic {}, not to group {} on topic {}: \
             correct --group and --topic, or use another --schema",
            database.schema(),
            pinned.group,
            pinned.topic,
            consumer.group,
            consumer.topic,
        );
        ensure!(
            usize::try_from(pinned.partition_count) == Ok(topic.partitions),
            "topic {} has {} partitions, and the workers began with {}: keys would go to other partitions; \
             see `consumer position show`",
            consumer.topic,
            topic.partitions,
            pinned.partition_count,
        );
    }
    let access = api_keys::access(&mut connection)
        .await
        .map_err(unmigrated)?;
    let framing = match args.framing.schema_id {
        None => Framing::SingleObject,
        Some(schema_id) => Framing::Confluent { schema_id },
    };
    let sender = Sender::new(
        config,
        &args.kafka.topic,
        &topic,
        framing,
        args.max_event_bytes,
        args.submit_timeout,
    )?;
    let defaults = Defaults {
        tasks_per_second: args.tenant_rate,
        burst: args.tenant_burst,
        in_flight: args.tenant_in_flight,
    };
    let gate = Gate::new(defaults, &args.tenant, access);
    Ok(Prepared {
        args,
        sender,
        database,
        consumer,
        gate,
        tls,
    })
}

fn unmigrated(trouble: Trouble) -> anyhow::Error {
    match trouble {
        Trouble::MissingDay(_) => anyhow::anyhow!(
            "the database has no tables of this release: run `consumer migrate` first"
        ),
        other => other.into(),
    }
}

fn tls(args: &ServeArgs) -> anyhow::Result<Option<TlsAcceptor>> {
    let (Some(certificate), Some(key)) = (&args.tls_certificate, &args.tls_key) else {
        return Ok(None);
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .with_context(|| format!("cannot read --tls-certificate {}", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("cannot read --tls-key {}", key.display()))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("--tls-certificate and --tls-key do not belong together")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

impl Prepared {
    /// Where to listen: on loopback only while anybody could come in.
    fn address(&self) -> SocketAddr {
        let mut address = self.args.listen;
        if !self.gate.needs_keys() && !address.ip().is_loopback() {
            tracing::warn!(
                "listening on loopback only, since there are no API keys and anybody could come in: \
                 `producer keys create` makes one, and opens the whole address"
            );
            address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        address
    }

    /// The address that was asked for, once there are keys, if that is not where it listens.
    fn wider(&self, bound: SocketAddr) -> Option<Wider> {
        let address = SocketAddr::new(self.args.listen.ip(), bound.port());
        if address == bound {
            return None;
        }
        let gate = self.gate.clone();
        let when = Box::pin(async move {
            while !gate.needs_keys() {
                tokio::time::sleep(ASK_GATE).await;
            }
        });
        Some(Wider { address, when })
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn serve(self, health: Health, stop: CancellationToken) -> anyhow::Result<()> {
        let address = self.address();
        let Ok(listener) = listener::bind(address) else {
            bail!(
                "cannot listen on --listen {address}: it is in use, or not an address of this machine"
            );
        };
        let bound = listener.local_addr()?;
        let wider = self.wider(bound);
        let closing = CancellationToken::new();
        let access_news = Arc::new(Notify::new());
        let lookup = Lookup::open(&self.database, &self.consumer);
        let terms = Terms {
            lease: self.args.submit_timeout + LEASE_BEYOND,
            window: self.args.idempotency_window,
        };
        let names = Names::open(&self.database, terms);
        let pressure = Pressure::new(self.args.max_in_flight);
        let metrics = DoorMetrics::new();
        let waiting = Waiting::open(
            self.database.clone(),
            lookup.clone(),
            access_news.clone(),
            closing.clone(),
        );
        let door = Arc::new(Door {
            gate: self.gate.clone(),
            intake: Intake::new(
                self.sender.clone(),
                names,
                pressure.clone(),
                waiting.accepted().clone(),
                metrics.clone(),
            ),
            waiting,
            lookup,
            overviews: Overviews::new(
                self.database.clone(),
                self.consumer.clone(),
                self.sender.clone(),
            ),
            metrics: metrics.clone(),
            cancels: Desk::open(self.database.clone(), Cancels),
            bounds: Bounds {
                // Base64 and escapes make an event larger on the way here.
                body_bytes: self.args.max_event_bytes * 2,
                bulk_bytes: self.args.max_bulk_bytes,
                bulk_tasks: self.args.max_bulk_tasks,
                followed: self.args.max_followed,
                body_patience: BODY_PATIENCE,
            },
            bodies: BodyMemory::new(self.args.max_body_memory),
            questions: BodyMemory::new(1 << 20),
            streams: Arc::new(Semaphore::new(self.args.max_streams)),
            followed: Arc::new(Semaphore::new(self.args.max_followed)),
            first_looks: Semaphore::new(FIRST_LOOKS),
            sockets: TaskTracker::new(),
            closing: closing.clone(),
        });
        let (ready, is_ready) = watch::channel(true);
        let calls = grpc::routes(door.clone(), is_ready)?;
        let watched = [
            tokio::spawn(read_access(
                self.database.clone(),
                self.gate.clone(),
                access_news,
                health.clone(),
            )),
            tokio::spawn(ask_kafka(self.sender.clone(), health.clone(), ready)),
            tokio::spawn(forget_names(self.database.clone(), terms.window)),
            tokio::spawn(show_standing(metrics, pressure, door.waiting.clone())),
        ];
        // Printed whatever the log filter says: with port 0 nobody could know the address otherwise.
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        writeln!(io::stderr(), "front door at {scheme}://{bound}")
            .context("cannot write to standard error")?;
        tokio::spawn({
            let (stop, closing) = (stop.clone(), closing.clone());
            async move {
                stop.cancelled().await;
                closing.cancel();
            }
        });
        listener::serve(
            listener,
            wider,
            self.tls,
            Served {
                paths: http::router(door.clone()),
                calls,
                door,
            },
            descriptors::connections(self.args.max_connections),
            stop,
            self.args.shutdown_timeout,
        )
        .await;
        for task in watched {
            task.abort();
        }
        let sender = self.sender;
        let patience = self.args.submit_timeout;
        tokio::task::spawn_blocking(move || sender.flush(patience)).await?;
        Ok(())
    }
}

/// Keeps keys and limits as the tables have them.
async fn read_access(database: Database, gate: Gate, news: Arc<Notify>, health: Health) {
    loop {
        let read = async {
            let mut connection = database.connect(Purpose::Operations).await?;
            api_keys::access(&mut connection).await
        };
        match read.await {
            Ok(access) => {
                gate.renew(access);
                health.ready("database", Ok(()));
            }
            Err(trouble) => {
                tracing::warn!(%trouble, "keys and limits cannot be read: the last ones hold");
                health.ready("database", Err("does not answer".to_owned()));
            }
        }
        let _ = tokio::time::timeout(READ_ACCESS, news.notified()).await;
    }
}

/// Knows whether Kafka is there, and replaces a client that cannot go on.
async fn ask_kafka(sender: Sender, health: Health, ready: watch::Sender<bool>) {
    loop {
        let asking = sender.clone();
        let asked = tokio::task::spawn_blocking(move || {
            asking.renew_if_beyond_repair();
            asking.confirm(ASK_KAFKA)
        });
        let state = asked.await.unwrap_or_else(|error| Err(error.to_string()));
        ready.send_replace(state.is_ok());
        health.ready("kafka", state);
        tokio::time::sleep(ASK_KAFKA).await;
    }
}

/// Keeps the gauges.
async fn show_standing(metrics: DoorMetrics, pressure: Pressure, waiting: Waiting) {
    loop {
        let (in_flight, limit) = pressure.reading();
        metrics.standing(in_flight, limit, waiting.count());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Forgets names whose window has closed. Several front doors may do so at the same time.
async fn forget_names(database: Database, window: Duration) {
    let (every, most) = FORGET;
    loop {
        tokio::time::sleep(every).await;
        let forget = async {
            let mut connection = database.connect(Purpose::Operations).await?;
            while idempotency::forget(&mut connection, window, most).await? >= most.unsigned_abs() {
            }
            Ok::<(), Trouble>(())
        };
        if let Err(trouble) = forget.await {
            tracing::debug!(%trouble, "old idempotency keys stay for now");
        }
    }
}
