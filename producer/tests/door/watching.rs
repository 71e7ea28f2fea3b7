//! Tasks watched live: events of one and of many, taken up again, and by WebSocket.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::scene::{Door, Scene, assert_problem};

/// An event as it stands in a stream.
#[derive(Debug)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

async fn events(door: &Door, path: &str, last: Option<&str>) -> Vec<Event> {
    let mut request = door.get(path);
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let text = answer.text().await.unwrap();
    text.split("\n\n")
        .filter(|event| event.starts_with("event"))
        .map(|event| {
            let field = |name: &str| {
                let line = event.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_else(|| panic!("{event}")).to_owned()
            };
            Event {
                name: field("event: "),
                id: field("id: "),
                data: serde_json::from_str(&field("data: ")).unwrap(),
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_watched_to_its_end_and_no_further() {
    let scene = Scene::new("door_events").await;
    let door = scene.open(&[]);
    let id = door
        .submit(&json!({"type": "slow", "payload": 6_000}))
        .await;
    let path = format!("/v1/task/{id}/events");
    let watching = events(&door, &path, None);
    let (seen, _worker) = tokio::join!(watching, async { scene.work() });
    let words: Vec<_> = seen
        .iter()
        .map(|event| event.data["status"].as_str().unwrap())
        .collect();
    assert_eq!(words.first(), Some(&"accepted"));
    assert!(words.contains(&"processing"), "{words:?}");
    let last = seen.last().unwrap();
    assert_eq!((&*last.name, words.last()), ("end", Some(&"success")));
    let half_way = seen
        .iter()
        .any(|event| event.data["progress"] == 0.5 && event.data["note"] == "half-way");
    assert!(half_way, "{seen:?}");
    let again = events(&door, &path, Some(&seen[0].id)).await;
    assert_eq!(again.len(), 1, "only what is new");
    let answer = door
        .get(&path)
        .header("last-event-id", &last.id)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 204, "there will be nothing more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stream_follows_many_tasks_until_all_have_ended() {
    let scene = Scene::new("door_many_events").await;
    let door = scene.open(&[]);
    let mut ids = Vec::new();
    for n in 0..50 {
        ids.push(door.submit(&json!({"type": "echo", "payload": n})).await);
    }
    let _worker = scene.work();
    let seen = events(&door, &format!("/v1/events?ids={}", ids.join(",")), None).await;
    let mut ended: Vec<_> = seen
        .iter()
        .filter(|event| event.name == "end")
        .map(|event| event.data["task_id"].as_str().unwrap().to_owned())
        .collect();
    ended.sort();
    ids.sort();
    assert_eq!(ended, ids);
    for bad in [
        "/v1/events",
        "/v1/events?ids=",
        "/v1/events?ids=x",
        "/v1/events?id=x",
    ] {
        assert_problem(door.get(bad).send().await.unwrap(), 400, "bad-request").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_follows_a_task_and_those_that_are_asked_for_besides() {
    let scene = Scene::new("door_socket").await;
    let door = scene.open(&[]);
    let first = door.submit(&json!({"type": "echo"})).await;
    let second = door.submit(&json!({"type": "refuse"})).await;
    let url = format!("ws://{}/v1/task/{first}/ws", door.address());
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    let say = async |socket: &mut tokio_tungstenite::WebSocketStream<_>, text: String| {
        socket.send(Message::text(text)).await.unwrap();
    };
    say(
        &mut socket,
        json!({"action": "subscribe", "ids": [second]}).to_string(),
    )
    .await;
    say(&mut socket, "nonsense".to_owned()).await;
    let _worker = scene.work();
    let mut ends = Vec::new();
    let mut complaints = 0;
    while let Some(message) = tokio::time::timeout(Duration::from_secs(60), socket.next())
        .await
        .expect("a message")
    {
        let Ok(Message::Text(text)) = message else {
            continue;
        };
        let told: Value = serde_json::from_str(&text).unwrap();
        match told["event"].as_str().unwrap() {
            "end" => ends.push((
                told["task_id"].as_str().unwrap().to_owned(),
                told["status"].clone(),
            )),
            "error" => complaints += 1,
            _ => {}
        }
    }
    ends.sort_by_key(|(_, status)| status.to_string());
    assert_eq!(
        ends,
        [(second, json!("failed")), (first.clone(), json!("success"))]
    );
    assert_eq!(complaints, 1);
    let answer = door
        .get(&format!("/v1/task/{first}/ws"))
        .send()
        .await
        .unwrap();
    assert_problem(answer, 400, "bad-request").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_streams_are_open_than_there_may_be() {
    let scene = Scene::new("door_streams").await;
    let door = scene.open(&["--max-streams", "2"]);
    let id = door.submit(&json!({"type": "echo"})).await;
    let path = format!("/v1/task/{id}/events");
    let open = [
        door.get(&path).send().await.unwrap(),
        door.get(&path).send().await.unwrap(),
    ];
    let answer = door.get(&path).send().await.unwrap();
    assert_problem(answer, 503, "unavailable").await;
    drop(open);
    let began = std::time::Instant::now();
    while door.get(&path).send().await.unwrap().status() != 200 {
        assert!(
            began.elapsed() < crate::scene::DEADLINE,
            "a place that is left is free again"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
