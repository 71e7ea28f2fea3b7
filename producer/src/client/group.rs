//! Following one group of tasks until all have ended: by a stream, and by asking for those that no stream tells of.
//!
//! A stream that is refused or breaks fails no task: each is asked for, and a stream is tried again after pauses that
//! double. Where the front door lets fewer tasks be followed, the stream is for as many as it lets, and the others
//! are asked for meanwhile.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::error;
use super::following::Shared;
use super::gathering::STREAM_MOST;
use crate::v1::TaskState;
use crate::v1::task_state::Outcome;

/// The first and the longest pause while no stream can be had, and between questions.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A stream that says nothing for so long is opened anew: what is between may have lost it.
const SILENT: Duration = Duration::from_secs(300);
/// Tasks of a group that are asked for at a time.
const ASKED_AT_ONCE: usize = 4;

/// A stream that leaves tasks out is given up after so long, and a larger one is tried.
const LARGER_AFTER: Duration = Duration::from_secs(30);

/// That the front door refused a stream, and none is tried before a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    pub(super) until: Instant,
    pause: Duration,
}

/// How streams fare.
struct Course {
    /// The last pause before a stream was tried again; zero while streams can be had.
    pause: Duration,
    /// Tasks that a stream is tried for.
    most: usize,
    /// Tasks that one may be for at most, as far as is known.
    bound: usize,
}

impl Course {
    fn new(refused: Option<Refused>) -> Self {
        let recent = refused.filter(|refused| Instant::now() < refused.until + refused.pause);
        Self {
            pause: recent.map_or(Duration::ZERO, |refused| refused.pause),
            most: STREAM_MOST,
            bound: STREAM_MOST,
        }
    }

    fn slower(&mut self, wanted: Option<Duration>) {
        let pause = (self.pause * 2).max(wanted.unwrap_or_default());
        self.pause = pause.clamp(PAUSES.0, PAUSES.1);
    }

    /// A stream for so many was refused, or broke.
    fn refused(&mut self, status: &Status, tried: usize) -> Refused {
        self.slower(error::retry_after(status));
        let is_full = matches!(
            &*error::problem(status).kind,
            "rate-limited" | "unavailable"
        );
        if is_full {
            self.most = (tried / 2).max(1);
        }
        Refused {
            until: Instant::now() + self.pause,
            pause: self.pause,
        }
    }
}

/// Follows tasks until all have ended or nobody awaits them any more. `tell` hears when a stream is refused, and when
/// one is not.
pub(super) async fn follow(
    shared: Arc<Shared>,
    mut ids: Vec<String>,
    refused: Option<Refused>,
    tell: mpsc::UnboundedSender<Option<Refused>>,
) {
    let mut course = Course::new(refused);
    if let Some(refused) = refused
        && refused.until > Instant::now()
    {
        ask_all(&shared, &mut ids).await;
        tokio::time::sleep_until(refused.until).await;
    }
    while !ids.is_empty() {
        let began = Instant::now();
        let tried = course.most.min(ids.len());
        let (streamed, others) = ids.split_at(tried);
        let ended = tokio::select! {
            ended = by_stream(&shared, streamed, &tell) => ended,
            () = by_asking(&shared, others.to_vec()) => Ok(()),
        };
        if began.elapsed() > PAUSES.1 {
            course.pause = Duration::ZERO;
        }
        let others = others.len();
        match ended {
            Ok(()) => {
                course.most = (tried * 2).min(course.bound);
                course.slower(None);
            }
            Err(status) if tried > 1 && error::problem(&status).kind == "too-large" => {
                course.bound = tried / 2;
                course.most = course.bound;
                continue;
            }
            Err(status) => {
                // Nobody is there to hear it when the client is gone.
                let _ = tell.send(Some(course.refused(&status, tried)));
                ask_all(&shared, &mut ids).await;
            }
        }
        shared.retain_awaited(&mut ids);
        if ids.len() <= others {
            // It told all that it was to tell: the next may begin.
            course.pause = Duration::ZERO;
        } else {
            tokio::time::sleep(course.pause).await;
        }
    }
}

/// Follows tasks by one stream until it ends.
async fn by_stream(
    shared: &Shared,
    ids: &[String],
    tell: &mpsc::UnboundedSender<Option<Refused>>,
) -> Result<(), Status> {
    let mut states = shared.calls.watch(ids).await?;
    let _ = tell.send(None);
    while let Ok(told) = tokio::time::timeout(SILENT, states.message()).await {
        match told? {
            Some(state) => shared.tell(state),
            None => break,
        }
    }
    Ok(())
}

/// Asks for the tasks that a stream leaves out, until a larger one is to be tried; without such tasks it never ends.
async fn by_asking(shared: &Shared, mut ids: Vec<String>) {
    if ids.is_empty() {
        return pending().await;
    }
    let began = Instant::now();
    let mut pause = PAUSES.0;
    while began.elapsed() < LARGER_AFTER {
        ask_all(shared, &mut ids).await;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Asks for each task once, as long as there are answers; keeps those that have not ended, and of these first the
/// ones that were not asked for.
async fn ask_all(shared: &Shared, ids: &mut Vec<String>) {
    let calls = shared.calls.clone();
    let mut answers = stream::iter(ids.clone())
        .map(move |id| {
            let calls = calls.clone();
            async move { (calls.get(&id).await, id) }
        })
        .buffered(ASKED_AT_ONCE);
    let mut asked = 0;
    while let Some((answer, id)) = answers.next().await {
        asked += 1;
        match answer {
            Ok(state) => shared.tell(state),
            Err(status) if is_final(&status) => shared.tell(TaskState {
                task_id: id,
                outcome: Some(Outcome::Problem(error::problem(&status))),
                ..TaskState::default()
            }),
            // The front door is away: the others would fare no better.
            Err(_) => break,
        }
    }
    ids.rotate_left(asked);
    shared.retain_awaited(ids);
}

/// Whether asking again would give the same answer.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::NotFound | Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument
    )
}
