//! A web server that only reads the body of what is posted: what the front door's framework costs without it.

use std::net::Ipv4Addr;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

async fn read(body: Bytes) -> (StatusCode, String) {
    (
        StatusCode::ACCEPTED,
        format!("{{\"bytes\":{}}}", body.len()),
    )
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    eprintln!("listening at http://{}", listener.local_addr()?);
    let routes = Router::new().route("/v1/task/submit", post(read));
    let mut told = signal(SignalKind::terminate())?;
    axum::serve(listener, routes)
        .with_graceful_shutdown(async move {
            told.recv().await;
        })
        .await?;
    Ok(())
}
