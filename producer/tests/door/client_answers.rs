//! What the Rust client makes of answers: of lost ones, of those that never come, and of refusals.

use std::time::{Duration, Instant};

use millrace_producer::client::{Client, ClientError, Task};
use millrace_schemas::TaskId;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tonic::Code;

use crate::client_double::{Double, Script, ended, refused};
use crate::scene::DEADLINE;

const ID: &str = "01a1ff00-0000-7000-8000-0000000000ab";

async fn submitted(client: &Client) -> ClientError {
    let task = Task::json("echo", &1).unwrap();
    client.submit(task).await.unwrap_err()
}

fn is_unreachable(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { problem, .. } if problem == "unreachable")
}

#[tokio::test]
async fn a_lost_answer_is_no_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let client = Client::connect(&base).await.unwrap();
    let breaking = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let _ = connection.read(&mut [0; 64 << 10]).await.unwrap();
    });
    let lost = submitted(&client).await;
    assert!(
        matches!(lost, ClientError::OutcomeUnknown { .. }),
        "{lost:?}"
    );
    // Nobody listens any more: nothing can have been accepted.
    breaking.await.unwrap();
    let refused = submitted(&client).await;
    assert!(is_unreachable(&refused), "{refused:?}");
}

#[tokio::test]
async fn a_refusal_is_one_only_if_a_front_door_says_so_or_nothing_can_have_reached_it() {
    for (code, problem, is_known) in [
        (Code::Unavailable, Some("unavailable"), true),
        (Code::Internal, Some("internal"), true),
        (Code::Unauthenticated, None, true),
        (Code::Unknown, Some("outcome-unknown"), false),
        (Code::Unavailable, None, false),
        (Code::Cancelled, None, false),
        (Code::DeadlineExceeded, None, false),
    ] {
        let submit = Box::new(move |_| Err(refused(code, problem)));
        let double = Double::open(Script {
            submit,
            ..Script::default()
        })
        .await;
        let error = submitted(&double.client().await).await;
        let is_refusal = matches!(error, ClientError::Refused { .. });
        let is_unknown = matches!(error, ClientError::OutcomeUnknown { .. });
        assert_eq!(
            (is_refusal, is_unknown),
            (is_known, !is_known),
            "{code:?} {problem:?}: {error:?}"
        );
    }
}

#[tokio::test]
async fn no_call_hangs_on_a_silent_door() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::builder(&format!("http://{}", listener.local_addr().unwrap()))
        .call_timeout(Duration::from_millis(300))
        .connect()
        .await
        .unwrap();
    let began = Instant::now();
    let unknown = submitted(&client).await;
    assert!(
        matches!(unknown, ClientError::OutcomeUnknown { .. }),
        "{unknown:?}"
    );
    let handle = client.handle(ID).unwrap();
    let state = handle.state().await.unwrap_err();
    assert!(is_unreachable(&state), "{state:?}");
    let cancel = handle.cancel().await.unwrap_err();
    assert!(is_unreachable(&cancel), "{cancel:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
    let late = handle.timeout(Duration::from_millis(500)).await;
    assert!(matches!(late, Err(ClientError::TimedOut(_))), "{late:?}");
}

#[tokio::test]
async fn a_problem_found_by_asking_has_the_name_that_the_front_door_gave_it() {
    let double = Double::open(Script {
        watch: Box::new(|_| Err(refused(Code::Unavailable, Some("unavailable")))),
        get: Box::new(|_| Err(refused(Code::NotFound, Some("gone")))),
        ..Script::default()
    })
    .await;
    let handle = double.client().await.handle(ID).unwrap().timeout(DEADLINE);
    let gone = handle.await.unwrap_err();
    assert!(
        matches!(&gone, ClientError::Refused { problem, message, .. } if problem == "gone" && message == "not now"),
        "{gone:?}"
    );
}

#[tokio::test]
async fn an_id_is_the_same_task_however_it_is_written() {
    let double = Double::open(Script {
        watch: Box::new(|ids| {
            let canonical = |id: &String| id.parse::<TaskId>().unwrap().to_string();
            Ok(ids.iter().map(|id| ended(&canonical(id))).collect())
        }),
        ..Script::default()
    })
    .await;
    let client = double.client().await;
    for text in [
        ID.to_owned(),
        ID.to_uppercase(),
        ID.replace('-', ""),
        format!("urn:uuid:{ID}"),
    ] {
        let handle = client.handle(&text).unwrap();
        assert_eq!(handle.id(), ID);
        handle
            .timeout(Duration::from_secs(20))
            .await
            .unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    for text in ["", "x", "01a1ff00-0000-4000-8000-0000000000ab"] {
        let error = client.handle(text).unwrap_err();
        assert!(matches!(error, ClientError::TaskId(_)), "{text}: {error}");
    }
}
