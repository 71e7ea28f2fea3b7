//! A wrong setting is refused at start, with exit code 2 and what would be right.

use super::scene::{Ended, Scene, finish};

fn refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, 2, "{}", ended.words);
    for word in words {
        assert!(
            ended.words.contains(word),
            "no `{word}` in: {}",
            ended.words
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_wrong_is_named_with_its_flag() {
    let scene = Scene::embedded("wrong_settings", 1).await;
    let without = |name: &str| {
        let mut command = scene.worker_command(&[]);
        command.env_remove(name);
        finish(command)
    };
    let kafka = without("KAFKA_BOOTSTRAP_SERVERS");
    refused(&kafka, &["--kafka", "KAFKA_BOOTSTRAP_SERVERS"]);
    refused(
        &without("DATABASE_URL"),
        &["--database-url", "DATABASE_URL"],
    );
    let with = |flags: &[&str]| finish(scene.worker_command(flags));
    refused(
        &with(&["-X", "auto.offset.reset=latest"]),
        &["auto.offset.reset"],
    );
    refused(
        &with(&["-X", "enable.auto.commit=false"]),
        &["enable.auto.commit"],
    );
    refused(&with(&["-X", "no.such.property=1"]), &["no.such.property"]);
    refused(
        &with(&["--dedup-days", "9", "--result-days", "8"]),
        &["--dedup-days"],
    );
    refused(
        &with(&["--database-url", "mysql://x@y/z"]),
        &["postgres://"],
    );
    refused(&with(&["--schema", "Has-Capitals"]), &["--schema"]);
    refused(&with(&["--exit-when-idle", "soon"]), &["--exit-when-idle"]);
    refused(&with(&["--start", "middle"]), &["earliest", "latest"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_told_and_not_created() {
    let scene = Scene::embedded("missing_topic", 1).await;
    for _ in 0..2 {
        let run = finish(scene.worker_command(&["--topic", "nowhere"]));
        refused(&run, &["topic nowhere does not exist"]);
    }
    let mut command = scene.worker_command(&["--topic", "nowhere"]);
    command.env_remove("MILLRACE_ALLOW_UNREPLICATED");
    refused(&finish(command), &["topic nowhere does not exist"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_never_printed() {
    let scene = Scene::embedded("no_secrets", 1).await;
    let mut command = scene.command(&["audit"]);
    command.env("DATABASE_URL", "postgres://me:s3cr3t@127.0.0.1:1/x");
    let ended = finish(command);
    assert_ne!(ended.code, 0);
    assert!(!ended.words.contains("s3cr3t"), "{}", ended.words);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_not_there_are_told_with_the_command_that_makes_them() {
    let scene = Scene::embedded("no_tables", 1).await;
    scene
        .execute(&format!("DROP SCHEMA {} CASCADE", scene.schema))
        .await;
    refused(&finish(scene.worker_command(&[])), &["consumer migrate"]);
    let id = "0190163d-8694-739b-aea5-966c26f8ad91";
    for command in [
        &["audit"][..],
        &["status"],
        &["task", id],
        &["position", "show"],
        &[
            "position",
            "set",
            "--partition",
            "0",
            "--to",
            "0",
            "--reason",
            "r",
        ],
    ] {
        refused(&scene.run(command), &["consumer migrate"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_belongs_to_one_group_on_one_topic() {
    let scene = Scene::embedded("other_group", 1).await;
    assert_eq!(scene.drain(&[]).await.code, 0);
    let other = finish(scene.worker_command(&["--group", "somebody-else"]));
    refused(&other, &["belongs to group", "somebody-else", "--schema"]);
    assert_eq!(
        scene
            .number("SELECT count(*) FROM partition_progress")
            .await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_one_replica_is_refused_unless_allowed() {
    let Some(scene) = Scene::apache("unreplicated", 1).await else {
        return;
    };
    let mut command = scene.worker_command(&[]);
    command.env_remove("MILLRACE_ALLOW_UNREPLICATED");
    refused(
        &finish(command),
        &["--allow-unreplicated", "replication factor"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_outlives_its_results_is_refused() {
    let Some(scene) = Scene::apache("outlives", 1).await else {
        return;
    };
    let ended = finish(scene.worker_command(&["--result-days", "1", "--dedup-days", "1"]));
    refused(&ended, &["retention.ms", "--result-days"]);
}
