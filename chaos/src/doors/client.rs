//! A caller's way to the front doors: each request goes to the next one, and whatever comes back is one of four
//! things: an answer, a documented refusal, a cut by a kill, or something that is not as promised.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::http::{self, Answer, Ask, Broken, Opened};
use super::lives::{Excuse, Lives, Visit};
use super::refusal::Refusal;
use super::told::Told;

/// Longest that one request may take: the longest wait that is asked for, and some.
pub(super) const REQUEST: Duration = Duration::from_secs(30);
/// Before the same is asked again.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// What came back.
#[derive(Clone)]
pub(super) enum Said<T> {
    /// An answer.
    Yes(T),
    /// A documented refusal.
    No(Refusal),
    /// Nothing: the front door was killed meanwhile, or was not there.
    Cut(Excuse),
    /// Not as promised, which is noted.
    Wrong,
}

impl<T> Said<T> {
    /// The same of another type, of what is no answer.
    pub(super) fn unanswered<U>(self) -> Said<U> {
        self.and_then(|_| Said::Wrong)
    }

    pub(super) fn and_then<U>(self, then: impl FnOnce(T) -> Said<U>) -> Said<U> {
        match self {
            Self::Yes(found) => then(found),
            Self::No(refusal) => Said::No(refusal),
            Self::Cut(excuse) => Said::Cut(excuse),
            Self::Wrong => Said::Wrong,
        }
    }
}

/// See the module.
pub(super) struct Client {
    lives: Arc<Lives>,
    turn: usize,
    hang_up: CancellationToken,
    patience: Duration,
    /// What was told so far.
    pub told: Told,
}

impl Client {
    /// Goes on within `patience` after `hang_up` with what it has begun by then.
    pub(super) fn new(
        lives: Arc<Lives>,
        turn: usize,
        hang_up: CancellationToken,
        patience: Duration,
    ) -> Self {
        Self {
            lives,
            turn,
            hang_up,
            patience,
            told: Told::default(),
        }
    }

    /// Another one, that goes to the front door after that of this one.
    pub(super) fn beside(&self) -> Self {
        Self::new(
            self.lives.clone(),
            self.turn + 1,
            self.hang_up.clone(),
            self.patience,
        )
    }

    /// Whether it is to hang up.
    pub(super) fn is_over(&self) -> bool {
        self.hang_up.is_cancelled()
    }

    pub(super) fn deadline(&self) -> Deadline {
        Deadline {
            hang_up: self.hang_up.clone(),
            patience: self.patience,
            at: None,
        }
    }

    /// Turns to the next front door.
    pub(super) fn visit(&mut self) -> Option<Visit> {
        self.turn += 1;
        self.lives.visit(self.turn)
    }

    /// A connection broke: an excuse, or a violation.
    pub(super) fn broke<T>(&mut self, visit: Visit, asked: &str, why: &Broken) -> Said<T> {
        if let Some(excuse) = self.lives.excuse(visit) {
            return Said::Cut(excuse);
        }
        let address = visit.address;
        self.wrong(format!(
            "{asked}: the connection to {address} broke, which nobody had killed: {why:?}"
        ))
    }

    pub(super) fn wrong<T>(&mut self, what: impl Into<String>) -> Said<T> {
        self.told.violation(what);
        Said::Wrong
    }

    pub(super) fn slow<T>(&mut self, visit: Visit, asked: &str) -> Said<T> {
        let (limit, address) = (REQUEST.as_secs(), visit.address);
        self.wrong(format!("{asked}: no answer of {address} within {limit} s"))
    }

    /// Asks the next front door.
    pub(super) async fn ask(&mut self, ask: Ask) -> Said<Answer> {
        let Some(visit) = self.visit() else {
            return self.wrong("there are no front doors");
        };
        let asked = format!("{} {}", ask.method, ask.path);
        let answer = async { http::open(visit.address, ask).await?.whole().await };
        match timeout(REQUEST, answer).await {
            Ok(Ok(answer)) => self.read(answer, &asked),
            Ok(Err(why)) => self.broke(visit, &asked, &why),
            Err(_) => self.slow(visit, &asked),
        }
    }

    /// Asks the next front door for a stream.
    pub(super) async fn open(&mut self, ask: Ask) -> Said<(Visit, Opened)> {
        let Some(visit) = self.visit() else {
            return self.wrong("there are no front doors");
        };
        let asked = format!("{} {}", ask.method, ask.path);
        match timeout(REQUEST, http::open(visit.address, ask)).await {
            Ok(Ok(opened)) if opened.status < 300 => Said::Yes((visit, opened)),
            Ok(Ok(opened)) => match timeout(REQUEST, opened.whole()).await {
                Ok(Ok(answer)) => self
                    .read(answer, &asked)
                    .and_then(|answer| self.wrong(format!("{asked}: {}", answer.text()))),
                Ok(Err(why)) => self.broke(visit, &asked, &why),
                Err(_) => self.slow(visit, &asked),
            },
            Ok(Err(why)) => self.broke(visit, &asked, &why),
            Err(_) => self.slow(visit, &asked),
        }
    }

    fn read(&mut self, answer: Answer, asked: &str) -> Said<Answer> {
        if answer.status < 300 {
            return Said::Yes(answer);
        }
        match Refusal::of_answer(&answer) {
            Ok(refusal) => Said::No(refusal),
            Err(text) => self.wrong(format!("{asked} is refused in no documented way: {text}")),
        }
    }
}

/// Counts from the moment when nothing is killed any more.
pub(super) struct Deadline {
    hang_up: CancellationToken,
    patience: Duration,
    at: Option<Instant>,
}

impl Deadline {
    pub(super) fn is_over(&mut self) -> bool {
        if !self.hang_up.is_cancelled() {
            return false;
        }
        let now = Instant::now();
        now >= *self.at.get_or_insert(now + self.patience)
    }
}
