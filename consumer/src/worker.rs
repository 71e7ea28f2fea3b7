//! A worker from start to exit code: settings are checked, clients made, the owner runs until its end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use millrace_schemas::Decoders;
use millrace_settings::{Role, check_replication, exit};
use millrace_store::days::Retention;
use millrace_store::position::Consumer;
use millrace_store::{Database, Purpose, Writer, deployment, schemas_known};
use millrace_telemetry::{
    BrokerMetrics, ConsumerMetrics, DatabaseMetrics, HandlerMetrics, Health, OutboxMetrics,
    PolicyMetrics,
};
use rdkafka::consumer::StreamConsumer;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::callbacks::{CallbackSettings, Callbacks};
use crate::engine::Charge;
use crate::exit_code::{Refusal, WithCode};
use crate::handlers::{Executor, ExecutorOptions, LOOK_AGAIN, Policies, Prepared, Registry};
use crate::options::RunArgs;
use crate::outbox::{Outbox, dlq_topic};
use crate::source::claims::Claims;
use crate::source::closing::Ended;
use crate::source::context::{GroupContext, hear_of_log_changes};
use crate::source::owner::{Gauges, Owner, OwnerSettings, Work};
use crate::work::attempts::Attempts;
use crate::work::controls::ControlPanel;
use crate::work::floor::{Floor, FloorParts};
use crate::work::scout::Scout;
use crate::{maintenance, shutdown, topic_presence, topic_retention};

/// How long the start waits for a database that is away before it says so and goes on waiting.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Connections for questions beside the owner's loop: parked tasks, and notes about tasks that run alone.
const ASIDE: u32 = 2;

/// Runs a worker; returns the exit code.
///
/// # Errors
/// When a setting is wrong, with [`Refusal`] as the cause, or the client is beyond repair.
pub async fn run(args: &RunArgs, prepared: Prepared) -> anyhow::Result<u8> {
    let stop = CancellationToken::new();
    shutdown::on_signals(stop.clone())?;
    run_until(args, prepared, stop).await
}

/// The same without listening to signals, for programs that do so themselves: it stops in good order once
/// `stop` is cancelled. A second signal is the program's to act upon, too.
///
/// # Errors
/// As [`run`].
pub async fn run_until(
    args: &RunArgs,
    prepared: Prepared,
    stop: CancellationToken,
) -> anyhow::Result<u8> {
    let Prepared { registry, policies } = prepared;
    let place = &args.place;
    let mut config = place
        .kafka
        .client_config(Role::Consumer {
            group: &place.group.group,
        })
        .with_code(exit::USAGE)?;
    let database = Database::new(
        place.database.url().with_code(exit::USAGE)?,
        &place.database.schema,
    )
    .with_code(exit::USAGE)?;
    let consumer = Consumer {
        group: place.group.group.clone(),
        topic: place.kafka.topic.clone(),
    };
    let retention = Retention::from(args.retention);
    if retention.dedup_days > retention.result_days {
        return Err(Refusal::usage(
            "--dedup-days is longer than --result-days: a duplicate's first result would be gone",
        )
        .into());
    }
    check_replication(&place.kafka)
        .await
        .with_code(exit::USAGE)?;
    topic_presence::check(&place.kafka).await?;
    topic_retention::check(&place.kafka, retention).await?;

    let health = Health::awaiting(&["kafka", "database", "partitions"]);
    let listening = CancellationToken::new();
    let listen = place
        .telemetry
        .metrics_listen
        .unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
    let address = millrace_telemetry::serve(listen, health.clone(), listening.clone())
        .await
        .with_context(|| format!("listening on {listen} for metrics"))
        .with_code(exit::USAGE)?;
    eprintln!("metrics on http://{address}/metrics");
    millrace_telemetry::build_info(&rdkafka::util::get_rdkafka_version().1);

    let mut decoders = Decoders::new();
    if let Some(id) = args.framing.schema_id {
        decoders = decoders.with_confluent_id(id);
    }
    if !wait_for_schema(&database, &consumer, &mut decoders, &stop).await? {
        return Ok(exit::DONE);
    }
    hear_of_log_changes(&mut config);
    let (events, heard) = mpsc::unbounded_channel();
    let broker = BrokerMetrics::new();
    let context = GroupContext::new(consumer.topic.clone(), events, broker.clone());
    let client: StreamConsumer<GroupContext> = config
        .create_with_context(context)
        .context("making the Kafka client")?;
    let types: Vec<&str> = registry.names().collect();
    let gauges = Gauges {
        consumer: ConsumerMetrics::new(&consumer.group, &consumer.topic, &types),
        database: DatabaseMetrics::new(),
        broker,
    };
    let upkeep = tokio::spawn(maintenance::run(
        database.clone(),
        retention,
        gauges.database.clone(),
    ));
    let claims = Claims {
        client: Arc::new(client),
        database: database.clone(),
        consumer: consumer.clone(),
        owner: worker_name(),
        start: args.start,
    };
    let settings = OwnerSettings {
        writers: args.writers.into(),
        budget: Charge {
            events: args.max_in_flight,
            bytes: args.max_in_flight_mib << 20,
        },
        exit_when_idle: args.exit_when_idle,
        shutdown_deadline: args.shutdown_deadline,
        stuck_after: args.stuck_after,
        most_parked: args.max_parked.into(),
    };
    let (work, following) = work(
        args, registry, policies, &database, &consumer, retention, decoders,
    )?;
    gauges
        .consumer
        .partition_parked_limit(args.max_parked.into());
    let outbox = Outbox {
        database: database.clone(),
        consumer: consumer.clone(),
        kafka: place
            .kafka
            .client_config(Role::Producer)
            .with_code(exit::USAGE)?,
        dlq_topic: dlq_topic(args.dlq_topic.as_deref(), &consumer.topic),
        metrics: OutboxMetrics::new(),
    };
    let outbox = tokio::spawn(outbox.run(listening.clone()));
    let callbacks = Callbacks::new(
        database.clone(),
        consumer.clone(),
        CallbackSettings {
            allow_private: args.callbacks_allow_private,
            schedule_scale: args.callbacks_scale,
            shutdown_deadline: args.shutdown_deadline,
        },
        OutboxMetrics::new(),
    )?;
    let sending = stop.child_token();
    let callbacks = tokio::spawn(callbacks.run(sending.clone()));
    let writer = || Writer::new(database.clone(), consumer.clone(), retention);
    let owner = Owner::new(settings, claims, writer, heard, gauges, health, work);
    let ending = owner.run(stop).await;
    upkeep.abort();
    following.abort();
    outbox.abort();
    // Where the worker was told to stop, they were told when the owner was: both drain at the same time.
    sending.cancel();
    if let Err(error) = callbacks.await {
        tracing::error!(%error, "the sender of callbacks broke off: what it had taken is sent again");
    }
    listening.cancel();
    let ending = ending?;
    for stopped in &ending.stopped {
        eprintln!("stopped: {stopped}");
    }
    Ok(match (ending.ended, ending.stopped.is_empty()) {
        (Ended::DeadlinePassed, _) => exit::INTERRUPTED,
        (Ended::Idle | Ended::Drained, false) => exit::STOPPED,
        (Ended::Idle | Ended::Drained, true) => exit::DONE,
    })
}

/// What is needed to run tasks, and the task that follows the policy file.
fn work(
    args: &RunArgs,
    registry: Arc<Registry>,
    policies: Policies,
    database: &Database,
    consumer: &Consumer,
    retention: Retention,
    decoders: Decoders,
) -> anyhow::Result<(Work, JoinHandle<()>)> {
    let options = ExecutorOptions::new(&consumer.topic);
    let (executor, completions, notes) =
        Executor::new(Arc::clone(&registry), decoders.clone(), &options)
            .context("starting the handlers' threads")?;
    let (sender, news) = mpsc::unbounded_channel();
    let names: Vec<&str> = registry.names().collect();
    let limit = usize::try_from(args.concurrency).unwrap_or(usize::MAX);
    let metrics = HandlerMetrics::new(&names);
    metrics.running_limit(limit);
    let floor = Floor::new(FloorParts {
        policies: policies.subscribe(),
        attempts: Attempts::new(executor, names.len(), limit),
        scout: Scout::start(
            database.clone(),
            consumer.clone(),
            retention,
            sender.clone(),
        ),
        panel: ControlPanel::start(database.clone()),
        news: sender,
        pool: database.pool(ASIDE),
        metrics,
        registry,
        retention,
    });
    let following = tokio::spawn(policies.follow(LOOK_AGAIN, PolicyMetrics::new()));
    let work = Work {
        decoders,
        floor,
        completions,
        notes,
        news,
    };
    Ok((work, following))
}

/// Waits until the tables are there, and checks that the schema is this group's. False when told to stop.
async fn wait_for_schema(
    database: &Database,
    consumer: &Consumer,
    decoders: &mut Decoders,
    stop: &CancellationToken,
) -> anyhow::Result<bool> {
    loop {
        let look = async {
            let mut connection = database.connect(Purpose::Operations).await?;
            let pinned = deployment::pinned(&mut connection).await?;
            Ok::<_, millrace_store::Trouble>((pinned, schemas_known::all(&mut connection).await?))
        };
        match look.await {
            Ok((pinned, schemas)) => {
                if let Some(pinned) =
                    pinned.filter(|p| p.group != consumer.group || p.topic != consumer.topic)
                {
                    return Err(Refusal::usage(format!(
                        "schema {} belongs to group {} on topic {}, not to group {} on topic {}: give another --schema",
                        database.schema(),
                        pinned.group,
                        pinned.topic,
                        consumer.group,
                        consumer.topic
                    ))
                    .into());
                }
                for schema in schemas {
                    if let Err(error) = decoders.learn(&schema) {
                        tracing::debug!(%error, "a published schema cannot be read by this release");
                    }
                }
                return Ok(true);
            }
            Err(millrace_store::Trouble::MissingDay(detail)) => {
                return Err(Refusal::usage(format!(
                    "schema {} has no tables of ours ({detail}): run `consumer migrate` first",
                    database.schema()
                ))
                .into());
            }
            Err(error) => tracing::warn!(%error, "the database is not available: waiting"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(ASK_AGAIN) => {}
        }
    }
}

/// `host:pid`, shown as the owner of partitions.
fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!(
        "{}:{}",
        if host.is_empty() { "worker" } else { host },
        std::process::id()
    )
}
