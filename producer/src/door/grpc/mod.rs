//! The front door's gRPC: the same tasks, tenants, names and limits as by HTTP, on the same port.
//!
//! `millrace.v1.Tasks`, with the health and reflection services beside it. Refusals become status codes, each with the
//! stable name of its problem in the metadata.

mod convert;
mod incoming;
mod refusal;
mod service;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, header};
use millrace_telemetry::DoorRoute;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::ServiceExt as _;

use self::incoming::Incoming;
use self::service::Service;
use super::http::api_key;
use super::state::Door;
use crate::v1::tasks_server::TasksServer;

/// The description of the services, for reflection.
const DESCRIPTION: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tasks.bin"));

/// Bounds of a call that needs no key.
const QUESTION_BYTES: usize = 4_096;
const QUESTION_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a message beside its content, and some more: what is too large by little is for the service to say.
const FRAMING_BYTES: usize = 1_024;

/// All services. `ready` decides what the health service says.
///
/// # Errors
/// The description of the services does not fit them, which is a defect.
pub(crate) fn routes(
    door: Arc<Door>,
    mut ready: watch::Receiver<bool>,
) -> Result<Routes, tonic_reflection::server::Error> {
    let most = door.bounds.body_bytes;
    let (reporter, health) = tonic_health::server::health_reporter();
    tokio::spawn(async move {
        loop {
            if *ready.borrow_and_update() {
                reporter.set_serving::<TasksServer<Service>>().await;
            } else {
                reporter.set_not_serving::<TasksServer<Service>>().await;
            }
            if ready.changed().await.is_err() {
                return;
            }
        }
    });
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTION)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let tasks = TasksServer::new(Service::new(door)).max_decoding_message_size(most);
    Ok(Routes::new(tasks)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        // Many tools still speak the older version only.
        .add_service(reflection().build_v1alpha()?)
        .prepare())
}

/// Whether a request is a call of gRPC.
pub(crate) fn is_call(request: &Request<Body>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Answers a call.
pub(crate) async fn answer(
    routes: Routes,
    door: Arc<Door>,
    request: Request<Body>,
) -> Response<Body> {
    let path = request.uri().path();
    let is_stream = path.ends_with("/SubmitStream") || path.contains("ServerReflection");
    let (most, patience) = (door.bounds.body_bytes, door.bounds.body_patience);
    // Whoever has no key takes no memory from those who have one.
    let (bodies, most, patience) = if path.starts_with("/millrace.v1.Tasks/") {
        let caller = api_key(request.headers()).and_then(|key| door.gate.admit(key));
        match caller {
            // The service itself says which message of a stream is too large, after it has answered those before.
            Ok(_) if is_stream => (&door.bodies, usize::MAX, patience),
            Ok(_) => (&door.bodies, most.saturating_add(FRAMING_BYTES), patience),
            Err(refusal) => {
                let mut response = Status::from(refusal).into_http();
                refusal::name(response.headers_mut());
                return response;
            }
        }
    } else {
        (&door.questions, QUESTION_BYTES, QUESTION_PATIENCE)
    };
    let held = bodies.nothing();
    let request =
        request.map(|body| Body::new(Incoming::new(body, held, patience, !is_stream, most)));
    match routes.oneshot(request).await {
        Ok(response) => {
            let mut response = response.map(Body::new);
            refusal::name(response.headers_mut());
            response
        }
        Err(never) => match never {},
    }
}

/// The route of a call, as metrics name it.
pub(crate) fn route(path: &str) -> DoorRoute {
    match path.strip_prefix("/millrace.v1.Tasks/") {
        Some("Submit") => DoorRoute::Submit,
        Some("SubmitStream") => DoorRoute::SubmitMany,
        Some("Get") => DoorRoute::Status,
        Some("Wait") => DoorRoute::Result,
        Some("Watch") => DoorRoute::Watch,
        Some("Cancel") => DoorRoute::Cancel,
        _ => DoorRoute::Other,
    }
}

/// The status that HTTP would have for how a call was answered; of one that ends later, for its begin.
pub(crate) fn status(headers: &HeaderMap) -> u16 {
    let Some(status) = Status::from_header_map(headers) else {
        return 200;
    };
    match status.code() {
        Code::Ok => 200,
        Code::Internal | Code::DataLoss => 500,
        Code::Unknown | Code::Unavailable | Code::DeadlineExceeded => 503,
        _ => 400,
    }
}
