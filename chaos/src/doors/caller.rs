//! One caller: hands a task over, waits for its result, hands the next one over.
//!
//! What a front door's death leaves open is asked again at another one: with an idempotency key until it is
//! known, without one not at all, since nothing was promised then.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longest that one request may take: the longest wait that is asked for, and some.
const REQUEST: Duration = Duration::from_secs(30);
/// The wait that is asked for.
const WAIT: &str = "10s";
/// Before the same is asked again.
const PAUSE: Duration = Duration::from_millis(50);
/// Every so many tasks with a key are handed over once more after they were accepted.
const AGAIN: usize = 3;

/// What callers were told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Tasks that were handed over.
    pub asked: usize,
    /// Requests without an answer, or with one that said to come again.
    pub unanswered: usize,
    /// The ids of answers 202, with what was handed over.
    pub accepted: BTreeMap<Uuid, String>,
    /// All ids that an idempotency key was answered with.
    pub by_key: BTreeMap<String, BTreeSet<Uuid>>,
    /// What is not as promised.
    pub violations: Vec<String>,
}

impl Told {
    pub(super) fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.unanswered += other.unanswered;
        self.accepted.extend(other.accepted);
        self.by_key.extend(other.by_key);
        self.violations.extend(other.violations);
    }
}

/// See the module.
pub(super) struct Caller {
    number: usize,
    doors: Vec<SocketAddr>,
    turn: usize,
    hang_up: CancellationToken,
    patience: Duration,
    told: Told,
}

/// A whole answer.
struct Answer {
    status: u16,
    content_type: String,
    body: Bytes,
}

impl Caller {
    /// Calls the doors in turn until `hang_up`; what it has begun by then it ends, within `patience`.
    pub(super) fn new(
        number: usize,
        doors: Vec<SocketAddr>,
        hang_up: CancellationToken,
        patience: Duration,
    ) -> Self {
        Self {
            number,
            doors,
            turn: number,
            hang_up,
            patience,
            told: Told::default(),
        }
    }

    /// Calls. What it was told.
    pub(super) async fn call(mut self) -> Told {
        let mut count = 0;
        while !self.hang_up.is_cancelled() {
            let name = format!("{}-{count}", self.number);
            let has_key = count % 2 == 0;
            if let Some(id) = self.hand_over(&name, has_key).await {
                if has_key && count % (2 * AGAIN) == 0 {
                    self.hand_over(&name, true).await;
                }
                self.await_result(id, &name).await;
            }
            count += 1;
        }
        self.told
    }

    /// Hands a task over; its id once it is accepted.
    async fn hand_over(&mut self, name: &str, has_key: bool) -> Option<Uuid> {
        self.told.asked += 1;
        let mut task = json!({"type": "door.test", "payload": {"name": name}, "key": name});
        if has_key && let Some(fields) = task.as_object_mut() {
            fields.insert("idempotency_key".to_owned(), json!(name));
        }
        let body = Bytes::from(task.to_string());
        let mut deadline = Deadline::new(self.patience);
        loop {
            let answer = self
                .request(Method::POST, "/v1/task/submit", body.clone())
                .await;
            let id = answer.as_ref().filter(|a| a.status == 202).and_then(id_of);
            if let Some(id) = id {
                self.told.accepted.insert(id, name.to_owned());
                if has_key {
                    let ids = self.told.by_key.entry(name.to_owned()).or_default();
                    ids.insert(id);
                }
                return Some(id);
            }
            match answer {
                Some(answer) if answer.says_later() => {}
                // The first request with this key is still at it, or its front door has died.
                Some(answer) if answer.status == 409 && has_key && answer.is_problem() => {}
                Some(answer) => {
                    let what = format!("handing {name} over was answered {}", answer.text());
                    self.told.violations.push(what);
                    return None;
                }
                None => {}
            }
            self.told.unanswered += 1;
            if !has_key {
                return None;
            }
            if deadline.is_over(&self.hang_up) {
                let what = format!("key {name} was not taken in time");
                self.told.violations.push(what);
                return None;
            }
            sleep(PAUSE).await;
        }
    }

    async fn await_result(&mut self, id: Uuid, name: &str) {
        let path = format!("/v1/task/{id}/result?wait={WAIT}");
        let mut deadline = Deadline::new(self.patience);
        loop {
            match self.request(Method::GET, &path, Bytes::new()).await {
                Some(answer) if answer.status == 200 => {
                    let found: Option<Value> = serde_json::from_slice(&answer.body).ok();
                    if found != Some(json!({"name": name})) {
                        let what = format!("the result of {name} ({id}) is {}", answer.text());
                        self.told.violations.push(what);
                    }
                    return;
                }
                Some(answer) if answer.status == 202 => {}
                Some(answer) if answer.says_later() => self.told.unanswered += 1,
                Some(answer) => {
                    let what = format!("asking for {name} ({id}) was answered {}", answer.text());
                    self.told.violations.push(what);
                    return;
                }
                None => self.told.unanswered += 1,
            }
            if deadline.is_over(&self.hang_up) {
                let what = format!("nobody told the result of {name} ({id}) in time");
                self.told.violations.push(what);
                return;
            }
            sleep(PAUSE).await;
        }
    }

    /// Asks the next door. `None` when it is not there, or was gone before it had answered.
    async fn request(&mut self, method: Method, path: &str, body: Bytes) -> Option<Answer> {
        self.turn += 1;
        let door = *self.doors.get(self.turn % self.doors.len().max(1))?;
        match timeout(REQUEST, exchange(door, method, path, body)).await {
            Ok(answer) => answer.ok(),
            Err(_) => {
                let what = format!("{path} had no answer within {} s", REQUEST.as_secs());
                self.told.violations.push(what);
                None
            }
        }
    }
}

/// Counts from the moment when nothing is killed any more.
struct Deadline {
    patience: Duration,
    at: Option<Instant>,
}

impl Deadline {
    const fn new(patience: Duration) -> Self {
        Self { patience, at: None }
    }

    fn is_over(&mut self, hang_up: &CancellationToken) -> bool {
        if !hang_up.is_cancelled() {
            return false;
        }
        let now = Instant::now();
        now >= *self.at.get_or_insert(now + self.patience)
    }
}

impl Answer {
    fn is_problem(&self) -> bool {
        self.content_type.starts_with("application/problem+json")
            && serde_json::from_slice::<Value>(&self.body).is_ok_and(|body| {
                body.get("type").is_some_and(Value::is_string)
                    && body.get("detail").is_some_and(Value::is_string)
            })
    }

    /// Whether it asks to come again, in the documented way.
    fn says_later(&self) -> bool {
        matches!(self.status, 429 | 503) && self.is_problem()
    }

    fn text(&self) -> String {
        format!(
            "{} {}: {}",
            self.status,
            self.content_type,
            String::from_utf8_lossy(&self.body)
        )
    }
}

fn id_of(answer: &Answer) -> Option<Uuid> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    body.get("task_id")?.as_str()?.parse().ok()
}

/// One request on a connection of its own, so that it meets whoever listens now.
async fn exchange(
    door: SocketAddr,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(door).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with its sender; what goes wrong is seen there.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, door.to_string())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let content_type = head.headers.get(CONTENT_TYPE);
    Ok(Answer {
        status: head.status.as_u16(),
        content_type: content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
        body: body.collect().await?.to_bytes(),
    })
}
