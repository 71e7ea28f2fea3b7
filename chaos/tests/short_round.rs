//! A short round with a fixed seed, as a part of every test run: one broker, every kind of task, and faults
//! of most kinds.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set up its case has failed"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millrace_chaos::checker;
use millrace_chaos::place::Place;
use millrace_chaos::plan::{Handlers, Plan, Size};
use millrace_chaos::report::{self, Summary};
use millrace_chaos::round;
use millrace_chaos::servers::Servers;
use millrace_devstack::can_run_apache_kafka;
use tokio::time::Instant;

const SEED: u64 = 20_150_912;

#[tokio::test(flavor = "multi_thread")]
async fn every_law_holds_in_a_short_round() {
    if !can_run_apache_kafka("chaos: a short round").await.unwrap() {
        return;
    }
    let programs: PathBuf = PathBuf::from(env!("CARGO_BIN_EXE_chaos"))
        .parent()
        .unwrap()
        .to_owned();
    for program in ["consumer", "chaos-worker"] {
        assert!(
            programs.join(program).exists(),
            "{program} is not built: cargo build --workspace --bins"
        );
    }
    let size = Size {
        records: 1_200,
        storm_ms: 6_000,
        workers: 3,
        brokers: 1,
    };
    let plan = Plan::new(SEED, size, Handlers::Planned);
    let temp = tempfile::tempdir().unwrap();
    let place = Place {
        programs,
        dir: temp.path().join("round"),
        name: "chaos-short".to_owned(),
        handlers: Handlers::Planned,
    };
    let judged = async {
        let servers = Arc::new(Servers::start(size.brokers).await.unwrap());
        let began = Instant::now();
        let played = round::play(&servers, place, plan, size).await.unwrap();
        let verdict = checker::judge(&servers, &played).await.unwrap();
        let text = Summary::default().round(&played, &verdict, (began, Instant::now()));
        let tables = checker::tables_of(&servers, &played).await.unwrap();
        report::keep(&played, &verdict, &tables).unwrap();
        (verdict, text)
    };
    let (verdict, text) = tokio::time::timeout(Duration::from_secs(300), judged)
        .await
        .unwrap();
    eprintln!("{text}");
    if !verdict.violations.is_empty() {
        // What was seen stays for whoever looks into it.
        panic!(
            "laws were broken; the evidence is in {}",
            temp.keep().display()
        );
    }
}
