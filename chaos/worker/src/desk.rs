//! Follows a task's orders and writes down what happens, before it happens.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use millrace_chaos::journal::{Attempt, Event, How, Journal};
use millrace_chaos::orders::{Act, Orders};
use millrace_chaos::sender::NUMBER_HEADER;
use millrace_consumer::{CancelReason, Context, TaskError};
use serde::Serialize;

/// The journal, and the count of aborts, of one round.
pub struct Desk {
    journal: Journal,
    aborts: PathBuf,
}

/// The result of a task that succeeds; the same as [`Orders::answer`].
#[derive(Debug, Serialize)]
pub struct Answer {
    done: u32,
}

/// One attempt in the journal. Its end is written when the handler says how it ended, or else when it is
/// dropped.
struct Entry<'a> {
    journal: &'a Journal,
    attempt: Attempt,
    open: bool,
}

impl Desk {
    /// In the folder that `CHAOS_DIR` names.
    pub fn open() -> io::Result<Self> {
        let dir = std::env::var_os("CHAOS_DIR").map(PathBuf::from);
        let dir = dir.ok_or_else(|| io::Error::other("it is not set"))?;
        let aborts = dir.join("aborts");
        std::fs::create_dir_all(&aborts)?;
        Ok(Self {
            journal: Journal::open(&dir.join("journal"))?,
            aborts,
        })
    }

    /// Makes one attempt.
    pub async fn follow(&self, orders: &Orders, context: &Context) -> Result<Answer, TaskError> {
        let attempt = attempt(context);
        let entry = Entry::open(&self.journal, attempt);
        let done = Ok(Answer { done: orders.n });
        match orders.act(attempt.attempt) {
            Act::Ok => {}
            Act::Slow(ms) => tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(ms.into())) => {}
                reason = context.cancelled() => return entry.stop(reason),
            },
            Act::Fail => {
                entry.close(How::Fail);
                return Err(TaskError::retry("by plan"));
            }
            Act::FailFor(ms) => {
                entry.close(How::Fail);
                let delay = Duration::from_millis(ms.into());
                return Err(TaskError::retry("by plan, with a delay").after(delay));
            }
            Act::Permanent => {
                entry.close(How::Permanent);
                return Err(TaskError::permanent("by plan, for good"));
            }
            Act::Panic => fall_over(),
            Act::Hang => return entry.stop(context.cancelled().await),
            Act::Abort(times) => {
                if self.one_more_abort(orders.n, times) {
                    std::process::abort();
                }
            }
        }
        entry.close(How::Ok);
        done
    }

    /// True while the task was started fewer than `times` times; each start is a byte of its file.
    fn one_more_abort(&self, n: u32, times: u32) -> bool {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.aborts.join(n.to_string()));
        let counted = file.and_then(|mut file| {
            let starts = file.metadata()?.len();
            file.write_all(b".")?;
            Ok(starts < u64::from(times))
        });
        counted.unwrap_or(false)
    }
}

impl<'a> Entry<'a> {
    fn open(journal: &'a Journal, attempt: Attempt) -> Self {
        note(journal, &Event::Start(attempt));
        Self {
            journal,
            attempt,
            open: true,
        }
    }

    fn close(mut self, how: How) {
        self.open = false;
        note(self.journal, &Event::End(self.attempt, how));
    }

    fn stop(self, reason: CancelReason) -> Result<Answer, TaskError> {
        self.close(if reason == CancelReason::Timeout {
            How::TimedOut
        } else {
            How::Stopped
        });
        Err(TaskError::retry("told to stop"))
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if self.open {
            let how = if std::thread::panicking() {
                How::Panic
            } else {
                How::Stopped
            };
            note(self.journal, &Event::End(self.attempt, how));
        }
    }
}

fn attempt(context: &Context) -> Attempt {
    let token = context.fencing_token();
    let record = context.header(NUMBER_HEADER).unwrap_or_default();
    let record = std::str::from_utf8(record).ok();
    Attempt {
        pid: std::process::id(),
        task: context.task_id().as_uuid(),
        record: record
            .and_then(|number| number.parse().ok())
            .unwrap_or(usize::MAX),
        run: u16::try_from(context.run()).unwrap_or(u16::MAX),
        attempt: context.attempt(),
        partition: token.partition,
        seq: token.seq,
    }
}

/// A journal that misses a line would accuse the innocent: better no worker than that.
fn note(journal: &Journal, event: &Event) {
    if let Err(error) = journal.write(event) {
        eprintln!("error: the journal: {error}");
        std::process::exit(2);
    }
}

#[expect(clippy::panic, reason = "a handler that panics is part of the plan")]
fn fall_over() {
    panic!("by plan")
}
