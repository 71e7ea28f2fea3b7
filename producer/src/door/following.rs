//! Following tasks: each change of how they stand, until they have ended.
//!
//! What is told are states, not steps, so one that was missed is made up for by the next. A state has a name,
//! the same at every front door; whoever comes back with it is told only what is new.

use std::sync::Arc;
use std::time::Duration;

use millrace_schemas::TaskId;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::lookup::Standing;
use super::refusal::{Kind, Refusal};
use super::state::Door;

/// How long whoever follows may take to read what it was told.
pub(crate) const SLOWEST_READER: Duration = Duration::from_secs(30);
/// News that may wait for a reader.
pub(crate) const NEWS_WAITING: usize = 16;

/// News of one task: how it stands, or that nothing is known of it, or nothing any more.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub id: TaskId,
    pub seen: Result<Standing, Refusal>,
}

impl Told {
    /// Whether nothing more will come of it.
    pub(crate) fn is_last(&self) -> bool {
        match &self.seen {
            Ok(standing) => standing.status().is_terminal(),
            Err(_) => true,
        }
    }

    /// The state's name.
    pub(crate) fn state(&self) -> String {
        let text = match &self.seen {
            Ok(Standing::Ended(end)) => format!(
                "{} {} {} {}",
                end.status.as_str(),
                end.run,
                end.attempts,
                end.completed_ms
            ),
            Ok(Standing::Open(status)) => format!(
                "{} {} {} {:?} {:?} {:?} {}",
                status.status.as_str(),
                status.run,
                status.attempts,
                status.progress,
                status.note,
                status.due_at,
                status.cancel_requested
            ),
            Err(refusal) => refusal.kind.name().to_owned(),
        };
        let digest = blake3::hash(format!("{} {text}", self.id).as_bytes()).to_hex();
        digest.as_str().get(..16).unwrap_or_default().to_owned()
    }
}

/// Follows one task for a tenant until it ends; `known` is the state that need not be told.
pub(crate) async fn follow(
    door: Arc<Door>,
    tenant: Box<str>,
    id: TaskId,
    known: Option<String>,
    news: mpsc::Sender<Told>,
) {
    let mut wait = door.waiting.wait(id, true);
    let mut last = known;
    // Without an answer the rounds of those who wait find one later.
    let mut standing = door.lookup.standing_now(id).await.ok();
    loop {
        if let Some(standing) = standing.take() {
            let told = Told {
                id,
                seen: standing.seen_by(Some(&tenant)),
            };
            let (is_last, state) = (told.is_last(), told.state());
            if last.as_ref() != Some(&state) {
                last = Some(state);
                let sent = timeout(SLOWEST_READER, news.send(told)).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
            if is_last {
                return;
            }
        }
        tokio::select! {
            next = wait.next() => standing = Some(next),
            () = news.closed() => return,
            () = door.closing.cancelled() => return,
        }
    }
}

/// Whether one stream may follow so many tasks.
///
/// # Errors
/// It may not.
pub(crate) fn most_followed(door: &Door, count: usize) -> Result<(), Refusal> {
    let most = door.bounds.bulk_tasks;
    if count > most {
        return Err(Refusal::new(
            Kind::TooLarge,
            format!("{count} tasks are more than the {most} that one stream follows"),
        ));
    }
    Ok(())
}
