//! What happens to a server whose owner is killed: this test binary starts itself as the owner.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use millrace_devstack::{PrivatePostgres, ProcessMark};

use crate::within;

const ROLE: &str = "DEVSTACK_TEST_OWNER";

#[tokio::test]
async fn a_server_ends_and_its_folder_goes_when_its_owner_is_killed() {
    if std::env::var_os(ROLE).is_some() {
        own_a_postgres_for_ever().await;
    }
    within(60, async {
        let mut owner = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("watchdog::a_server_ends_and_its_folder_goes_when_its_owner_is_killed")
            .env(ROLE, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
        let told = lines
            .map(|line| line.unwrap())
            .find_map(|line| line.split_once("owned ").map(|(_, told)| told.to_owned()))
            .unwrap();
        let (pid, home) = told.split_once(' ').unwrap();
        let server = ProcessMark::of(pid.parse().unwrap()).unwrap();
        assert!(server.is_alive());

        owner.kill().unwrap();
        owner.wait().unwrap();

        assert!(server.gone_within(Duration::from_secs(20)).await);
        while std::path::Path::new(home).exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn own_a_postgres_for_ever() {
    let postgres = PrivatePostgres::start_temp().await.unwrap();
    println!(
        "owned {} {}",
        postgres.mark().unwrap().pid,
        postgres.home().display()
    );
    std::future::pending::<()>().await;
}
