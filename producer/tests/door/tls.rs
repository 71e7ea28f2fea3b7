//! The door by TLS: HTTP and gRPC at one port, for whoever trusts its certificate.

use millrace_producer::client::{Client, ClientError, Task};
use serde_json::json;

use crate::scene::{Scene, parts};

/// A certificate for this machine that signs itself, and its key, in files.
struct Identity {
    certificate: String,
    _files: tempfile::TempDir,
    flags: [String; 4],
}

fn identity() -> Identity {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let certificate = made.cert.pem();
    let flags = [
        "--tls-certificate".to_owned(),
        write("certificate.pem", &certificate),
        "--tls-key".to_owned(),
        write("key.pem", &made.signing_key.serialize_pem()),
    ];
    Identity {
        certificate,
        _files: files,
        flags,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_protocols_are_spoken_by_tls_and_a_stranger_is_not_believed() {
    let scene = Scene::new("tls").await;
    let identity = identity();
    let flags: Vec<&str> = identity.flags.iter().map(String::as_str).collect();
    let door = scene.open(&flags);
    let _worker = scene.work();
    let base = door.base.replace("127.0.0.1", "localhost");
    assert!(base.starts_with("https://"), "{base}");

    let authority = reqwest::Certificate::from_pem(identity.certificate.as_bytes()).unwrap();
    let http = reqwest::Client::builder()
        .tls_certs_only([authority])
        .build()
        .unwrap();
    let task = json!({"type": "echo", "payload": 7});
    let submit = http
        .post(format!("{base}/v1/task/submit"))
        .header("prefer", "wait=20")
        .json(&task);
    let (status, body) = parts(submit.send().await.unwrap()).await;
    assert_eq!((status.as_u16(), body), (200, json!(7)));

    let client = Client::builder(&base)
        .certificate_authority(identity.certificate.clone())
        .connect()
        .await
        .unwrap();
    let task = || Task::json("echo", &"by grpc").unwrap();
    let result = client.submit(task()).await.unwrap().await.unwrap();
    assert_eq!(result.json::<String>().unwrap(), "by grpc");

    // Whoever trusts the usual authorities only hands nothing over, nor does whoever speaks in the clear; that one has
    // sent its task before it finds out.
    for (address, is_known) in [(base.clone(), true), (base.replace("https", "http"), false)] {
        let stranger = Client::connect(&address).await.unwrap();
        let refused = stranger.submit(task()).await.unwrap_err();
        let is_as_expected = match &refused {
            ClientError::Refused { problem, .. } => is_known && problem == "unreachable",
            ClientError::OutcomeUnknown { .. } => !is_known,
            _ => false,
        };
        assert!(is_as_expected, "{address}: {refused}");
    }
}

#[tokio::test]
async fn what_cannot_be_an_address_or_a_key_is_said_at_once() {
    let refused = |builder: millrace_producer::client::Builder| async {
        builder.connect().await.unwrap_err()
    };
    for address in [
        "tasks.example.com",
        "ftp://tasks.example.com",
        "",
        "http://",
    ] {
        let error = refused(Client::builder(address)).await;
        assert!(matches!(error, ClientError::Address(_)), "{address}");
    }
    let bad = Client::builder("https://tasks.example.com").certificate_authority("no PEM");
    assert!(matches!(refused(bad).await, ClientError::Address(_)));
    let bad = Client::builder("http://127.0.0.1:1").key("a\nb");
    assert!(matches!(refused(bad).await, ClientError::Key));
}
