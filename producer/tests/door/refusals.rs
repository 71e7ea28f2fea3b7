//! What a front door says no to, and how: every no is a problem that names the place and the remedy.

use serde_json::json;

use crate::scene::{Scene, assert_problem, parts};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_is_a_problem_with_its_place() {
    let scene = Scene::new("door_refusals").await;
    let door = scene.open(&["--max-event-bytes", "1000"]);
    let json_type = "application/json";
    let long = format!(r#"{{"type":"echo","payload":"{}"}}"#, "x".repeat(5_000));
    let medium = format!(r#"{{"type":"echo","payload":"{}"}}"#, "x".repeat(1_500));
    let submit = "/v1/task/submit";
    let cases = [
        (submit, json_type, "{", 400, "bad-request", Some("")),
        (
            submit,
            json_type,
            r#"{"type":1}"#,
            400,
            "bad-request",
            Some("/type"),
        ),
        (
            submit,
            json_type,
            r#"{"type":"t","kee":1}"#,
            400,
            "bad-request",
            Some("/kee"),
        ),
        (
            "/v1/task/submit?type=t",
            json_type,
            r#"{"type":"t"}"#,
            400,
            "bad-request",
            Some("query"),
        ),
        (
            submit,
            "text/plain",
            "hello",
            415,
            "unsupported-media-type",
            Some("Content-Type"),
        ),
        (
            "/v1/task/submit?kind=t",
            "text/plain",
            "x",
            400,
            "bad-request",
            Some("query"),
        ),
        (submit, json_type, &long, 413, "too-large", None),
        (submit, json_type, &medium, 413, "too-large", None),
        (
            "/v1/tasks",
            "text/plain",
            "x",
            415,
            "unsupported-media-type",
            Some("Content-Type"),
        ),
        ("/v1/nothing", json_type, "{}", 404, "not-found", None),
        (
            "/v1/task/7/status",
            json_type,
            "{}",
            405,
            "method-not-allowed",
            None,
        ),
    ];
    for (path, content_type, body, status, kind, at) in cases {
        let request = door.post(path).header("content-type", content_type);
        let answer = request.body(body.to_owned()).send().await.unwrap();
        let problem = assert_problem(answer, status, kind).await;
        assert_eq!(problem["at"].as_str(), at, "{path} {body:.40}: {problem}");
        assert!(!problem["remedy"].as_str().unwrap().is_empty());
        assert!(!problem["title"].as_str().unwrap().is_empty());
    }
    let answer = door.post("/v1/task/7/status").send().await.unwrap();
    assert_eq!(answer.headers()["allow"], "GET, HEAD");
    let headers = [
        ("content-encoding", "gzip", 415),
        ("idempotency-key", "\"a", 400),
        ("request-timeout", "soon", 400),
        ("request-timeout", "-5", 400),
    ];
    for (name, value, status) in headers {
        let request = door.post(submit).json(&json!({"type": "echo"}));
        let answer = request.header(name, value).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{name}: {value}");
    }
    for path in [
        "/v1/task/x/status",
        "/v1/task/018f0000-0000-4000-8000-000000000000/result",
    ] {
        assert_problem(door.get(path).send().await.unwrap(), 404, "not-found").await;
    }
    let id = millrace_schemas::TaskId::mint();
    for query in ["wait=soon", "weight=1", "wait=-1s"] {
        let answer = door
            .get(&format!("/v1/task/{id}/status?{query}"))
            .send()
            .await
            .unwrap();
        assert_problem(answer, 400, "bad-request").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_type_of_a_problem_leads_to_its_explanation_and_the_api_describes_itself() {
    let scene = Scene::new("door_describes").await;
    let door = scene.open(&[]);
    let answer = door.get("/problems/rate-limited").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().contains("Retry-After"));
    let (_, api) = parts(door.get("/openapi.json").send().await.unwrap()).await;
    assert!(
        api["openapi"].as_str().unwrap().starts_with("3.1"),
        "{}",
        api["openapi"]
    );
    let paths: Vec<_> = api["paths"].as_object().unwrap().keys().collect();
    for path in [
        "/v1/task/submit",
        "/v1/tasks",
        "/v1/task/{id}/status",
        "/v1/task/{id}/result",
        "/v1/task/{id}/cancel",
        "/v1/task/{id}/events",
        "/v1/task/{id}/ws",
        "/v1/events",
    ] {
        assert!(paths.iter().any(|known| *known == path), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_is_no_text_names_nothing() {
    let scene = Scene::new("door_paths").await;
    let door = scene.open(&[]);
    for path in [
        "/v1/task/%FF/status",
        "/v1/task/%FF/events",
        "/problems/%FF",
    ] {
        assert_problem(door.get(path).send().await.unwrap(), 404, "not-found").await;
    }
    let cancel = door.post("/v1/task/%FF/cancel").send().await.unwrap();
    assert_problem(cancel, 404, "not-found").await;
    // An id of a time that has not come is nobody's.
    let path = "/v1/task/ffffffff-ffff-7fff-bfff-ffffffffffff/status";
    assert_problem(door.get(path).send().await.unwrap(), 404, "not-found").await;
}
