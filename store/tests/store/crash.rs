//! A Postgres that is killed under the writers, again and again; and one that is restored from a copy.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millrace_devstack::PrivatePostgres;
use millrace_store::{End, FenceLoss};

use crate::events::{events, keyed, raw};
use crate::world::{World, flush_of, records, share};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_killed_in_the_middle_of_flushes_loses_and_doubles_nothing() {
    let mut postgres = PrivatePostgres::start_temp().await.unwrap();
    let world = World::at(postgres.url(), "killed".into(), None).await;
    let mut owner = world.claim(0).await;
    let mut writer = world.writer();
    let killed = AtomicBool::new(false);
    let flushing = async {
        let (mut outages, mut number) = (0, 0_i64);
        // However fast a flush is: until all the kills have come.
        while !killed.load(Ordering::Acquire) {
            let mut batch = records(owner.next, &events(300));
            let next = owner.next + 300;
            batch.extend(records(
                next,
                &[keyed(&number.to_string()), keyed(&number.to_string())],
            ));
            batch.push(raw(next + 2, "no event"));
            world.land_records(&mut writer, &mut owner, batch).await;
            outages += writer.take_incidents().outages;
            number += 1;
        }
        (outages, number)
    };
    let killing = async {
        for kill in 1..=5_u64 {
            // At a moment that differs each time, with flushes under way.
            tokio::time::sleep(Duration::from_millis(120 + 37 * kill)).await;
            postgres.kill().await.unwrap();
            postgres.start_again().await.unwrap();
        }
        killed.store(true, Ordering::Release);
    };
    let ((outages, flushes), ()) = tokio::join!(flushing, killing);
    assert!(outages >= 3, "the kills came while it was flushing");
    let row = world.progress(0).await;
    assert_eq!(row.next_offset, flushes * 303);
    assert_eq!(
        (
            row.counts.results,
            row.counts.duplicates,
            row.counts.dead_letters
        ),
        (flushes * 301, flushes, flushes)
    );
    assert_eq!(world.findings().await, Vec::<String>::new());
    let ids = world
        .number("SELECT count(DISTINCT task_id) FROM task_results")
        .await;
    assert_eq!(ids, world.results().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_01_a_cluster_restored_from_a_copy_is_noticed_and_read_again() {
    let mut postgres = PrivatePostgres::start_temp().await.unwrap();
    let world = World::at(postgres.url(), "restored".into(), None).await;
    let mut owner = world.claim(0).await;
    let mut writer = world.writer();
    let tasks = events(30);
    world.land(&mut writer, &mut owner, &tasks[..10]).await;
    postgres.stop().await.unwrap();
    let (data, copy) = (postgres.home().join("data"), postgres.home().join("copy"));
    copy_cluster(&data, &copy);
    postgres.start_again().await.unwrap();
    world.land(&mut writer, &mut owner, &tasks[10..20]).await;
    postgres.stop().await.unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    copy_cluster(&copy, &data);
    postgres.start_again().await.unwrap();

    let ends = world
        .flush(
            &mut writer,
            &flush_of(vec![share(&owner, records(20, &tasks[20..]))]),
        )
        .await;
    assert!(matches!(ends[..], [End::Lost(FenceLoss::DatabaseMoved)]));
    let mut owner = world.claim(0).await;
    assert_eq!(owner.next, 10);
    world.land(&mut writer, &mut owner, &tasks[10..]).await;
    assert_eq!(world.results().await, 30);
    assert_eq!(world.findings().await, Vec::<String>::new());
}

fn copy_cluster(from: &Path, to: &Path) {
    let done = Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .unwrap();
    assert!(done.success());
}
