//! The policy file: read strictly at start, followed while the worker runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millrace_consumer::handlers::{Found, Policies, PolicyFileError, Registry};
use millrace_consumer::{Mode, Policy, TaskError};
use millrace_telemetry::PolicyMetrics;

use super::stage::{PATIENCE, registry, worker};

const OFTEN: Duration = Duration::from_millis(5);

async fn nothing(_: ()) -> Result<(), TaskError> {
    Ok(())
}

struct Scene {
    folder: tempfile::TempDir,
    registry: Arc<Registry>,
}

impl Scene {
    /// A worker with `email.send`, whose program says 3 attempts, and `thumbnail`, of which it says nothing.
    fn new() -> Self {
        let few = Policy {
            max_attempts: 3,
            ..Policy::default()
        };
        Self {
            folder: tempfile::tempdir().unwrap(),
            registry: registry(|worker| {
                worker
                    .register("email.send", nothing)
                    .with(few)
                    .register("thumbnail", nothing)
            }),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("policies.toml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
    }

    fn load(&self, text: &str) -> Result<Policies, PolicyFileError> {
        self.write(text);
        Policies::load(Arc::clone(&self.registry), Some(self.file()))
    }

    fn policy(&self, policies: &Policies, task_type: &str) -> Policy {
        let Found::Handler(index) = self.registry.find(task_type) else {
            panic!("{task_type} is not registered");
        };
        policies.subscribe().borrow().get(index).clone()
    }

    /// What is said of a file, after its path.
    fn refused(&self, text: &str) -> String {
        let error = self.load(text).unwrap_err().to_string();
        let path = format!("policy file {}", self.file().display());
        assert!(!error.contains('\n'), "one line: {error}");
        error.strip_prefix(&path).unwrap().to_owned()
    }
}

#[test]
fn every_field_can_be_set_and_what_is_not_set_stays() {
    let scene = Scene::new();
    let policies = scene
        .load(
            r#"
            [default]
            max_attempts = 7
            grace = "1s"

            [type."email.send"]
            mode = "partition"
            max_age = "2h"
            backoff_base = "250ms"
            backoff_cap = "1m"
            timeout = "30s"
            grace = "2s"
            max_in_flight = 4
            park_after = "3s"
            run_long_after = "20s"
            "#,
        )
        .unwrap();
    assert_eq!(
        scene.policy(&policies, "email.send"),
        Policy {
            mode: Mode::Partition,
            max_attempts: 3,
            max_age: Duration::from_secs(7_200),
            backoff_base: Duration::from_millis(250),
            backoff_cap: Duration::from_secs(60),
            timeout: Some(Duration::from_secs(30)),
            grace: Duration::from_secs(2),
            max_in_flight: Some(4),
            park_after: Duration::from_secs(3),
            run_long_after: Duration::from_secs(20),
        },
        "the program's word counts more than [default], the type's table more than both"
    );
    assert_eq!(
        scene.policy(&policies, "thumbnail"),
        Policy {
            max_attempts: 7,
            grace: Duration::from_secs(1),
            ..Policy::default()
        }
    );
}

#[test]
fn a_limit_can_be_taken_away() {
    let scene = Scene::new();
    let policies = scene
        .load(
            "[default]\ntimeout = \"1m\"\nmax_in_flight = 2\n\
             [type.thumbnail]\ntimeout = \"none\"\nmax_in_flight = \"none\"\n",
        )
        .unwrap();
    let policy = scene.policy(&policies, "thumbnail");
    assert_eq!((policy.timeout, policy.max_in_flight), (None, None));
}

#[test]
fn what_is_wrong_is_said_with_line_table_name_value_and_what_would_be_right() {
    let scene = Scene::new();
    for (text, line, table, parts) in [
        (
            "[default]\nmax_attemps = 3\n",
            2,
            "[default]",
            ["`max_attemps`", "`max_attempts`"].as_slice(),
        ),
        (
            "[default]\ngrace = \"1s\"\n\n[type.\"email.send\"]\nmode = \"keys\"\n",
            5,
            "[type.\"email.send\"]",
            &["keys", "`key`", "`unordered`"],
        ),
        (
            "[type.thumbnail]\ntimeout = \"soon\"\n",
            2,
            "[type.thumbnail]",
            &["soon", "\"30s\"", "\"none\""],
        ),
        (
            "[type.thumbnail]\ngrace = 5\n",
            2,
            "[type.thumbnail]",
            &["integer `5`", "\"30s\""],
        ),
        (
            "[type.thumbnail]\nmax_in_flight = -1\n",
            2,
            "[type.thumbnail]",
            &["-1", "\"none\""],
        ),
        (
            "[type.thumbnail]\nmax_attempts = 0\n",
            1,
            "[type.thumbnail]",
            &["max_attempts is 0", "from 1 to"],
        ),
        (
            "[type.thumbnail]\nbackoff_base = \"1h\"\n",
            1,
            "[type.thumbnail]",
            &["backoff_cap is 10m", "from backoff_base"],
        ),
        (
            "[type.\"emial.send\"]\ntimeout = \"1s\"\n",
            1,
            "[type.\"emial.send\"]",
            &["\"emial.send\"", "\"email.send\", \"thumbnail\""],
        ),
        ("[types]\n", 1, "[types]", &["`types`", "`type`"]),
        ("grace = \"1s\"\n", 1, "before any table", &["`grace`"]),
        ("[default\n", 1, "[default", &["default"]),
    ] {
        let error = scene.refused(text);
        let place = format!(", line {line}, {table}: ");
        assert!(error.starts_with(&place), "{text:?}: {error}");
        for part in parts.iter().take(if table == "[default" { 0 } else { 9 }) {
            assert!(error.contains(part), "{text:?}: {part} is not in: {error}");
        }
    }
}

#[test]
fn a_worker_does_not_start_with_a_wrong_file_or_without_the_one_it_was_given() {
    let scene = Scene::new();
    let path = scene.file().display().to_string();
    let start = || {
        let worker = worker(&["--policies", &path]).register("thumbnail", nothing);
        worker.prepare().map(|_| ())
    };
    let refusal = start().unwrap_err();
    assert_eq!(refusal.code, 2);
    assert!(refusal.to_string().contains("No such file"), "{refusal}");
    scene.write("[default]\nmax_attempts = 0\n");
    let refusal = start().unwrap_err();
    assert_eq!(refusal.code, 2);
    assert!(
        refusal.to_string().contains("max_attempts is 0"),
        "{refusal}"
    );
    scene.write("");
    start().unwrap();
}

#[tokio::test]
async fn a_changed_file_comes_into_force_and_a_wrong_one_changes_nothing() {
    let scene = Scene::new();
    let policies = scene.load("[type.thumbnail]\nmax_attempts = 4\n").unwrap();
    let mut heard = policies.subscribe();
    let Found::Handler(thumbnail) = scene.registry.find("thumbnail") else {
        panic!("thumbnail is not registered");
    };
    assert_eq!(heard.borrow_and_update().get(thumbnail).max_attempts, 4);
    let following = tokio::spawn(policies.follow(OFTEN, PolicyMetrics::new()));

    scene.write("[type.thumbnail]\nmax_attempts = 5\n");
    tokio::time::timeout(PATIENCE, heard.changed())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(heard.borrow_and_update().get(thumbnail).max_attempts, 5);

    let refusals = || {
        let text = millrace_telemetry::render();
        let line = text
            .lines()
            .find(|l| l.starts_with("millrace_policies_errors_total "));
        line.unwrap()
            .rsplit(' ')
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    scene.write("[type.thumbnail]\nmax_attempts = 0\n");
    super::stage::until("the wrong file is refused", || refusals() == 1).await;
    std::fs::remove_file(scene.file()).unwrap();
    super::stage::until("the missing file is refused", || refusals() == 2).await;
    assert!(!heard.has_changed().unwrap());
    assert_eq!(heard.borrow().get(thumbnail).max_attempts, 5);

    scene.write("[type.thumbnail]\nmax_attempts = 6\n");
    tokio::time::timeout(PATIENCE, heard.changed())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(heard.borrow_and_update().get(thumbnail).max_attempts, 6);
    assert_eq!(refusals(), 2, "each wrong file is refused once");
    following.abort();
}
