//! The scout: looks up in the tables what has to be known of tasks before they are started.
//!
//! It has a connection of its own, answers one batch after the other, and waits out an outage: tasks whose
//! look-up is not answered wait, and no attempt is spent.

use std::collections::HashMap;
use std::time::Duration;

use millrace_store::days::Retention;
use millrace_store::known::{self, Known, Question};
use millrace_store::position::Consumer;
use millrace_store::{Database, Purpose, Trouble};
use sqlx::PgConnection;
use tokio::sync::mpsc;

use super::floor::News;
use crate::engine::LaneKey;

/// How long until a look-up that failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// Longest that one look-up may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// One question, with what the owner needs to find the task again.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The seq at the claim under which it is asked.
    pub token: i64,
    /// The task's lane.
    pub lane: LaneKey,
    /// What is asked.
    pub question: Question,
}

/// A batch of answers, one for each question, in order.
pub type Answers = Vec<(Asked, Known)>;

/// The owner's end of the scout.
#[derive(Debug)]
pub struct Scout {
    batches: mpsc::UnboundedSender<Vec<Asked>>,
    waiting: Vec<Asked>,
    away: bool,
    /// Questions without an answer, by partition.
    open: HashMap<i32, usize>,
}

impl Scout {
    /// Starts the scout's task.
    #[must_use]
    pub fn start(
        database: Database,
        consumer: Consumer,
        retention: Retention,
        answers: mpsc::UnboundedSender<News>,
    ) -> Self {
        let (batches, mut queue) = mpsc::unbounded_channel::<Vec<Asked>>();
        tokio::spawn(async move {
            let mut connection = None;
            while let Some(batch) = queue.recv().await {
                let questions: Vec<Question> =
                    batch.iter().map(|asked| asked.question.clone()).collect();
                let known = loop {
                    let looked = look(&database, &mut connection, &consumer, retention, &questions);
                    let trouble = match tokio::time::timeout(DEADLINE, looked).await {
                        Ok(Ok(known)) => break known,
                        Ok(Err(trouble)) => trouble,
                        Err(_) => Trouble::Outage(format!("a look-up took over {DEADLINE:?}")),
                    };
                    connection = None;
                    tracing::warn!(error = %trouble, tasks = batch.len(), "looking tasks up failed: trying again, they wait");
                    tokio::select! {
                        () = tokio::time::sleep(AGAIN) => {}
                        () = answers.closed() => return,
                    }
                };
                let known = News::Known(batch.into_iter().zip(known).collect());
                if answers.send(known).is_err() {
                    return;
                }
            }
        });
        Self {
            batches,
            waiting: Vec::new(),
            away: false,
            open: HashMap::new(),
        }
    }

    /// Adds a question to the next batch.
    pub fn ask(&mut self, asked: Asked) {
        *self.open.entry(asked.question.partition).or_default() += 1;
        self.waiting.push(asked);
    }

    /// Sends the next batch, unless one is being answered.
    pub fn send(&mut self) {
        if !self.away && !self.waiting.is_empty() {
            // The scout ends only when the owner does.
            self.away = self.batches.send(std::mem::take(&mut self.waiting)).is_ok();
        }
    }

    /// Takes in that a batch was answered.
    pub fn answered(&mut self, answers: &Answers) {
        self.away = false;
        for (asked, _) in answers {
            let partition = asked.question.partition;
            if let Some(open) = self.open.get_mut(&partition) {
                *open -= 1;
                if *open == 0 {
                    self.open.remove(&partition);
                }
            }
        }
    }

    /// Whether some task of a partition waits for an answer.
    #[must_use]
    pub fn is_busy_for(&self, partition: i32) -> bool {
        self.open.contains_key(&partition)
    }
}

/// One attempt at a look-up. The connection is kept only after an answer: a cancelled query leaves it dirty.
async fn look(
    database: &Database,
    kept: &mut Option<PgConnection>,
    consumer: &Consumer,
    retention: Retention,
    questions: &[Question],
) -> Result<Vec<Known>, Trouble> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => database.connect(Purpose::Operations).await?,
    };
    let known = known::ask(&mut connection, consumer, retention, questions).await?;
    *kept = Some(connection);
    Ok(known)
}
