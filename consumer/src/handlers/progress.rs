//! What handlers say of their progress, on its way to the owner.
//!
//! Saying it never waits. However often a handler does, at most one note of its attempt is on the way: the
//! latest. So what is held is bounded by the attempts that run.

use std::sync::{Arc, PoisonError};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::attempt::Attempt;

/// Most bytes of a note that are kept.
pub const NOTE_BYTES: usize = 500;

/// How far an attempt has come.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgressNote {
    /// The owner's name for the attempt.
    pub ticket: u64,
    /// 0 to 1.
    pub fraction: f32,
    /// What it is doing.
    pub note: Box<str>,
}

/// The owner's end.
#[derive(Debug)]
pub struct ProgressNotes(UnboundedReceiver<Arc<Attempt>>);

/// The attempts' end.
#[derive(Debug, Clone)]
pub(super) struct Announcer(UnboundedSender<Arc<Attempt>>);

pub(super) fn channel() -> (Announcer, ProgressNotes) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Announcer(sender), ProgressNotes(receiver))
}

impl Announcer {
    pub(super) fn announce(&self, attempt: Arc<Attempt>) {
        // Without an owner nobody wants to know.
        let _ = self.0.send(attempt);
    }
}

impl ProgressNotes {
    /// The next note; `None` once the executor and all attempts are gone. May be dropped while it waits.
    pub async fn recv(&mut self) -> Option<ProgressNote> {
        loop {
            if let Some(note) = latest(&*self.0.recv().await?) {
                return Some(note);
            }
        }
    }

    /// The next note that is there already.
    pub fn try_recv(&mut self) -> Option<ProgressNote> {
        loop {
            if let Some(note) = latest(&*self.0.try_recv().ok()?) {
                return Some(note);
            }
        }
    }
}

fn latest(attempt: &Attempt) -> Option<ProgressNote> {
    let (fraction, note) = attempt
        .note
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()?;
    (!attempt.signal.is_abandoned()).then_some(ProgressNote {
        ticket: attempt.ticket,
        fraction,
        note,
    })
}
