//! The demo, faster than it is shown: its counts are exact on either Kafka, and nothing outlives it.
//!
//! Runs the `producer` and `consumer` binaries beside `devstack`: build the workspace first.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use millrace_devstack::demo::{self, Plan, Report, Screen};
use millrace_devstack::{KafkaChoice, ProcessMark, can_run_apache_kafka, test_kafka};
use nix::sys::signal::Signal;

const DEVSTACK: &str = env!("CARGO_BIN_EXE_devstack");

async fn play(kafka: KafkaChoice) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let programs = Path::new(DEVSTACK).parent().unwrap().to_owned();
    let plan = Plan {
        rate: 10_000,
        dir: dir.path().to_owned(),
        ..Plan::shipped(kafka, programs)
    };
    demo::run(&plan, &mut Screen::plain()).await.unwrap()
}

fn assert_exact(report: &Report) {
    assert_eq!(report.faults(), Vec::<String>::new(), "{report}");
    let figures = &report.figures;
    assert_eq!(figures.sent, 44_244);
    assert_eq!(figures.results, 39_244);
    assert_eq!(figures.duplicates, 5_000);
    assert_eq!(figures.comparison.once, 39_244);
    assert!(report.audit.balanced);
    assert!(report.answers.iter().all(|answer| !answer.rows.is_empty()));
}

#[tokio::test]
async fn each_line_is_there_once_on_the_embedded_broker() {
    assert_exact(&play(KafkaChoice::Embedded).await);
}

#[tokio::test]
async fn each_line_is_there_once_on_apache_kafka() {
    if !can_run_apache_kafka("the demo on Apache Kafka")
        .await
        .unwrap()
    {
        return;
    }
    assert_exact(&play(KafkaChoice::Given(test_kafka().await.unwrap())).await);
}

#[tokio::test]
async fn an_interrupted_demo_ends_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Command::new(DEVSTACK)
        .args(["demo", "--kafka", "embedded", "--dir"])
        .arg(dir.path())
        .env_remove("STAY")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mark = ProcessMark::of(demo.id()).unwrap();
    let lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let workers_started = lines
        .map(|line| line.unwrap())
        .any(|line| line.contains("starting two workers"));
    assert!(workers_started);
    let mut children = mark.children();
    while children.len() < 2 * ["Postgres", "worker 1", "worker 2"].len() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        children = mark.children();
    }

    mark.signal(Signal::SIGINT);

    let status = tokio::task::spawn_blocking(move || demo.wait());
    assert_eq!(status.await.unwrap().unwrap().code(), Some(130));
    for child in children {
        assert!(
            child.gone_within(Duration::from_secs(10)).await,
            "{child:?}"
        );
    }
}
