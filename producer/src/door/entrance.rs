//! Where every request comes in, of either protocol: it gets an id, goes to the paths of HTTP or the services of
//! gRPC, is counted and timed, and whoever reads its answer is looked after.
//!
//! One service, not a stack of layers: each layer of a router costs what waits a box of a kilobyte and more.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use millrace_telemetry::DoorRoute;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::Service as _;

use super::readers::look_after;
use super::state::Door;
use super::{grpc, http};

/// The request's id: the caller's, or one of ours; it stands in our log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id of a caller that is taken over, in bytes.
const REQUEST_ID_BYTES: usize = 128;

/// What a front door serves.
pub(crate) struct Served {
    /// The paths of HTTP.
    pub paths: Router,
    /// The services of gRPC.
    pub calls: Routes,
    pub door: Arc<Door>,
}

/// The way in for one connection.
pub(crate) struct Entrance {
    served: Arc<Served>,
    /// Ends the connection whose reader takes nothing.
    cut: CancellationToken,
}

impl Entrance {
    pub(crate) fn new(served: Arc<Served>, cut: CancellationToken) -> Self {
        Self { served, cut }
    }
}

impl hyper::service::Service<Request<Incoming>> for Entrance {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let request = request.map(Body::new);
        let (served, cut) = (self.served.clone(), self.cut.clone());
        if grpc::is_call(&request) {
            let seen = Seen::of(&request, grpc::route(request.uri().path()));
            let answer = grpc::answer(served.calls.clone(), served.door.clone(), request);
            Box::pin(async move {
                let response = answer.await;
                let status = grpc::status(response.headers());
                Ok(seen.answered(&served.door, response, status, &cut))
            })
        } else {
            let seen = Seen::of(&request, http::route(request.uri().path()));
            let answer = served.paths.clone().call(request);
            Box::pin(async move {
                let response = answer.await?;
                let status = response.status().as_u16();
                Ok(seen.answered(&served.door, response, status, &cut))
            })
        }
    }
}

/// What is kept of a request until it is answered.
struct Seen {
    began: Instant,
    route: DoorRoute,
    id: HeaderValue,
    method: Method,
    path: Box<str>,
}

impl Seen {
    fn of(request: &Request<Body>, route: DoorRoute) -> Self {
        Self {
            began: Instant::now(),
            route,
            id: request_id(request.headers()),
            method: request.method().clone(),
            path: request.uri().path().into(),
        }
    }

    /// The answer as it leaves. `status` is what HTTP has for it.
    fn answered(
        self,
        door: &Door,
        mut response: Response<Body>,
        status: u16,
        cut: &CancellationToken,
    ) -> Response<Body> {
        let Self {
            began,
            route,
            id,
            method,
            path,
        } = self;
        if status == 500 {
            tracing::error!(request_id = ?id, %method, %path, "a request failed");
        } else {
            tracing::debug!(request_id = ?id, %method, %path, status, "answered");
        }
        door.metrics.answered(route, status, began.elapsed());
        response.headers_mut().insert(REQUEST_ID, id);
        look_after(response, cut)
    }
}

fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(&REQUEST_ID).filter(|value| {
        value.len() <= REQUEST_ID_BYTES && value.to_str().is_ok_and(|text| !text.is_empty())
    });
    // A copy: it would keep the whole of the request's head.
    let given = given.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
    given.unwrap_or_else(|| {
        let id = millrace_schemas::TaskId::mint().to_string();
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
    })
}
