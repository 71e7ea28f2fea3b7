//! The ways in which a group shares its partitions, on Apache Kafka: cooperative-sticky unless told otherwise,
//! the protocol of KIP-848, static members.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millrace_consumer::{Context, TaskError, Worker};
use millrace_devstack::can_run_apache_kafka;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde::Deserialize;

use crate::evidence::Evidence;
use crate::process::Process;
use crate::sending::{Record, Sender, task};
use crate::stage::{RESULTS, SHORT_SESSIONS, SUCCESSES, Stage};
use crate::{ALONE, eventually};

const PARTITIONS: i32 = 6;
const KIP_848: [&str; 2] = ["-X", "group.protocol=consumer"];

#[derive(Deserialize)]
struct Numbered {
    n: usize,
}

fn handlers(evidence: &Evidence, name: &'static str) -> impl FnOnce(Worker) -> Worker {
    let evidence = evidence.clone();
    move |worker| {
        worker.register("step", move |task: Numbered, context: Context| {
            let evidence = evidence.clone();
            async move {
                evidence.called(name, task.n, &context);
                tokio::time::sleep(Duration::from_millis(3)).await;
                Ok::<_, TaskError>(task.n)
            }
        })
    }
}

/// So many tasks, from this number on, over all partitions in turn.
fn tasks(numbers: std::ops::Range<usize>) -> Vec<Record> {
    numbers
        .map(|n| Record {
            partition: Some(i32::try_from(n).unwrap() % PARTITIONS),
            ..task("step", None, format!(r#"{{"n":{n}}}"#))
        })
        .collect()
}

/// What the brokers call the protocol by which the group's members agreed, if they know such a group.
async fn agreed_protocol(stage: &Stage) -> Option<String> {
    let (kafka, group) = (stage.kafka.clone(), stage.group.clone());
    let asked = tokio::task::spawn_blocking(move || {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", kafka)
            .create()
            .unwrap();
        // Right after the start the brokers may not know yet who of them keeps the group.
        let asked = client.fetch_group_list(Some(&group), Duration::from_secs(10));
        let groups = asked.ok()?;
        let found = groups.groups().iter().find(|one| one.name() == group);
        found.map(|one| one.protocol().to_owned())
    });
    asked.await.unwrap()
}

/// Two workers share; one is stopped; the other has all. No task is missing, none ran twice.
async fn shared_then_taken_over(stage: &Stage, flags: &[&str]) {
    let (evidence, sender) = (Evidence::default(), Sender::to(stage));
    let first = stage.work(flags, handlers(&evidence, "first"));
    let mut sent = 600;
    sender.send(tasks(0..sent)).await;
    stage
        .until(SUCCESSES, i64::try_from(sent).unwrap(), 60)
        .await;
    let all: BTreeSet<i32> = (0..PARTITIONS).collect();
    assert_eq!(evidence.take_partitions("first"), all);
    let claims = stage.claims().await;

    let second = stage.work(flags, handlers(&evidence, "second"));
    eventually("both have partitions", 90, async || {
        evidence.take_partitions("first");
        evidence.take_partitions("second");
        sender.send(tasks(sent..sent + 60)).await;
        sent += 60;
        stage
            .until(SUCCESSES, i64::try_from(sent).unwrap(), 60)
            .await;
        let (one, other) = (evidence.partitions("first"), evidence.partitions("second"));
        let halves = one.len() == 3 && other.len() == 3 && one.is_disjoint(&other);
        halves.then_some(())
    })
    .await;
    let kept = evidence.partitions("first");
    let now = stage.claims().await;
    for partition in &kept {
        assert_eq!(
            now[partition], claims[partition],
            "{partition} was never given up"
        );
    }

    // The first one ends in the middle of its work.
    sender.send(tasks(sent..sent + 600)).await;
    sent += 600;
    assert_eq!(first.stop(), 0);
    eventually("the second one has all", 90, async || {
        evidence.take_partitions("second");
        sender.send(tasks(sent..sent + 60)).await;
        sent += 60;
        tokio::time::sleep(Duration::from_millis(200)).await;
        (evidence.partitions("second") == all).then_some(())
    })
    .await;
    stage
        .until(SUCCESSES, i64::try_from(sent).unwrap(), 60)
        .await;
    assert_eq!(second.stop(), 0);
    assert_eq!(stage.number(RESULTS).await, i64::try_from(sent).unwrap());
    let again: Vec<_> = evidence
        .tasks()
        .into_iter()
        .filter(|(_, seen)| seen.calls != 1)
        .collect();
    assert_eq!(again, [], "all ended in good order, so nothing ran twice");
    assert_eq!(evidence.tasks().len(), sent);
    stage.assert_books();
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_partitions_are_handed_over_one_by_one() {
    if !can_run_apache_kafka("acceptance: cooperative-sticky groups")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    let stage = Stage::shared("cooperative", PARTITIONS).await;
    let watched = stage.work(&SHORT_SESSIONS, handlers(&Evidence::default(), "watched"));
    eventually("a group that has agreed", 60, async || {
        let agreed = agreed_protocol(&stage).await?;
        (agreed == "cooperative-sticky").then_some(())
    })
    .await;
    assert_eq!(watched.stop(), 0);
    shared_then_taken_over(&stage, &SHORT_SESSIONS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_protocol_of_kip_848_shares_and_hands_over_just_so() {
    if !can_run_apache_kafka("acceptance: groups of KIP-848")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    let stage = Stage::shared("kip_848", PARTITIONS).await;
    let watched = stage.work(&KIP_848, handlers(&Evidence::default(), "watched"));
    eventually("all partitions are claimed", 60, async || {
        (stage.claims().await.len() == 6).then_some(())
    })
    .await;
    // The classic protocol's own question finds no such group.
    let agreed = agreed_protocol(&stage).await.unwrap_or_default();
    assert_eq!(agreed, "");
    assert_eq!(watched.stop(), 0);
    shared_then_taken_over(&stage, &KIP_848).await;
}

/// Which worker holds what, under which claim.
async fn held(stage: &Stage, worker: &Process) -> BTreeMap<i32, uuid::Uuid> {
    let mut connection = stage.connect().await.unwrap();
    sqlx::query_as(
        "SELECT partition, claim FROM partition_progress WHERE claim IS NOT NULL AND owner LIKE '%:' || $1",
    )
    .bind(worker.pid.to_string())
    .fetch_all(&mut connection)
    .await
    .unwrap()
    .into_iter()
    .collect()
}

async fn until_held(stage: &Stage, worker: &Process, count: usize) -> BTreeMap<i32, uuid::Uuid> {
    eventually("its share is held", 90, async || {
        let held = held(stage, worker).await;
        (held.len() == count).then_some(held)
    })
    .await
}

/// A restart within the session's time moves nothing of the others; the same instance twice ends one of the two.
async fn static_members(stage: &Stage, protocol: &[&str]) {
    let flags = |instance: &'static str| {
        let mut flags = protocol.to_vec();
        flags.extend(["-X", instance]);
        flags
    };
    let (one, two) = (
        flags("group.instance.id=one"),
        flags("group.instance.id=two"),
    );
    let first = Process::worker(stage, &one);
    until_held(stage, &first, 6).await;
    let second = Process::worker(stage, &two);
    let of_second = until_held(stage, &second, 3).await;
    let of_first = until_held(stage, &first, 3).await;

    let sender = Sender::to(stage);
    sender.send(tasks(0..600)).await;
    assert_eq!(first.stop().await, 0);
    sender.send(tasks(600..1_200)).await;
    let mut first = Process::worker(stage, &one);
    let again = until_held(stage, &first, 3).await;
    assert!(
        again.keys().eq(of_first.keys()),
        "{again:?} were {of_first:?}"
    );
    stage.until(RESULTS, 1_200, 60).await;
    assert_eq!(
        held(stage, &second).await,
        of_second,
        "nothing of the other moved"
    );

    let mut double = Process::worker(stage, &one);
    let ended = eventually("one of the two ends", 90, async || {
        [&mut first, &mut double]
            .into_iter()
            .position(|worker| !worker.is_running())
    })
    .await;
    let (mut loser, winner) = if ended == 0 {
        (first, double)
    } else {
        (double, first)
    };
    let code = loser.exit(5).await;
    let words = loser.words();
    assert_eq!(code, 1, "{words}");
    let last = words.lines().last().unwrap_or_default().to_owned();
    assert!(
        last.starts_with("error: ") && last.contains("group.instance.id"),
        "{words}"
    );
    sender.send(tasks(1_200..1_800)).await;
    stage.until(RESULTS, 1_800, 90).await;
    assert_eq!(
        held(stage, &second).await,
        of_second,
        "nothing of the other moved"
    );
    assert_eq!(winner.stop().await, 0);
    assert_eq!(second.stop().await, 0);
    stage.assert_books();
    eprintln!(
        "the same instance twice, {}: {last}",
        if ended == 0 {
            "the older one ended"
        } else {
            "the newer one ended"
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_that_restarts_in_time_moves_no_partition_of_the_others() {
    if !can_run_apache_kafka("acceptance: static members")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    let stage = Stage::shared("static_members", PARTITIONS).await;
    let sessions = [
        "-X",
        "session.timeout.ms=30000",
        "-X",
        "heartbeat.interval.ms=300",
    ];
    static_members(&stage, &sessions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn static_members_of_kip_848_do_just_so() {
    if !can_run_apache_kafka("acceptance: static members of KIP-848")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    let stage = Stage::shared("static_848", PARTITIONS).await;
    static_members(&stage, &KIP_848).await;
}
