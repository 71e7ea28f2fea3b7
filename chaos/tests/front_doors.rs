//! Front doors and workers killed in turn for a few seconds, as a part of every test run.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its case has failed"
)]

use std::path::PathBuf;
use std::time::Duration;

use millrace_chaos::doors::{self, Size};
use millrace_chaos::place::Place;
use millrace_chaos::plan::Handlers;
use millrace_chaos::servers::Servers;
use millrace_devstack::can_run_apache_kafka;

#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_task_has_one_result_and_every_caller_hears_of_it() {
    if !can_run_apache_kafka("chaos: front doors").await.unwrap() {
        return;
    }
    let programs: PathBuf = PathBuf::from(env!("CARGO_BIN_EXE_chaos"))
        .parent()
        .unwrap()
        .to_owned();
    for program in ["consumer", "producer"] {
        assert!(
            programs.join(program).exists(),
            "{program} is not built: cargo build --workspace --bins"
        );
    }
    let temp = tempfile::tempdir().unwrap();
    let place = Place {
        programs,
        dir: temp.path().join("doors"),
        name: "doors-short".to_owned(),
        handlers: Handlers::Stock,
    };
    let size = Size {
        doors: 2,
        workers: 3,
        callers: 30,
        storm: Duration::from_secs(8),
        between: Duration::from_millis(700),
    };
    let servers = Servers::start(1).await.unwrap();
    let verdict = doors::play(&servers, place, size).await.unwrap();
    assert!(verdict.violations.is_empty(), "{verdict}");
}
