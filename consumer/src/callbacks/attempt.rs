//! One attempt: the post, signed, and what follows from its answer.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_store::callbacks::{Attempted, Callback, Next};
use millrace_store::finished::Finished;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, StatusCode};
use tokio_util::sync::CancellationToken;

use super::sender::CallbackSettings;
use super::{guard, message, schedule, signature};

/// How long one attempt may take.
pub(super) const ATTEMPT: Duration = Duration::from_secs(20);
/// When one that the worker's end cut off is made up for, where the schedule knows of no further one.
const MADE_UP: Duration = Duration::from_secs(60);

/// Who posts: shared by all attempts of one worker.
#[derive(Clone)]
pub(super) struct Poster {
    pub(super) client: Client,
    pub(super) settings: CallbackSettings,
    /// Ends attempts without waiting for their answers.
    pub(super) cut: CancellationToken,
}

impl Poster {
    /// Posts a callback once; `end` is how its task ended, if it still has.
    pub(super) async fn attempt(self, callback: Callback, end: Option<Finished>) -> Attempted {
        let began = Instant::now();
        let post = self.post(&callback, end.as_ref());
        let attempt = match self.cut.run_until_cancelled(post).await {
            Some(Ok((status, headers))) => Answer {
                error: (!status.is_success()).then(|| format!("the target answered {status}")),
                status: Some(status),
                asked: retry_after(&headers),
                further: Further::Scheduled,
            },
            Some(Err(answer)) => answer,
            None => Answer {
                further: Further::Owed,
                ..Answer::failed("the worker was stopped before the target answered")
            },
        };
        let made = usize::try_from(callback.attempts).unwrap_or(0) + 1;
        let chance = f64::from(rand_byte()) / 255.0;
        let next = match attempt.status {
            Some(status) if status.is_success() => Next::Delivered,
            Some(StatusCode::GONE) => Next::Disable,
            _ => {
                let scale = self.settings.schedule_scale;
                let wait = schedule::wait(made, scale, chance, attempt.asked);
                match attempt.further {
                    Further::Scheduled => wait.map_or(Next::GiveUp, Next::Again),
                    Further::Useless => Next::GiveUp,
                    Further::Owed => Next::Again(wait.unwrap_or(MADE_UP)),
                }
            }
        };
        Attempted {
            id: callback.id,
            until: callback.until,
            status_code: attempt.status.map(|status| status.as_u16()),
            error: attempt.error,
            took: began.elapsed(),
            next,
        }
    }

    async fn post(
        &self,
        callback: &Callback,
        end: Option<&Finished>,
    ) -> Result<(StatusCode, HeaderMap), Answer> {
        if callback.is_disabled {
            return Err(Answer {
                status: Some(StatusCode::GONE),
                ..Answer::failed("the target said that it wants no more")
            });
        }
        let url = guard::url(&callback.target, self.settings.allow_private)
            .map_err(|refused| Answer::refused(refused.to_string()))?;
        // A later end of the task writes a callback of its own.
        let end = end.ok_or_else(|| Answer::refused("the task has no result any more"))?;
        if end.run != callback.run {
            return Err(Answer::refused(
                "the task was sent to work again, and ended again, before this was delivered",
            ));
        }
        if callback.secrets.is_empty() {
            return Err(Answer::failed(format!(
                "tenant {} has no secret to sign with: `consumer callbacks secret create` makes one",
                callback.tenant
            )));
        }
        let body = message::body(callback, end);
        let id = message::id(callback);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let timestamp = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let signature = signature::sign(&callback.secrets, &id, timestamp, &body);
        let sent = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body)
            .send()
            .await;
        match sent {
            // The body is of no interest, and may be endless.
            Ok(answer) => Ok((answer.status(), answer.headers().clone())),
            Err(error) => Err(Answer::failed(words(&error))),
        }
    }
}

/// What came of an attempt.
struct Answer {
    status: Option<StatusCode>,
    error: Option<String>,
    asked: Option<Duration>,
    further: Further,
}

/// Whether another attempt follows.
#[derive(Clone, Copy)]
enum Further {
    /// As long as the schedule goes.
    Scheduled,
    /// It would end the same.
    Useless,
    /// Whatever the schedule says: the target is not to blame.
    Owed,
}

impl Answer {
    fn failed(error: impl Into<String>) -> Self {
        Self {
            status: None,
            error: Some(error.into()),
            asked: None,
            further: Further::Scheduled,
        }
    }

    fn refused(error: impl Into<String>) -> Self {
        Self {
            further: Further::Useless,
            ..Self::failed(error)
        }
    }
}

/// The error and what is behind it, without the target's address, which may hold a secret.
fn words(error: &reqwest::Error) -> String {
    let mut words = if error.is_timeout() {
        format!("no answer within {} s", ATTEMPT.as_secs())
    } else if error.is_connect() {
        "cannot connect".to_owned()
    } else {
        "the request failed".to_owned()
    };
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    words
}

/// When the target wants to be asked again: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = chrono::DateTime::parse_from_rfc2822(text).ok()?;
    (date.to_utc() - chrono::Utc::now()).to_std().ok()
}

fn rand_byte() -> u8 {
    let [byte, ..] = *uuid::Uuid::new_v4().as_bytes();
    byte
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test states what must hold")]

    use millrace_schemas::TaskId;
    use millrace_store::finished::Returned;
    use millrace_store::results::StatusWord;

    use super::*;

    fn callback(run: i16) -> Callback {
        Callback {
            id: 1,
            task_id: TaskId::mint(),
            run,
            tenant: "acme".to_owned(),
            // Nobody listens there: what is posted fails, and would be tried again.
            target: "http://127.0.0.1:1/hook".to_owned(),
            attempts: 0,
            secrets: vec![crate::callbacks::mint_secret()],
            is_disabled: false,
            host: "127.0.0.1:1".to_owned(),
            until: chrono::Utc::now(),
        }
    }

    fn end(run: i16) -> Finished {
        Finished {
            status: StatusWord::Success,
            tenant: "acme".into(),
            task_type: "t".into(),
            run,
            attempts: 1,
            submitted_ms: 0,
            completed_ms: 1,
            duplicate_of: None,
            returned: Returned::Nothing { error: None },
        }
    }

    fn poster() -> Poster {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Poster {
            client: Client::new(),
            settings: CallbackSettings {
                allow_private: true,
                schedule_scale: 1.0,
                shutdown_deadline: Duration::ZERO,
            },
            cut: CancellationToken::new(),
        }
    }

    #[tokio::test]
    async fn an_attempt_that_the_workers_end_cut_off_is_never_the_last() {
        let poster = poster();
        poster.cut.cancel();
        for attempts in [0, 9] {
            let callback = Callback {
                attempts,
                ..callback(0)
            };
            let ended = poster.clone().attempt(callback, Some(end(0))).await;
            assert!(matches!(ended.next, Next::Again(_)), "{ended:?}");
        }
    }

    #[tokio::test]
    async fn a_late_callback_does_not_tell_of_a_later_run() {
        let poster = poster();
        let same = poster.clone().attempt(callback(1), Some(end(1))).await;
        assert!(matches!(same.next, Next::Again(_)), "{same:?}");
        let later = poster.clone().attempt(callback(0), Some(end(1))).await;
        assert_eq!(later.next, Next::GiveUp);
        assert!(later.error.unwrap().contains("ended again"));
        let none = poster.attempt(callback(0), None).await;
        assert_eq!(none.next, Next::GiveUp);
    }
}
