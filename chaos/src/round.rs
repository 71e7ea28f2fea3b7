//! One round: a topic, a group and a schema of its own, the plan played through, then time to settle.
//!
//! After the storm everything is healed and the workers are replaced, so what is left behind was left in the
//! log and in the tables, not in somebody's memory. How it went is judged apart from here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::crew::{Crew, MOST_WORKERS};
use crate::error::ChaosError;
use crate::law_two::{self, Seen};
use crate::place::Place;
use crate::plan::{Handlers, Plan, Size};
use crate::servers::{Servers, connect};
use crate::{sender, storm, trail};

/// Partitions of a round's topic.
pub const PARTITIONS: i32 = 6;
/// How long a healed system may take to bring everything to its end.
const SETTLE: Duration = Duration::from_secs(90);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// What a worker says when the fence refused its flush.
const FENCED: &str = "the fence does not match";

/// What was done in a round, and what the harness saw meanwhile.
pub struct Played {
    /// The plan.
    pub plan: Plan,
    /// Where.
    pub place: Place,
    /// The ids of the plan's records.
    pub ids: Vec<Uuid>,
    /// Which records were acknowledged.
    pub acknowledged: Vec<bool>,
    /// Faults by kind.
    pub injected: BTreeMap<&'static str, u32>,
    /// Roles and process numbers of all workers.
    pub workers: Vec<(String, u32)>,
    /// Workers that ended by themselves, or did not end when they were told to.
    pub complaints: Vec<String>,
    /// Whether everything came to its end in time.
    pub settled: bool,
    /// Samples of law 2.
    pub law_two: Seen,
    /// Flushes of workers that had lost their claim, as those workers saw it: each was refused.
    pub fenced: usize,
    /// When what began.
    pub times: Times,
}

/// The parts of a round.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The storm began.
    pub storm: Instant,
    /// All was healed, and the storm's workers were told to leave.
    pub healed: Instant,
    /// New workers were started.
    pub calm: Instant,
    /// All work had come to its end, or its time was up.
    pub settled: Instant,
    /// The last worker had gone.
    pub ended: Instant,
}

/// Plays a round.
///
/// # Errors
/// When the harness cannot do its part; what the product does is no error.
pub async fn play(
    servers: &Arc<Servers>,
    place: Place,
    plan: Plan,
    size: Size,
) -> Result<Played, ChaosError> {
    std::fs::create_dir_all(&place.dir).map_err(ChaosError::io("make the round's folder"))?;
    servers.make_topic(&place.name, PARTITIONS).await?;
    servers
        .make_topic(&format!("{}.dlq", place.name), 1)
        .await?;
    place.run(servers, "consumer", &["migrate"]).await?;
    let schema = place.schema();
    trail::begin(&mut connect(servers.database_url(), &schema).await?).await?;
    servers
        .make_roles((1..=MOST_WORKERS).map(|number| place.role(number)))
        .await?;
    let ids = sender::identities(&plan);
    let mut crew = Crew::new(place.clone(), size.workers, MOST_WORKERS)?;
    crew.fill(servers)?;

    let began = Instant::now();
    let length = Duration::from_millis(size.storm_ms.into());
    let group = place.group();
    let stop = CancellationToken::new();
    let watched = law_two::watch(
        servers.bootstrap(),
        &group,
        (&place.name, PARTITIONS),
        (servers.database_url(), &schema),
        stop.clone(),
    );
    let played = async {
        let _stop = stop.drop_guard();
        let (acknowledged, injected, ()) = tokio::try_join!(
            sender::send(servers.bootstrap(), &place.name, &plan, &ids, began),
            storm::rage(servers, &place, &mut crew, &plan, began, length),
            cancel(servers, &place, &plan, &ids, began),
        )?;
        // Half of them die, half of them leave, and others bring it to its end.
        let healed = Instant::now();
        crew.kill(0);
        let mut complaints = crew.dismiss_all().await;
        crew.note("all is healed; the workers are new");
        let calm = Instant::now();
        crew.fill(servers)?;
        let is_settled = settle(servers, &place, &mut crew).await?;
        let settled = Instant::now();
        complaints.extend(crew.dismiss_all().await);
        complaints.extend(crew.surprises().iter().cloned());
        let times = Times {
            storm: began,
            healed,
            calm,
            settled,
            ended: Instant::now(),
        };
        Ok::<_, ChaosError>((acknowledged, injected, complaints, is_settled, times))
    };
    let (law_two, (acknowledged, injected, complaints, settled, times)) =
        tokio::try_join!(watched, played)?;
    let workers = crew.known().to_vec();
    let fenced = crew.count_in_logs(FENCED)?;
    Ok(Played {
        plan,
        place,
        ids,
        acknowledged,
        injected,
        workers,
        complaints,
        settled,
        law_two,
        fenced,
        times,
    })
}

/// The end of each partition's log.
///
/// # Errors
/// When the brokers do not answer.
pub async fn log_ends(bootstrap: &str, topic: &str) -> Result<BTreeMap<i32, i64>, ChaosError> {
    let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
    let ask = move || {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("log_level", "0")
            .create()?;
        let end = |partition| {
            let (_, end) = client.fetch_watermarks(&topic, partition, Duration::from_secs(20))?;
            Ok((partition, end))
        };
        (0..PARTITIONS).map(end).collect()
    };
    tokio::task::spawn_blocking(ask)
        .await
        .map_err(std::io::Error::other)
        .map_err(ChaosError::io("ask for the ends of the log"))?
}

/// Asks for cancellations as the plan says, through the database as any client may.
async fn cancel(
    servers: &Servers,
    place: &Place,
    plan: &Plan,
    ids: &[Uuid],
    began: Instant,
) -> Result<(), ChaosError> {
    if place.handlers == Handlers::Stock {
        return Ok(());
    }
    let schema = place.schema();
    let mut connection = None;
    for (at_ms, index) in &plan.cancels {
        tokio::time::sleep_until(began + Duration::from_millis((*at_ms).into())).await;
        let Some(id) = ids.get(*index) else { continue };
        loop {
            if connection.is_none() {
                connection = connect(servers.database_url(), &schema).await.ok();
            }
            if let Some(open) = connection.as_mut() {
                // A notice that is lost costs a poll's delay, so it may go out by itself.
                let request = "WITH asked AS (INSERT INTO task_cancels (task_id, by) VALUES ($1, 'chaos') \
                     ON CONFLICT DO NOTHING) SELECT pg_notify('millrace_cancels_' || current_schema(), '')";
                if sqlx::query(request).bind(id).execute(open).await.is_ok() {
                    break;
                }
                connection = None;
            }
            sleep(LOOK).await;
        }
    }
    Ok(())
}

/// Waits until every offset is settled and nothing is parked; false when that takes too long.
async fn settle(
    servers: &Arc<Servers>,
    place: &Place,
    crew: &mut Crew,
) -> Result<bool, ChaosError> {
    let ends = log_ends(servers.bootstrap(), &place.name).await?;
    let deadline = Instant::now() + SETTLE;
    let mut connection = connect(servers.database_url(), &place.schema()).await?;
    loop {
        let positions: Vec<(i32, i64)> =
            sqlx::query_as("SELECT partition, next_offset FROM partition_progress")
                .fetch_all(&mut connection)
                .await?;
        let waiting: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM parked_tasks) + (SELECT count(*) FROM outbox)",
        )
        .fetch_one(&mut connection)
        .await?;
        let all_read = ends
            .iter()
            .filter(|(_, end)| **end > 0)
            .all(|(partition, end)| positions.contains(&(*partition, *end)));
        if all_read && waiting == 0 {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        crew.fill(servers)?;
        sleep(LOOK).await;
    }
}
