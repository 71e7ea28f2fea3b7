//! One task in a hundred is bad, in four ways: each is found by its reason, and none else; after a fix of the
//! handlers all that decode are redriven and succeed, once.
//!
//! Nothing that a producer or a handler says can bring a NUL into a text column: keys and content types with
//! one are refused before, error texts are cleaned. What remains is a text that the database makes itself: an
//! index over a field of the results, as people add them, refuses the results whose field holds `\u0000`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use millrace_consumer::{Context, Policy, TaskError, Worker};
use millrace_devstack::can_run_apache_kafka;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::copies::copies;
use crate::evidence::Evidence;
use crate::sending::{Record, Sender, task};
use crate::stage::{LETTERS, PARKED, SHORT_SESSIONS, SUCCESSES, Stage};
use crate::{ALONE, setting};

const PARTITIONS: i32 = 6;
const ATTEMPTS: u16 = 3;
const KEYS: usize = 997;
const INDEX: &str = "CREATE INDEX ON task_results ((result->>'name'))";

const UNDECODABLE: &str = "undecodable";
const PERMANENT: &str = "permanent";
const EXHAUSTED: &str = "attempts_exhausted";
const REFUSED: &str = "row_refused";
const REASONS: [&str; 4] = [UNDECODABLE, PERMANENT, EXHAUSTED, REFUSED];

/// Where the planted ones lie, and why they have to fail.
type Planted = BTreeMap<(i32, i64), &'static str>;

#[derive(Deserialize)]
struct Order {
    n: usize,
    /// What goes wrong until the handlers are fixed: one of the reasons.
    wrong: Option<String>,
}

#[derive(Serialize)]
struct Greeting {
    n: usize,
    name: String,
}

/// Before the fix, tasks fail as their payload says; after it, none does.
fn handlers(fixed: bool, evidence: &Evidence) -> impl FnOnce(Worker) -> Worker {
    let evidence = evidence.clone();
    move |worker| {
        worker
            .register("greet", move |order: Order, context: Context| {
                let evidence = evidence.clone();
                async move {
                    evidence.called("greeter", order.n, &context);
                    let wrong = order.wrong.filter(|_| !fixed);
                    let name = match wrong.as_deref() {
                        Some(PERMANENT) => return Err(TaskError::permanent("nobody\0 there")),
                        Some(EXHAUSTED) => return Err(TaskError::retry("not now\0")),
                        Some(REFUSED) => "Ann\0e".to_owned(),
                        _ => format!("Anne {}", order.n),
                    };
                    Ok(Greeting { n: order.n, name })
                }
            })
            .with(Policy {
                max_attempts: ATTEMPTS,
                backoff_base: Duration::from_millis(20),
                backoff_cap: Duration::from_millis(40),
                ..Policy::default()
            })
    }
}

/// Every hundredth record is bad, the reasons taking turns. Half of the bytes that do not decode tell in a
/// header whose they were.
fn records(tasks: usize) -> impl Iterator<Item = (Record, Option<&'static str>)> {
    (0..tasks).map(|n| {
        let wrong = (n % 100 == 50).then(|| REASONS[n / 100 % REASONS.len()]);
        let key = format!("key-{}", n % KEYS);
        let payload = json!({"n": n, "wrong": wrong}).to_string();
        let mut record = task("greet", Some(&key), payload);
        if wrong == Some(UNDECODABLE) {
            record.value.truncate(30);
            if n / 400 % 2 == 0 {
                record.headers.clear();
            }
        }
        (record, wrong)
    })
}

async fn send(stage: &Stage, tasks: usize) -> Planted {
    let (records, wrong): (Vec<Record>, Vec<_>) = records(tasks).unzip();
    let places = Sender::to(stage).send(records).await;
    places
        .into_iter()
        .zip(wrong)
        .filter_map(|(place, wrong)| Some((place, wrong?)))
        .collect()
}

fn of(planted: &Planted, reason: &str) -> usize {
    planted.values().filter(|wrong| **wrong == reason).count()
}

fn letters(stage: &Stage, arguments: &[&str]) -> (i32, Value) {
    let mut all = vec!["dead-letters"];
    all.extend(arguments);
    all.extend(["--format", "json"]);
    let ended = stage.consumer(&all);
    (ended.code, ended.json())
}

/// The open letters, as the command lists them.
fn listed(stage: &Stage) -> BTreeMap<(i32, i64), String> {
    let (code, list) = letters(stage, &["list", "--limit", "1000000"]);
    assert_eq!(code, 0);
    let place = |line: &Value, name: &str| line[name].as_i64().unwrap();
    list.as_array()
        .unwrap()
        .iter()
        .map(|line| {
            let partition = i32::try_from(place(line, "partition")).unwrap();
            let reason = line["reason"].as_str().unwrap().to_owned();
            ((partition, place(line, "offset")), reason)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_task_is_found_by_its_reason_and_redriven_once() {
    if !can_run_apache_kafka("acceptance: dead letters")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    let began = Instant::now();
    let tasks = usize::try_from(setting("MILLRACE_ACCEPTANCE_TASKS", 20_000)).unwrap();
    let patience = 120 + tasks as u64 / 200;
    let stage = Stage::shared("dead_letters", PARTITIONS).await;
    let dlq = format!("{}.dlq", stage.topic);
    stage.topics().create(&dlq, 3, &[]).await.unwrap();
    stage.execute(INDEX).await;
    let planted = send(&stage, tasks).await;
    let bad = planted.len();
    assert_eq!(bad, tasks / 100);
    let good = i64::try_from(tasks - bad).unwrap();

    let before = Evidence::default();
    let worker = stage.work(&SHORT_SESSIONS, handlers(false, &before));
    stage.until(SUCCESSES, good, patience).await;
    stage
        .until(LETTERS, i64::try_from(bad).unwrap(), patience)
        .await;
    assert_found(&stage, &planted).await;
    let copied = stage.number("SELECT count(*) FROM outbox").await;
    stage
        .until("SELECT count(*) FROM outbox", 0, patience)
        .await;
    assert_eq!(worker.stop(), 0);
    stage.assert_books();
    assert_copied(&stage, &dlq, &planted).await;
    let found = began.elapsed();

    let after = Evidence::default();
    let worker = stage.work(&SHORT_SESSIONS, handlers(true, &after));
    redrive(&stage, &planted);
    let to_come = bad - of(&planted, UNDECODABLE);
    stage
        .until(SUCCESSES, good + i64::try_from(to_come).unwrap(), patience)
        .await;
    stage.until(PARKED, 0, patience).await;
    assert_mended(&stage, &planted, &before, &after).await;
    assert_nothing_is_left(&stage, &planted);
    assert_eq!(worker.stop(), 0);
    stage.assert_books();
    eprintln!(
        "dead letters: {tasks} tasks, {bad} planted, found and copied after {found:.1?} ({copied} copies still to go \
         when all were found), {to_come} mended after {:.1?}",
        began.elapsed()
    );
}

/// All of them with the right reason, and no other: in the table, and by the command.
async fn assert_found(stage: &Stage, planted: &Planted) {
    let mut connection = stage.connect().await.unwrap();
    let rows: Vec<(i32, i64, String, String, i16)> =
        sqlx::query_as("SELECT partition, \"offset\", reason, error, attempts FROM dead_letters")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    let mut found = BTreeMap::new();
    for (partition, offset, reason, error, attempts) in rows {
        let (tried, words) = match reason.as_str() {
            PERMANENT => (1, "nobody\u{FFFD} there"),
            EXHAUSTED => (i16::try_from(ATTEMPTS).unwrap(), "not now\u{FFFD}"),
            REFUSED => (1, "Unicode"),
            _ => (0, ""),
        };
        assert_eq!(attempts, tried, "{partition}:{offset} {reason}: {error}");
        assert!(
            error.contains(words),
            "{partition}:{offset} {reason}: {error}"
        );
        found.insert((partition, offset), reason);
    }
    let wanted: BTreeMap<_, _> = planted
        .iter()
        .map(|(place, reason)| (*place, (*reason).to_owned()))
        .collect();
    assert!(found == wanted, "{}", difference(&found, &wanted));
    let listed = listed(stage);
    assert!(listed == wanted, "{}", difference(&listed, &wanted));
    let failed = "SELECT count(*) FROM task_results WHERE status = 'failed'";
    let with_id = of(planted, UNDECODABLE) / 2;
    let least = i64::try_from(planted.len() - of(planted, UNDECODABLE) + with_id).unwrap();
    assert!((least..=least + 1).contains(&stage.number(failed).await));
}

fn difference(
    found: &BTreeMap<(i32, i64), String>,
    wanted: &BTreeMap<(i32, i64), String>,
) -> String {
    let odd: Vec<_> = found
        .iter()
        .filter(|(place, reason)| wanted.get(place) != Some(reason))
        .take(10)
        .collect();
    let missing: Vec<_> = wanted
        .iter()
        .filter(|(place, _)| !found.contains_key(place))
        .take(10)
        .collect();
    format!(
        "{} found, {} planted; wrong: {odd:?}; missing: {missing:?}",
        found.len(),
        wanted.len()
    )
}

/// Each has its copy, with headers that say where it was and why it is here.
async fn assert_copied(stage: &Stage, dlq: &str, planted: &Planted) {
    let (kafka, name, topic) = (stage.kafka.clone(), dlq.to_owned(), stage.topic.clone());
    let wanted = planted.len();
    let copies = tokio::task::spawn_blocking(move || copies(&kafka, &name, &topic, wanted));
    let copies = copies.await.unwrap();
    let odd: Vec<_> = copies
        .iter()
        .filter(|(place, reason)| planted.get(place).copied() != Some(reason.as_str()))
        .take(10)
        .collect();
    assert!(odd.is_empty(), "{odd:?}");
    assert_eq!(copies.len(), planted.len());
}

/// By filter, as a person would: dry first, then what can work again, then the rest, which still does not decode.
fn redrive(stage: &Stage, planted: &Planted) {
    let mendable = [
        "--reason", PERMANENT, "--reason", EXHAUSTED, "--reason", REFUSED,
    ];
    let wanted = planted.len() - of(planted, UNDECODABLE);
    let mut line = vec!["redrive", "--because", "the greeter was fixed"];
    line.extend(mendable);
    line.push("--dry-run");
    let (code, dry) = letters(stage, &line);
    assert_eq!((code, &dry["done"]), (0, &json!(wanted)), "{dry}");
    line.pop();
    let (code, done) = letters(stage, &line);
    assert_eq!(
        (code, &done["done"], &done["refused"]),
        (0, &json!(wanted), &json!(0)),
        "{done}"
    );

    let (code, refused) = letters(stage, &["redrive", "--all"]);
    assert_eq!(code, 1, "{refused}");
    let count = of(planted, UNDECODABLE);
    assert_eq!(
        (&refused["letters"], &refused["done"]),
        (&json!(count), &json!(0))
    );
    assert_eq!(refused["refusals"], json!({ "undecodable": count }));
}

/// Every redriven task has one result, of its second run and that run's first attempt, and ran once for it.
async fn assert_mended(stage: &Stage, planted: &Planted, before: &Evidence, after: &Evidence) {
    let mendable: BTreeSet<_> = planted
        .iter()
        .filter(|(_, reason)| **reason != UNDECODABLE)
        .map(|(place, _)| *place)
        .collect();
    let mut connection = stage.connect().await.unwrap();
    let rows: Vec<(i32, i64, i64, i16)> = sqlx::query_as(
        "SELECT partition, \"offset\", (result->>'n')::bigint, attempts FROM task_results WHERE run = 1 AND status = 'success'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(rows.len(), mendable.len());
    let places: BTreeSet<_> = rows
        .iter()
        .map(|(partition, offset, ..)| (*partition, *offset))
        .collect();
    assert!(
        places == mendable,
        "redriven are others than those that failed"
    );
    let (before, after) = (before.tasks(), after.tasks());
    for (partition, offset, n, attempts) in rows {
        let n = usize::try_from(n).unwrap();
        assert_eq!(attempts, 1);
        assert_eq!(
            after[&n].calls, 1,
            "{n} at {partition}:{offset} ran once more"
        );
        let tried = if planted[&(partition, offset)] == EXHAUSTED {
            u32::from(ATTEMPTS)
        } else {
            1
        };
        assert_eq!(
            before[&n].calls, tried,
            "{n} at {partition}:{offset} had run as often"
        );
    }
    assert_eq!(after.len(), mendable.len(), "nothing else ran again");
    let twice = "SELECT count(*) FROM (SELECT task_id FROM task_results GROUP BY task_id HAVING count(*) > 1) AS twice";
    assert_eq!(stage.number(twice).await, 0);
    let failed = "SELECT count(*) FROM task_results WHERE status = 'failed' AND error->>'code' <> 'undecodable'";
    assert_eq!(stage.number(failed).await, 0);
}

/// What is open is what does not decode, and redriving again finds nothing else.
fn assert_nothing_is_left(stage: &Stage, planted: &Planted) {
    let mut line = vec!["redrive"];
    line.extend([
        "--reason", PERMANENT, "--reason", EXHAUSTED, "--reason", REFUSED,
    ]);
    let (code, again) = letters(stage, &line);
    assert_eq!((code, &again["letters"]), (0, &json!(0)), "{again}");
    let open = listed(stage);
    assert_eq!(open.len(), of(planted, UNDECODABLE));
    assert!(open.values().all(|reason| reason == UNDECODABLE));
}
