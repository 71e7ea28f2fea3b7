//! Tasks of up to 5 ms work in one partition: how much of it runs at once, by how many keys there are.
//!
//! The topic is filled first, then a worker starts; the clock is that of the pipeline, from the first claim to
//! the last row durable, so the first fetch and every flush count. The handler waits for as long as a task says
//! and measures how long that really was: timers wait up to a millisecond more than they are asked to. With one
//! key no two tasks run at once, so the sum of those times is what the machinery is measured against.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::ensure;
use millrace_schemas::{TaskEventRef, TaskId};
use serde::Serialize;

use crate::backlog::Backlog;
use crate::pipeline::{self, Drained, Load};
use crate::produce;
use crate::rows::{TENANT, scramble, unix_micros};
use crate::servers::Servers;
use crate::worker::Handler;

/// Tasks of a run.
pub const TASKS: u64 = 10_000;
/// The longest of them.
const MOST_MICROS: u64 = 5_000;
const TASK_TYPE: &str = "work";

/// A number of keys, and the best time that was published for it, on hardware that is not named.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Keys, taken in turn.
    pub keys: u64,
    /// The published time.
    pub published_seconds: f64,
}

/// What is measured.
pub const CASES: [Case; 3] = [
    Case {
        keys: 1_000,
        published_seconds: 2.06,
    },
    Case {
        keys: 100,
        published_seconds: 2.18,
    },
    Case {
        keys: 1,
        published_seconds: 26.7,
    },
];

/// One run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Worked {
    /// How many keys there were.
    pub keys: u64,
    /// The time that all handlers measured, added up.
    pub inside_seconds: f64,
    /// The run as a whole.
    pub run: Drained,
}

/// Works off as many tasks of this case, with one worker.
///
/// # Errors
/// When a part fails, the counts are not exact, or a task ran more than once.
pub async fn run(servers: &Servers, name: &str, case: Case) -> anyhow::Result<Worked> {
    let kafka = servers.kafka()?;
    kafka.create_topic(name, 1, &[]).await?;
    produce::run_apart(servers.topic(name)?, Arc::new(backlog(case.keys))).await?;
    let load = Load {
        topic: name,
        events: TASKS,
        repeats: 0,
        handler: Handler::Work(TASK_TYPE),
    };
    let (run, inside) = pipeline::run_and_hear(servers, name, load).await?;
    ensure!(
        inside.attempts == TASKS,
        "{TASKS} tasks took {} attempts",
        inside.attempts
    );
    kafka.delete_topic(name).await?;
    Ok(Worked {
        keys: case.keys,
        inside_seconds: inside.seconds,
        run,
    })
}

fn backlog(keys: u64) -> Backlog {
    let mut backlog = Backlog::default();
    let (mut key, mut payload) = (String::new(), String::new());
    for index in 0..TASKS {
        key.clear();
        payload.clear();
        // Writing into a String cannot fail.
        let _ = write!(key, "key-{}", index % keys);
        let _ = write!(payload, "{}", scramble(index) % (MOST_MICROS + 1));
        backlog.push(&TaskEventRef {
            task_id: TaskId::mint(),
            task_type: TASK_TYPE,
            tenant: TENANT,
            key: Some(&key),
            dedup_key: None,
            submitted_at: unix_micros(),
            run_at: None,
            deadline: None,
            content_type: "application/json",
            reply: false,
            callback: None,
            payload: payload.as_bytes(),
        });
    }
    backlog
}
