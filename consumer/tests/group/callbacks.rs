//! Callbacks as they leave a worker that is told to stop, and as an operator sees them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use millrace_schemas::TaskEvent;
use nix::sys::signal::Signal;

use super::events::event;
use super::scene::{Scene, eventually};

const FLAGS: [&str; 3] = ["--callbacks-allow-private", "--callbacks-scale", "1"];

/// Takes posts, and answers each with a status after a time; with `None` never.
struct Receiver {
    posts: Arc<AtomicUsize>,
    url: String,
}

impl Receiver {
    fn start(after: Duration, status: Option<u16>) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let posts = Arc::new(AtomicUsize::new(0));
        let taken = Arc::clone(&posts);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let taken = Arc::clone(&taken);
                std::thread::spawn(move || take(stream, &taken, after, status));
            }
        });
        Receiver { posts, url }
    }

    fn posts(&self) -> usize {
        self.posts.load(Ordering::SeqCst)
    }

    async fn until_posted(&self, count: usize) {
        eventually("a post", async || (self.posts() >= count).then_some(())).await;
    }
}

/// Reads one post and answers it. The sender may go away at any moment.
fn take(
    mut stream: TcpStream,
    posts: &AtomicUsize,
    after: Duration,
    status: Option<u16>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    posts.fetch_add(1, Ordering::SeqCst);
    std::thread::sleep(after);
    let Some(status) = status else {
        // The sender is the one who ends it.
        let _ = reader.read(&mut [0]);
        return None;
    };
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).ok()
}

/// A scene with a secret to sign with.
async fn scene(name: &str) -> Scene {
    let scene = Scene::embedded(name, 1).await;
    let made = scene.run(&["callbacks", "secret", "create", "--tenant", "default"]);
    assert_eq!(made.code, 0, "{}", made.words);
    scene
}

fn calling_back(url: &str) -> TaskEvent {
    TaskEvent {
        callback: Some(url.to_owned()),
        ..event(1)
    }
}

/// As if the time were over for which callbacks belong to the worker that took them.
async fn end_leases(scene: &Scene) {
    scene
        .execute("UPDATE callbacks SET due_at = now() WHERE due_at IS NOT NULL")
        .await;
}

async fn until_delivered(scene: &Scene) {
    let delivered = "SELECT count(*) FROM callbacks WHERE outcome = 'delivered'";
    eventually("the callback is delivered", async || {
        (scene.number(delivered).await == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_on_its_way_when_its_worker_is_told_to_stop_is_sent_once() {
    let scene = scene("callback_drained").await;
    let receiver = Receiver::start(Duration::from_millis(500), Some(200));
    let mut worker = scene.worker(&FLAGS);
    scene.send_to(0, &[calling_back(&receiver.url)]).await;
    receiver.until_posted(1).await;
    worker.signal(Signal::SIGTERM);
    let other = scene.worker(&FLAGS);
    assert_eq!(worker.ended().await, 0, "{}", worker.words());
    end_leases(&scene).await;
    scene.until_owners(1, 1).await;
    until_delivered(&scene).await;
    assert_eq!(receiver.posts(), 1, "{}", other.words());
    let attempts = "SELECT count(*) FROM callback_attempts WHERE status_code = 200";
    assert_eq!(scene.number(attempts).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_outlasts_the_stop_is_kept_as_an_attempt_that_failed() {
    let scene = scene("callback_cut").await;
    let receiver = Receiver::start(Duration::ZERO, None);
    let mut worker = scene.worker(&[&FLAGS[..], &["--shutdown-deadline", "2s"]].concat());
    scene.send_to(0, &[calling_back(&receiver.url)]).await;
    receiver.until_posted(1).await;
    let began = Instant::now();
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.ended().await, 0, "{}", worker.words());
    assert!(began.elapsed() < Duration::from_secs(10));
    let cut = "SELECT count(*) FROM callbacks c JOIN callback_attempts a ON a.callback_id = c.id \
         WHERE c.outcome IS NULL AND c.attempts = 1 AND a.error LIKE 'the worker was stopped%'";
    assert_eq!(scene.number(cut).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_every_attempt_and_has_a_failed_one_sent_at_once() {
    let scene = scene("callback_told").await;
    let receiver = Receiver::start(Duration::ZERO, Some(503));
    // The second attempt is minutes away.
    let slow = ["--callbacks-allow-private", "--callbacks-scale", "100"];
    let _worker = scene.worker(&slow);
    let task = calling_back(&receiver.url);
    let id = task.task_id.to_string();
    scene.send_to(0, &[task]).await;
    for count in 1..=2 {
        eventually("the attempt is kept", async || {
            let kept = scene.number("SELECT count(*) FROM callback_attempts").await;
            (kept == count).then_some(())
        })
        .await;
        let again = scene.run(&["callbacks", "resend", "--task", &id]);
        assert_eq!(again.code, 0, "{}", again.words);
        assert_eq!(again.output, "1 to be sent again\n");
        receiver
            .until_posted(usize::try_from(count).unwrap() + 1)
            .await;
    }
    let list = ["callbacks", "list", "--task", &id];
    let told = eventually("three attempts are told", async || {
        let told = scene
            .run(&[&list[..], &["--format", "json"]].concat())
            .json();
        (told[0]["tries"].as_array()?.len() == 3).then_some(told)
    })
    .await;
    assert_eq!(told[0]["outcome"], "pending");
    assert_eq!(told[0]["attempts"], 3);
    for (number, one) in (1..).zip(told[0]["tries"].as_array().unwrap()) {
        assert_eq!(
            (&one["attempt"], &one["status_code"]),
            (&number.into(), &503.into())
        );
    }
    let table = scene.run(&list).output;
    assert_eq!(
        table.matches("the target answered 503").count(),
        4,
        "{table}"
    );
}
