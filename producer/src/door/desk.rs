//! A desk at the database: questions that come at the same time are asked in one statement.
//!
//! While one statement is out, the next questions gather; so a lone question is asked at once, and ten thousand
//! a second cost some hundred statements. A desk has one connection, a bounded queue and a time limit for each
//! question: a full queue or a database that is away is told to whoever asks, and nothing waits for it.

use std::future::Future;
use std::time::Duration;

use millrace_store::{Database, Purpose, Trouble};
use sqlx::PgConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Questions that may wait at a desk.
const QUEUE: usize = 20_000;
/// How long a statement may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long whoever asks waits, for their turn included.
const LONGEST: Duration = Duration::from_secs(5);

/// What a desk is asked, and how it answers.
pub(crate) trait Clerk: Send + 'static {
    /// One question.
    type Question: Send + Sync + 'static;
    /// One answer.
    type Answer: Send + 'static;
    /// Most questions of one statement.
    const MOST: usize;

    /// Answers all questions, in their order.
    fn answer(
        &mut self,
        connection: &mut PgConnection,
        questions: &[Self::Question],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, Trouble>> + Send;
}

/// Why a desk gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// The database is away or too slow. What was asked may have been done, if it changes anything.
    #[error("the database did not answer")]
    Away,
    /// More is asked than the database answers.
    #[error("the database is asked more than it answers")]
    Crowded,
}

type Asked<C> = (
    <C as Clerk>::Question,
    oneshot::Sender<Result<<C as Clerk>::Answer, NoAnswer>>,
);

/// Where to ask. Clones lead to the same desk; it closes with the last one.
pub(crate) struct Desk<C: Clerk> {
    questions: mpsc::Sender<Asked<C>>,
}

impl<C: Clerk> Clone for Desk<C> {
    fn clone(&self) -> Self {
        Self {
            questions: self.questions.clone(),
        }
    }
}

impl<C: Clerk> Desk<C> {
    /// Opens a desk; it connects with its first question.
    pub(crate) fn open(database: Database, clerk: C) -> Self {
        let (questions, queue) = mpsc::channel(QUEUE);
        tokio::spawn(serve(database, clerk, queue));
        Self { questions }
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&self, question: C::Question) -> Result<C::Answer, NoAnswer> {
        let (sender, answer) = oneshot::channel();
        self.questions
            .try_send((question, sender))
            .map_err(|_| NoAnswer::Crowded)?;
        match timeout(LONGEST, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(NoAnswer::Away),
        }
    }
}

async fn serve<C: Clerk>(database: Database, mut clerk: C, mut queue: mpsc::Receiver<Asked<C>>) {
    let mut connection = None;
    let mut asked = Vec::new();
    while queue.recv_many(&mut asked, C::MOST).await > 0 {
        // Whoever went away meanwhile needs no answer.
        asked.retain(|(_, sender)| !sender.is_closed());
        let (questions, senders): (Vec<_>, Vec<_>) = asked.drain(..).unzip();
        if questions.is_empty() {
            continue;
        }
        let asked = answered(&database, &mut connection, &mut clerk, &questions);
        let answers = timeout(PATIENCE, asked).await.unwrap_or_else(|_| {
            let text = format!("no answer within {} s", PATIENCE.as_secs());
            Err(Trouble::Held(text))
        });
        match answers {
            Ok(answers) => {
                for (sender, answer) in senders.into_iter().zip(answers) {
                    let _ = sender.send(Ok(answer));
                }
            }
            Err(trouble) => {
                tracing::warn!(%trouble, "the database did not answer a front door's question");
                if matches!(trouble, Trouble::Outage(_) | Trouble::Held(_)) {
                    // Those that asked meanwhile would only wait for the same.
                    while let Ok((_, sender)) = queue.try_recv() {
                        let _ = sender.send(Err(NoAnswer::Away));
                    }
                }
                for sender in senders {
                    let _ = sender.send(Err(NoAnswer::Away));
                }
            }
        }
    }
}

/// Answers by the connection that is there, else by a new one. A connection that was idle may have died
/// without a word, so a failure on one that is not new is tried once more.
async fn answered<C: Clerk>(
    database: &Database,
    connection: &mut Option<PgConnection>,
    clerk: &mut C,
    questions: &[C::Question],
) -> Result<Vec<C::Answer>, Trouble> {
    loop {
        let (mut held, is_new) = match connection.take() {
            Some(held) => (held, false),
            None => (database.connect(Purpose::Desk).await?, true),
        };
        match clerk.answer(&mut held, questions).await {
            Ok(answers) => {
                *connection = Some(held);
                return Ok(answers);
            }
            Err(Trouble::Outage(_)) if !is_new => {}
            Err(trouble) => return Err(trouble),
        }
    }
}
