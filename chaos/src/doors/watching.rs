//! Following tasks to their end, by server-sent events or `Watch`. A stream that is cut is taken up at the next front
//! door; one that ends in order has told the end of every task.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::client::{Client, PAUSE, Said};
use super::http::Ask;
use super::refusal::Refusal;
use super::task::Task;
use super::told::Kind;

/// After so long without news it is asked whether there was any.
pub(super) const QUIET: Duration = Duration::from_secs(15);

/// What is followed.
pub(super) struct Followed {
    /// Tasks whose end was not told.
    pub open: BTreeSet<Uuid>,
    /// The last event of a stream of one task.
    last: Option<String>,
}

impl Client {
    /// Follows these tasks until the end of each was told; false when something is not as promised, which is noted.
    pub(super) async fn follow_to_the_end(&mut self, kind: Kind, tasks: &[(Uuid, Task)]) -> bool {
        let mut followed = Followed {
            open: tasks.iter().map(|(id, _)| *id).collect(),
            last: None,
        };
        let mut deadline = self.deadline();
        while !followed.open.is_empty() {
            let said = if kind == Kind::GrpcWatch {
                self.watch(&mut followed.open).await
            } else {
                self.events(kind, &mut followed).await
            };
            match said {
                Said::Yes(()) => {}
                Said::No(refusal) if refusal.says_later() => self.told.count(kind).later += 1,
                Said::No(refusal) => {
                    let why = refusal.text();
                    self.told
                        .violation(format!("{} is refused: {why}", kind.name()));
                    return false;
                }
                Said::Cut(excuse) => self.told.cut(kind, excuse),
                Said::Wrong => return false,
            }
            if deadline.is_over() {
                let open = &followed.open;
                let what = format!("{} did not tell the end of {open:?} in time", kind.name());
                self.told.violation(what);
                return false;
            }
            sleep(PAUSE).await;
        }
        true
    }

    /// One stream of events, to its end or until it has been quiet for some time.
    async fn events(&mut self, kind: Kind, followed: &mut Followed) -> Said<()> {
        let ids: Vec<String> = followed.open.iter().map(Uuid::to_string).collect();
        let ids = ids.join(",");
        let mut ask = Ask::get(if kind == Kind::ManyEvents {
            format!("/v1/events?ids={ids}")
        } else {
            format!("/v1/task/{ids}/events")
        });
        if let Some(last) = &followed.last {
            ask = ask.with("last-event-id", last.clone());
        }
        let (visit, mut stream) = match self.open(ask).await {
            Said::Yes(opened) => opened,
            other => return other.unanswered(),
        };
        let mut news = Instant::now();
        loop {
            let text = match timeout_at(news + QUIET, stream.piece(b"\n\n")).await {
                Ok(Ok(Some(text))) => text,
                Ok(Ok(None)) if followed.open.is_empty() => return Said::Yes(()),
                Ok(Ok(None)) => {
                    let open = &followed.open;
                    return self.wrong(format!("events ended without the end of {open:?}"));
                }
                Ok(Err(why)) => return self.broke(visit, "a stream of events", &why),
                Err(_) if followed.open.is_empty() => {
                    return self.wrong(format!("events of {ids} do not end after the last one"));
                }
                Err(_) => return self.quiet(&followed.open).await,
            };
            let text = String::from_utf8_lossy(&text);
            let Some(event) = Event::of(&text) else {
                continue;
            };
            news = Instant::now();
            let id = event.data.get("task_id").and_then(Value::as_str);
            let id: Option<Uuid> = id.and_then(|id| id.parse().ok());
            let status = event.data.get("status").and_then(Value::as_str);
            match (event.name, id, status) {
                ("status", Some(_), Some(_)) => {
                    followed.last = event.id.filter(|_| kind == Kind::Events);
                }
                ("end", Some(id), Some("success")) => _ = followed.open.remove(&id),
                ("error", ..) => match Refusal::of_problem(&event.data) {
                    Ok(refusal) => return Said::No(refusal),
                    Err(text) => return self.wrong(format!("events say {text}")),
                },
                _ => return self.wrong(format!("events say {text}")),
            }
        }
    }

    /// A stream has been quiet: no task that it follows may have ended for some time.
    pub(super) async fn quiet(&mut self, open: &BTreeSet<Uuid>) -> Said<()> {
        for id in open {
            if !self.must_be_open(*id).await {
                return Said::Wrong;
            }
        }
        Said::Yes(())
    }
}

/// A server-sent event.
#[derive(Debug, PartialEq)]
struct Event<'t> {
    name: &'t str,
    id: Option<String>,
    data: Value,
}

impl<'t> Event<'t> {
    /// `None` for a comment.
    fn of(text: &'t str) -> Option<Self> {
        let field = |name: &str| {
            let lines = &mut text.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let data = field("data")?;
        Some(Self {
            name: field("event").unwrap_or("message"),
            id: field("id").map(str::to_owned),
            data: serde_json::from_str(data).unwrap_or_else(|_| Value::from(data)),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_has_a_name_an_id_and_data_and_a_comment_is_none() {
        let text = "event: end\nid: 7f\ndata: {\"status\":\"success\"}";
        let event = Event {
            name: "end",
            id: Some("7f".to_owned()),
            data: json!({"status": "success"}),
        };
        assert_eq!(Event::of(text), Some(event));
        assert_eq!(Event::of(": alive"), None);
    }
}
