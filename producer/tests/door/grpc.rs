//! The same door by gRPC: one port, the same tasks, names and refusals.

use std::time::Duration;

use futures_util::stream;
use millrace_producer::v1::submit_stream_response::Answer;
use millrace_producer::v1::task_state::Outcome;
use millrace_producer::v1::tasks_client::TasksClient;
use millrace_producer::v1::{
    CancelRequest, GetRequest, Status as Word, SubmitRequest, WaitRequest, WatchRequest,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::scene::{Door, Scene};

pub async fn client(door: &Door) -> TasksClient<Channel> {
    let endpoint = Endpoint::from_shared(door.base.clone()).unwrap();
    TasksClient::new(endpoint.connect().await.unwrap())
}

fn task(task_type: &str, payload: &str) -> SubmitRequest {
    SubmitRequest {
        r#type: task_type.to_owned(),
        payload: payload.as_bytes().to_vec(),
        ..SubmitRequest::default()
    }
}

pub fn problem(status: &Status) -> String {
    let name = status.metadata().get("millrace-problem");
    name.unwrap_or_else(|| panic!("{status:?}"))
        .to_str()
        .unwrap()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_submitted_waited_for_and_found() {
    let scene = Scene::new("grpc_life").await;
    let door = scene.open(&[]);
    let _worker = scene.work();
    let mut client = client(&door).await;
    let named = |payload| SubmitRequest {
        idempotency_key: "order-1".to_owned(),
        ..task("echo", payload)
    };
    let id = client
        .submit(named("[7]"))
        .await
        .unwrap()
        .into_inner()
        .task_id;
    let again = client
        .submit(named("[7]"))
        .await
        .unwrap()
        .into_inner()
        .task_id;
    assert_eq!(id, again);
    let other = client.submit(named("[8]")).await.unwrap_err();
    assert_eq!(
        (other.code(), &*problem(&other)),
        (Code::AlreadyExists, "idempotency-key-reused")
    );
    let wait = WaitRequest {
        task_id: id.clone(),
        timeout: None,
    };
    let state = client.wait(wait).await.unwrap().into_inner();
    assert_eq!(state.status(), Word::Success);
    let Some(Outcome::Result(result)) = &state.outcome else {
        panic!("{state:?}");
    };
    assert_eq!(
        (&*result.content_type, &*result.body),
        ("application/json", b"[7]".as_slice())
    );
    let seconds = |time: &Option<prost_types::Timestamp>| time.as_ref().unwrap().seconds;
    assert!(seconds(&state.completed_at) >= seconds(&state.submitted_at));
    // The same task by HTTP.
    let answer = door
        .get(&format!("/v1/task/{id}/result"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.text().await.unwrap(), "[7]");
    let failing = client
        .submit(task("refuse", "1"))
        .await
        .unwrap()
        .into_inner()
        .task_id;
    door.until(&failing, "failed").await;
    let get = GetRequest { task_id: failing };
    let state = client.get(get).await.unwrap().into_inner();
    let Some(Outcome::Problem(problem)) = &state.outcome else {
        panic!("{state:?}");
    };
    assert_eq!(problem.kind, "task-failed");
    assert!(problem.detail.contains("never 1"), "{problem:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_codes_with_the_name_of_the_problem() {
    let scene = Scene::new("grpc_refusals").await;
    let door = scene.open(&["--max-event-bytes", "1000"]);
    let mut client = client(&door).await;
    let cases = [
        (task("", "1"), Code::InvalidArgument, "bad-request"),
        (
            task("echo", "no json"),
            Code::InvalidArgument,
            "bad-request",
        ),
        (
            task("echo", &format!("\"{}\"", "x".repeat(1_500))),
            Code::InvalidArgument,
            "too-large",
        ),
    ];
    for (request, code, name) in cases {
        let refused = client.submit(request).await.unwrap_err();
        assert_eq!((refused.code(), &*problem(&refused)), (code, name));
    }
    let huge = client
        .submit(task("echo", &"x".repeat(10_000)))
        .await
        .unwrap_err();
    assert_eq!(
        (huge.code(), &*problem(&huge)),
        (Code::InvalidArgument, "too-large")
    );
    let stream = stream::iter([task("echo", "1"), task("echo", &"x".repeat(10_000))]);
    let mut answers = client.submit_stream(stream).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
    let huge = answers.message().await.unwrap_err();
    assert_eq!(
        (huge.code(), &*problem(&huge)),
        (Code::InvalidArgument, "too-large")
    );
    let unknown = client
        .get(GetRequest {
            task_id: "7".to_owned(),
        })
        .await
        .unwrap_err();
    assert_eq!(
        (unknown.code(), &*problem(&unknown)),
        (Code::NotFound, "not-found")
    );
    let nothing = client.watch(WatchRequest::default()).await.unwrap_err();
    assert_eq!(nothing.code(), Code::InvalidArgument);
    let key = scene
        .producer(&["keys", "create", "--tenant", "acme"])
        .output()
        .unwrap();
    assert!(key.status.success());
    let key = String::from_utf8(key.stdout).unwrap();
    let began = std::time::Instant::now();
    while client.submit(task("echo", "1")).await.is_ok() {
        assert!(began.elapsed() < crate::scene::DEADLINE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = client.submit(task("echo", "1")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut request = Request::new(task("echo", "1"));
    let bearer = format!("Bearer {}", key.trim()).parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    client.submit(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_tasks_is_answered_in_order() {
    let scene = Scene::new("grpc_stream").await;
    let door = scene.open(&[]);
    let mut client = client(&door).await;
    let tasks = (0..5_000).map(|n| match n % 1_000 {
        999 => task("", "1"),
        _ => task("echo", &n.to_string()),
    });
    let tasks: Vec<_> = tasks.collect();
    let mut answers = client
        .submit_stream(stream::iter(tasks))
        .await
        .unwrap()
        .into_inner();
    let mut expected = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        assert_eq!(answer.index, expected);
        let is_refused = matches!(answer.answer, Some(Answer::Problem(_)));
        assert_eq!(is_refused, expected % 1_000 == 999, "{answer:?}");
        expected += 1;
    }
    assert_eq!(expected, 5_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_watched_and_cancelled() {
    let scene = Scene::new("grpc_watch").await;
    let door = scene.open(&[]);
    let _worker = scene.work();
    let mut client = client(&door).await;
    let quick = client
        .submit(task("echo", "1"))
        .await
        .unwrap()
        .into_inner()
        .task_id;
    let long = client
        .submit(task("slow", "60000"))
        .await
        .unwrap()
        .into_inner()
        .task_id;
    // Its results went with retention long ago.
    let gone = "00000000-0001-7000-8000-000000000000".to_owned();
    let watch = WatchRequest {
        task_ids: vec![quick.clone(), long.clone(), gone.clone()],
    };
    let mut states = client.watch(watch).await.unwrap().into_inner();
    let (mut ends, mut problems) = (Vec::new(), Vec::new());
    while let Some(state) = states.message().await.unwrap() {
        match state.status() {
            Word::Unspecified => match state.outcome {
                Some(Outcome::Problem(problem)) => problems.push((state.task_id, problem.kind)),
                other => panic!("{other:?}"),
            },
            Word::Processing if state.task_id == long => {
                let cancel = CancelRequest {
                    task_id: long.clone(),
                };
                assert!(
                    client
                        .cancel(cancel)
                        .await
                        .unwrap()
                        .into_inner()
                        .cancel_requested
                );
            }
            Word::Success | Word::Cancelled => ends.push((state.status(), state.task_id)),
            _ => {}
        }
    }
    assert_eq!(ends, [(Word::Success, quick), (Word::Cancelled, long)]);
    assert_eq!(problems, [(gone, "gone".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_has_the_id_that_its_caller_gave_it() {
    let scene = Scene::new("grpc_request_id").await;
    let door = scene.open(&[]);
    let mut client = client(&door).await;
    let mut named = Request::new(task("echo", "1"));
    let id = "call-7".parse().unwrap();
    named.metadata_mut().insert("x-request-id", id);
    let answer = client.submit(named).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "call-7");
    let refused = client.submit(task("", "1")).await.unwrap_err();
    assert!(refused.metadata().get("x-request-id").is_some());
}
