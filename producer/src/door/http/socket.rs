//! Tasks watched by a WebSocket: the events of [`follow`](super::follow), as messages, on a connection that may
//! follow more tasks as it goes.

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::extract::ws::{
    CloseFrame, Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection,
};
use axum::http::{HeaderMap, Response};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::timeout;

use millrace_schemas::TaskId;
use millrace_store::api_keys::Scope;

use crate::door::following::{Following, Next, SLOWEST_READER};
use crate::door::refusal::Refusal;
use crate::door::state::Door;

use super::follow::{ALIVE_EVERY, News};
use super::problem::Problem;
use super::request::{self, PathText};

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
    PathText(id): PathText,
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
    let following = Following::begin(&door, &caller, vec![id], None)?;
    let upgrade = upgrade.max_message_size(1 << 20).max_frame_size(1 << 20);
    // Counted from here on: the connection's own task ends with the upgrade.
    let counted = door.sockets.token();
    Ok(upgrade.on_upgrade(async move |socket| {
        converse(following, id, socket).await;
        drop(counted);
    }))
}

async fn converse(mut following: Following, id: TaskId, mut socket: WebSocket) {
    let mut followed = HashSet::from([id]);
    let mut end = None;
    loop {
        let message = tokio::select! {
            next = following.next(ALIVE_EVERY) => match next {
                Next::Told(told) => {
                    Message::Text(serde_json::to_string(&News::of(&told)).unwrap_or_default().into())
                }
                Next::Quiet => Message::Ping(Bytes::new()),
                Next::Done => break,
                Next::Over => {
                    // "Going away" (RFC 6455, section 7.4.1): come back for the rest.
                    end = Some(CloseFrame { code: 1001, reason: "come back for the rest".into() });
                    break;
                }
            },
            heard = socket.recv() => match heard {
                Some(Ok(Message::Text(text))) => match subscribe(&mut following, &text, &mut followed) {
                    Ok(()) => continue,
                    Err(refusal) => {
                        let error = serde_json::json!({"event": "error", "error": Problem::from(&refusal)});
                        Message::Text(error.to_string().into())
                    }
                },
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => continue,
            },
        };
        let sent = timeout(SLOWEST_READER, socket.send(message)).await;
        if !matches!(sent, Ok(Ok(()))) {
            break;
        }
    }
    let _ = timeout(SLOWEST_READER, socket.send(Message::Close(end))).await;
}

/// Follows the tasks that a message names, but for those that are followed already.
fn subscribe(
    following: &mut Following,
    text: &str,
    followed: &mut HashSet<TaskId>,
) -> Result<(), Refusal> {
    let Said::Subscribe { ids } = serde_json::from_str(text)
        .map_err(|error| Refusal::bad("", format!("no message of this protocol: {error}")))?;
    let mut new = ids
        .iter()
        .map(|id| id.parse())
        .filter(|id| !id.as_ref().is_ok_and(|id| followed.contains(id)))
        .collect::<Result<Vec<TaskId>, _>>()
        .map_err(|error| Refusal::bad("/ids", format!("{error}")))?;
    new.sort_unstable();
    new.dedup();
    following.more(new.clone(), followed.len())?;
    followed.extend(new);
    Ok(())
}
