//! Workers die all the time, and every event still ends as exactly one row.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::chance::Chance;
use crate::input::lines;
use crate::law_two::LawTwo;
use crate::process::Process;
use crate::proof::{Times, prove};
use crate::stage::Stage;
use crate::{ALONE, setting, within};
use millrace_devstack::can_run_apache_kafka;

const WORKERS: usize = 3;
/// How long the killing goes on when the events do not drain under it; then they must drain without it.
const LONGEST: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_random_worker_killed_every_second_never_costs_or_doubles_an_event() {
    if !can_run_apache_kafka("survival: a random worker killed every second")
        .await
        .unwrap()
    {
        return;
    }
    let _alone = ALONE.lock().await;
    let chance = Chance::new(4);
    for round in 1..=setting("MILLRACE_SURVIVAL_ROUNDS", 1) {
        within(900, round_of_kills(round, &chance)).await;
    }
}

async fn round_of_kills(round: u64, chance: &Chance) {
    let stage = Arc::new(Stage::shared("kills").await);
    let count = lines(60_000);
    let file = stage.edits(count);
    // Fifteen seconds of input, so that there is work whenever somebody dies.
    let rate = (count / 15).to_string();
    let began = Instant::now();
    let start = || stage.worker(&["--exit-when-idle", "6s", "--max-in-flight", "5000"]);
    let mut workers: Vec<Process> = (0..WORKERS).map(|_| start()).collect();
    let law_two = LawTwo::watch(&stage);
    let mut emitting = stage.emitting(&file, &["--rate", &rate]);

    let mut kills = 0;
    let mut each_second = tokio::time::interval(Duration::from_secs(1));
    each_second.tick().await;
    let under_fire = loop {
        each_second.tick().await;
        let settled = stage.settled().await.unwrap();
        let drained = emitting.ended() == Some(0) && settled == i64::try_from(count).unwrap();
        if drained || began.elapsed() > LONGEST {
            break settled;
        }
        let unlucky = usize::try_from(chance.below(WORKERS as u64)).unwrap();
        std::mem::replace(&mut workers[unlucky], start()).kill();
        kills += 1;
    };
    assert_eq!(emitting.exit(60).await, 0, "{}", emitting.words());
    for worker in &mut workers {
        assert_eq!(worker.exit(120).await, 0, "{}", worker.words());
    }
    let seen = law_two.held().await;
    let took = began.elapsed();
    let proof = prove(&stage, count, Times::EachRecord).await;
    assert!(kills >= 5, "only {kills} kills");
    eprintln!(
        "round {round}: {kills} kills, {under_fire} of {count} settled under fire, {:.1} s, {proof:?}, law 2: {} samples of {} offsets",
        took.as_secs_f64(),
        seen.samples,
        seen.offsets
    );
}
