//! The HTTP listener of both binaries: `/metrics`, `/healthz`, `/readyz`, GET (and HEAD) only.
//!
//! It answers from memory, touches neither Kafka nor Postgres, and ends with the process's
//! shutdown token. Health answers are JSON: 200 when well, 503 naming each component and reason.

use crate::health::{Health, Report};
use crate::recorder::render;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The content type of the Prometheus text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Starts listening and returns the bound address (port 0 picks a free one). The listener runs
/// on its own task until `shutdown` is cancelled.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(
    listen: SocketAddr,
    health: Health,
    shutdown: CancellationToken,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let bound = listener.local_addr()?;
    let router = Router::new()
        .route("/metrics", routing::get(metrics))
        .route("/healthz", routing::get(healthz))
        .route("/readyz", routing::get(readyz))
        .with_state(health);
    tokio::spawn(async move {
        let ended =
            axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned());
        if let Err(error) = ended.await {
            tracing::error!(%error, %bound, "the metrics listener failed");
        }
    });
    Ok(bound)
}

async fn metrics(State(health): State<Health>) -> Response {
    health.publish();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], render()).into_response()
}

async fn healthz(State(health): State<Health>) -> Response {
    answer(&health.liveness())
}

async fn readyz(State(health): State<Health>) -> Response {
    answer(&health.readiness())
}

fn answer(report: &Report) -> Response {
    let status = if report.is_ok() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = serde_json::to_string(report).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
