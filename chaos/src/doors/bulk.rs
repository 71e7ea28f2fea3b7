//! Handing many tasks over at once: as an array, or as lines that are sent slowly enough for a kill to hit between
//! them. What has a key and was not answered is handed over again, one by one.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::client::{Client, REQUEST, Said};
use super::http::Ask;
use super::refusal::{IN_PROGRESS, Refusal};
use super::task::Task;
use super::told::Kind;

const PATH: &str = "/v1/tasks";
/// Between two lines.
const APART: Duration = Duration::from_millis(60);

impl Client {
    /// Hands these over; those that were accepted, with their ids.
    pub(super) async fn hand_over_many(
        &mut self,
        kind: Kind,
        tasks: Vec<Task>,
    ) -> Vec<(Uuid, Task)> {
        self.told.count(kind).begun += tasks.len();
        let answers = match kind {
            Kind::Lines => self.lines(&tasks).await,
            _ => self.array(&tasks).await,
        };
        let mut accepted = Vec::new();
        let mut answers = answers.into_iter();
        for task in tasks {
            let said = answers.next().unwrap_or(Said::Wrong);
            match said {
                Said::Yes(id) => {
                    self.told.accepted(kind, id, &task);
                    accepted.push((id, task));
                    continue;
                }
                Said::No(refusal) => {
                    let is_busy = task.has_key && refusal.name == IN_PROGRESS;
                    if !is_busy && !refusal.says_later() {
                        let (name, why) = (&task.name, refusal.text());
                        self.told.violation(format!("{name} is refused: {why}"));
                        continue;
                    }
                    self.told.count(kind).later += 1;
                    if !task.has_key && refusal.says_not_taken() {
                        self.told.not_taken.insert(task.name.clone());
                    }
                }
                Said::Cut(excuse) => self.told.cut(kind, excuse),
                Said::Wrong => continue,
            }
            if task.has_key
                && let Some(id) = self.insist(kind, &task).await.id()
            {
                accepted.push((id, task));
            }
        }
        accepted
    }

    async fn array(&mut self, tasks: &[Task]) -> Vec<Said<Uuid>> {
        let body = tasks.iter().map(Task::json).collect();
        let answer = match self.ask(Ask::post(PATH, &body)).await {
            Said::Yes(answer) => answer,
            other => {
                let other = other.unanswered();
                return tasks.iter().map(|_| other.clone()).collect();
            }
        };
        let found = answer.json();
        let found = found.as_ref();
        let items = found.and_then(|found| found.get("items")?.as_array());
        let accepted = found.and_then(|found| found.get("accepted")?.as_u64());
        let said: Vec<Said<Uuid>> = items
            .into_iter()
            .flatten()
            .map(|item| self.item(item))
            .collect();
        let yes = said.iter().filter(|said| matches!(said, Said::Yes(_)));
        let yes = yes.count();
        let status = if yes == tasks.len() { 202 } else { 207 };
        if said.len() != tasks.len() || accepted != Some(yes as u64) || answer.status != status {
            let text = answer.text();
            self.told
                .violation(format!("{} tasks are answered {text}", tasks.len()));
        }
        said
    }

    async fn lines(&mut self, tasks: &[Task]) -> Vec<Said<Uuid>> {
        let mut said = Vec::with_capacity(tasks.len());
        let rest = self.lines_until_it_ends(tasks, &mut said).await;
        let rest = match rest {
            Said::Yes(()) if said.len() == tasks.len() => return said,
            Said::Yes(()) => {
                let (sent, answered) = (tasks.len(), said.len());
                self.wrong(format!("{sent} lines have {answered} answers"))
            }
            rest => rest.unanswered(),
        };
        said.truncate(tasks.len());
        for _ in said.len()..tasks.len() {
            said.push(rest.clone());
        }
        said
    }

    async fn lines_until_it_ends(
        &mut self,
        tasks: &[Task],
        said: &mut Vec<Said<Uuid>>,
    ) -> Said<()> {
        let (sender, receiver) = mpsc::channel(1);
        let lines: Vec<Bytes> = tasks
            .iter()
            .map(|task| format!("{}\n", task.json()).into())
            .collect();
        tokio::spawn(async move {
            for line in lines {
                // Nobody takes it when the connection is gone.
                if sender.send(line).await.is_err() {
                    return;
                }
                sleep(APART).await;
            }
        });
        let (visit, mut answers) = match self.open(Ask::post_lines(PATH, receiver)).await {
            Said::Yes(opened) => opened,
            other => return other.unanswered(),
        };
        loop {
            let line = match timeout(REQUEST, answers.piece(b"\n")).await {
                Ok(Ok(Some(line))) => line,
                Ok(Ok(None)) => return Said::Yes(()),
                Ok(Err(why)) => return self.broke(visit, "a stream of lines", &why),
                Err(_) => return self.slow(visit, "a stream of lines"),
            };
            said.push(match serde_json::from_slice(&line) {
                Ok(item) => self.item(&item),
                Err(_) => self.wrong(format!("a line is answered {line:?}")),
            });
        }
    }

    /// The answer for one of many.
    fn item(&mut self, item: &Value) -> Said<Uuid> {
        let text = |name: &str| item.get(name).and_then(Value::as_str);
        let id = text("task_id").and_then(|id| id.parse().ok());
        match (text("status"), id, item.get("error")) {
            (Some("accepted"), Some(id), None) => Said::Yes(id),
            (Some("refused" | "unknown"), None, Some(problem)) => {
                match Refusal::of_problem(problem) {
                    Ok(refusal) => Said::No(refusal),
                    Err(text) => self.wrong(format!("one of many is refused by {text}")),
                }
            }
            _ => self.wrong(format!("one of many is answered {item}")),
        }
    }
}
