//! Callbacks: signed, tried again, obeyed when they say stop, and never sent into one's own network unasked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use millrace_consumer::callbacks::mint_secret;
use millrace_store::callback_secrets;
use millrace_store::{Purpose, callbacks};
use serde_json::{Value, json};

use crate::scene::{DEADLINE, Scene};

/// A post as it came.
#[derive(Clone, Debug)]
struct Post {
    headers: HeaderMap,
    body: Bytes,
    at: Instant,
}

/// A status code, and a header.
type Answer = (u16, &'static str, &'static str);

/// A receiver that answers as it is told, and 200 when nothing is left.
#[derive(Clone, Default)]
struct Receiver {
    posts: Arc<Mutex<Vec<Post>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl Receiver {
    async fn start(answers: &[Answer]) -> (Self, String) {
        let this = Self::default();
        this.answers.lock().unwrap().extend(answers);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let router = Router::new().fallback(take).with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (this, url)
    }

    async fn until(&self, count: usize) -> Vec<Post> {
        let began = Instant::now();
        loop {
            let posts = self.posts.lock().unwrap().clone();
            if posts.len() >= count {
                return posts;
            }
            assert!(began.elapsed() < DEADLINE, "{posts:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn take(
    State(receiver): State<Receiver>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<String> {
    let at = Instant::now();
    receiver
        .posts
        .lock()
        .unwrap()
        .push(Post { headers, body, at });
    let answer = receiver.answers.lock().unwrap().pop_front();
    let (status, name, value) = answer.unwrap_or((200, "x-nothing", "x"));
    Response::builder()
        .status(status)
        .header(name, value)
        .body(String::new())
        .unwrap()
}

/// Checks a signature by what the specification says, apart from the product's own code.
fn is_signed(post: &Post, secret: &str) -> bool {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let text = |name: &str| post.headers[name].to_str().unwrap();
    let (id, time) = (text("webhook-id"), text("webhook-timestamp"));
    let key = base64.decode(secret.trim_start_matches("whsec_")).unwrap();
    let mut signed = format!("{id}.{time}.").into_bytes();
    signed.extend_from_slice(&post.body);
    let tag = hmac_sha256(&key, &signed);
    let expected = format!("v1,{}", base64.encode(tag));
    text("webhook-signature")
        .split(' ')
        .any(|signature| signature == expected)
}

/// RFC 2104, by a hash that the product does not use here.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |byte: u8| block.map(|key| key ^ byte);
    let inner = Sha256::new()
        .chain_update(pad(0x36))
        .chain_update(message)
        .finalize();
    let outer = Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize();
    outer.to_vec()
}

async fn secret(scene: &Scene, id: &str) -> String {
    let secret = mint_secret();
    let mut connection = scene.database.connect(Purpose::Operations).await.unwrap();
    callback_secrets::create(&mut connection, "default", id, &secret, "test")
        .await
        .unwrap();
    secret
}

async fn shown(scene: &Scene) -> Vec<callbacks::Shown> {
    let mut connection = scene.database.connect(Purpose::Operations).await.unwrap();
    callbacks::latest(&mut connection, None, None, None, 100)
        .await
        .unwrap()
}

async fn until_outcomes(scene: &Scene, outcomes: &[&str]) -> Vec<callbacks::Shown> {
    let began = Instant::now();
    loop {
        let found = shown(scene).await;
        let mut words: Vec<_> = found.iter().map(|one| &*one.outcome).collect();
        words.sort_unstable();
        if words == outcomes {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_is_posted_signed_and_tried_again_under_one_id() {
    let scene = Scene::new("called_back").await;
    let secrets = [secret(&scene, "old").await, secret(&scene, "new").await];
    let answers = [
        (500, "x-a", "b"),
        (302, "location", "/elsewhere"),
        (429, "retry-after", "1"),
    ];
    let (receiver, url) = Receiver::start(&answers).await;
    let door = scene.open(&[]);
    let _worker = scene.work();
    let task = json!({"type": "echo", "payload": {"a": [1, 2]}, "callback": url});
    let id = door.submit(&task).await;
    let posts = receiver.until(4).await;
    let ids: std::collections::BTreeSet<_> = posts
        .iter()
        .map(|post| post.headers["webhook-id"].clone())
        .collect();
    assert_eq!(ids.len(), 1);
    for post in &posts {
        assert!(
            secrets.iter().all(|secret| is_signed(post, secret)),
            "{post:?}"
        );
        assert_eq!(post.headers["content-type"], "application/json");
        let body: Value = serde_json::from_slice(&post.body).unwrap();
        assert_eq!(body["type"], "task.success");
        assert_eq!(
            (&body["data"]["task_id"], &body["data"]["result"]),
            (&json!(id), &task["payload"])
        );
    }
    assert!(
        posts[3].at - posts[2].at >= Duration::from_secs(1),
        "as the target asked"
    );
    let found = until_outcomes(&scene, &["delivered"]).await;
    assert_eq!((found[0].attempts, found[0].status_code), (4, Some(200)));
    assert_eq!(
        scene.number("SELECT count(*) FROM callback_attempts").await,
        4
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        receiver.posts.lock().unwrap().len(),
        4,
        "once delivered, no more"
    );
    let mut connection = scene.database.connect(Purpose::Operations).await.unwrap();
    let which = callbacks::Which::Task(id.parse().unwrap());
    assert_eq!(
        callbacks::send_again(&mut connection, &which, "test")
            .await
            .unwrap(),
        1
    );
    receiver.until(5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_told_too_and_a_target_that_is_gone_is_left_alone() {
    let scene = Scene::new("called_gone").await;
    secret(&scene, "one").await;
    let (receiver, url) = Receiver::start(&[(410, "x-a", "b")]).await;
    let door = scene.open(&[]);
    let _worker = scene.work();
    door.submit(&json!({"type": "refuse", "payload": 1, "callback": url}))
        .await;
    let posts = receiver.until(1).await;
    let body: Value = serde_json::from_slice(&posts[0].body).unwrap();
    assert_eq!(body["type"], "task.failed");
    assert!(
        body["data"]["error"]["message"]
            .as_str()
            .unwrap()
            .contains("never 1"),
        "{body}"
    );
    until_outcomes(&scene, &["disabled"]).await;
    door.submit(&json!({"type": "echo", "callback": url})).await;
    until_outcomes(&scene, &["disabled", "disabled"]).await;
    assert_eq!(receiver.posts.lock().unwrap().len(), 1);
    let mut connection = scene.database.connect(Purpose::Operations).await.unwrap();
    assert!(
        callback_secrets::enable(&mut connection, "default", &url, "test")
            .await
            .unwrap()
    );
    let which = callbacks::Which::GivenUpOf("default");
    assert_eq!(
        callbacks::send_again(&mut connection, &which, "test")
            .await
            .unwrap(),
        2
    );
    receiver.until(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_into_ones_own_network_unless_that_is_allowed() {
    let scene = Scene::new("called_private").await;
    secret(&scene, "one").await;
    let (receiver, url) = Receiver::start(&[]).await;
    let door = scene.open(&[]);
    let _worker = scene.work_with(&["--callbacks-scale", "0.0001"]);
    for target in [url.clone(), url.replace("127.0.0.1", "localhost")] {
        door.submit(&json!({"type": "echo", "callback": target}))
            .await;
    }
    let found = until_outcomes(&scene, &["given_up", "given_up"]).await;
    for one in found {
        let error = one.error.unwrap();
        assert!(error.contains("private network"), "{error}");
    }
    assert!(receiver.posts.lock().unwrap().is_empty());
}

/// Takes connections and never answers. Counts them.
async fn hang() -> (Arc<Mutex<Vec<tokio::net::TcpStream>>>, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let held = Arc::new(Mutex::new(Vec::new()));
    let taken = held.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            taken.lock().unwrap().push(stream);
        }
    });
    (held, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_does_not_answer_holds_up_no_other() {
    let scene = Scene::new("called_hanging").await;
    secret(&scene, "one").await;
    let (held, hanging) = hang().await;
    let (receiver, url) = Receiver::start(&[]).await;
    let door = scene.open(&[]);
    let _worker = scene.work();
    for _ in 0..300 {
        door.submit(&json!({"type": "echo", "callback": hanging}))
            .await;
    }
    let began = Instant::now();
    // Half of the places that one tenant may have.
    while held.lock().unwrap().len() < 112 {
        assert!(began.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    door.submit(&json!({"type": "echo", "callback": url})).await;
    receiver.until(1).await;
    // Not one of those that hang had to end first.
    let ended = "SELECT count(*) FROM callback_attempts a JOIN callbacks c ON c.id = a.callback_id WHERE c.target = ";
    let ended = scene.number(&format!("{ended}'{hanging}'")).await;
    assert_eq!((ended, held.lock().unwrap().len()), (0, 112));
}
