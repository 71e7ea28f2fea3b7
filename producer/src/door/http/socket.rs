//! Tasks watched by a WebSocket: the events of [`follow`](super::follow), as messages, on a connection that may
//! follow more tasks as it goes.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::ws::{
    Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection,
};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

use millrace_schemas::TaskId;
use millrace_store::api_keys::Scope;

use crate::door::following::{NEWS_WAITING, SLOWEST_READER, Told, follow, most_followed};
use crate::door::gate::Caller;
use crate::door::refusal::Refusal;
use crate::door::state::Door;

use super::follow::{ALIVE_EVERY, News, Place};
use super::problem::Problem;
use super::request;

/// What a client says on a WebSocket.
#[derive(Debug, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase", deny_unknown_fields)]
enum Said {
    /// Follow these tasks, too.
    Subscribe { ids: Vec<String> },
}

/// Watch a task by WebSocket
///
/// Each message is `{"event": "status" | "end" | "error", …}`. More tasks are followed on the same connection after
/// `{"action": "subscribe", "ids": [...]}`. It is closed when all have ended.
#[utoipa::path(
    get, path = "/v1/task/{id}/ws", tag = "streams",
    params(("id" = String, Path, description = "The task's id, a UUIDv7")),
    responses(
        (status = 101, description = "A WebSocket (RFC 6455)"),
        (status = "4XX", description = "No upgrade asked for, unknown, or not allowed", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not possible at present", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn socket(
    State(door): State<Arc<Door>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response<Body>, Refusal> {
    let caller = door.gate.admit(request::api_key(&headers)?)?;
    caller.needs(Scope::Read)?;
    let id = request::task_id(&id)?;
    let upgrade = upgrade.map_err(|error| {
        Refusal::bad(
            "Upgrade",
            format!("expected a WebSocket handshake: {error}"),
        )
    })?;
    door.settled(&caller, id, None).await?;
    let place = Place::take(&door, &caller)?;
    let upgrade = upgrade.max_message_size(1 << 20).max_frame_size(1 << 20);
    Ok(upgrade.on_upgrade(move |socket| converse(door, caller, place, id, socket)))
}

async fn converse(
    door: Arc<Door>,
    caller: Caller,
    place: Place,
    id: TaskId,
    mut socket: WebSocket,
) {
    let (news, mut receiver) = mpsc::channel(NEWS_WAITING);
    let mut followed = std::collections::HashSet::from([id]);
    let mut open = 1_usize;
    let start = |id: TaskId, news: &mpsc::Sender<Told>| {
        let tenant = caller.tenant().into();
        tokio::spawn(follow(door.clone(), tenant, id, None, news.clone()));
    };
    start(id, &news);
    while open > 0 {
        let message = tokio::select! {
            Some(told) = receiver.recv() => {
                open -= usize::from(told.is_last());
                Message::Text(serde_json::to_string(&News::of(&told)).unwrap_or_default().into())
            }
            heard = socket.recv() => match heard {
                Some(Ok(Message::Text(text))) => match wanted(&door, &text, followed.len()) {
                    Ok(ids) => {
                        for id in ids {
                            if followed.insert(id) {
                                open += 1;
                                start(id, &news);
                            }
                        }
                        continue;
                    }
                    Err(refusal) => {
                        let error = serde_json::json!({"event": "error", "error": Problem::from(&refusal)});
                        Message::Text(error.to_string().into())
                    }
                },
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => continue,
            },
            () = tokio::time::sleep(ALIVE_EVERY) => Message::Ping(Bytes::new()),
            () = door.closing.cancelled() => break,
        };
        let sent = timeout(SLOWEST_READER, socket.send(message)).await;
        if !matches!(sent, Ok(Ok(()))) {
            break;
        }
    }
    let _ = timeout(SLOWEST_READER, socket.send(Message::Close(None))).await;
    drop(place);
}

fn wanted(door: &Door, text: &str, followed: usize) -> Result<Vec<TaskId>, Refusal> {
    let Said::Subscribe { ids } = serde_json::from_str(text)
        .map_err(|error| Refusal::bad("", format!("no message of this protocol: {error}")))?;
    most_followed(door, followed + ids.len())?;
    ids.iter()
        .map(|id| {
            id.parse()
                .map_err(|error| Refusal::bad("/ids", format!("{error}")))
        })
        .collect()
}
