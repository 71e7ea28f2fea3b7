//! Connections: accepted up to a number, each bounded in what it may hold and for how long it may be silent.
//!
//! HTTP/1.1 and HTTP/2 on one port, by TLS or in the clear. A connection that sends its head slowly, or half of
//! it, ends by itself; the others do not notice.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Response;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::util::MapResponse;

use super::connection::Connection;
use super::readers::look_after;

/// How long a request's head may take, from the first byte of the connection or the end of the former request.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a request's head, and of what is read ahead.
const HEAD_BYTES: usize = 32 * 1024;
/// Headers of a request.
const HEADERS: usize = 100;
/// Streams of one HTTP/2 connection.
const STREAMS: u32 = 1_000;
/// Bytes that a client may send ahead of being read, by HTTP/2: of all streams of a connection, and of one.
const CONNECTION_WINDOW: u32 = 256 * 1024;
const STREAM_WINDOW: u32 = 128 * 1024;
/// Resets that a client may ask for before its connection ends (CVE-2023-44487).
const RESETS: usize = 100;
/// How long a client may leave what it was sent unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// How often a quiet connection by HTTP/2 is asked whether the other side is there.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4_096;

/// Binds the address.
///
/// # Errors
/// It is in use, or not ours.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Another address to listen at, from some time on.
pub(crate) struct Wider {
    pub address: SocketAddr,
    /// Ends when that time has come.
    pub when: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Ends when it is time for the wider address, if there is one.
async fn time_for(wider: &mut Option<Wider>) {
    match wider {
        Some(wider) => wider.when.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Gives up a listener for one at another address, or stays where that cannot be had.
async fn moved(old: TcpListener, address: SocketAddr) -> TcpListener {
    let narrow = old.local_addr().unwrap_or(address);
    // The two may share a port.
    drop(old);
    loop {
        match bind(address) {
            Ok(listener) => {
                tracing::info!(%address, "there are keys now: listening at the whole address");
                return listener;
            }
            Err(error) => {
                tracing::error!(%error, %address, "cannot listen there: staying at {narrow}")
            }
        }
        match bind(narrow) {
            Ok(listener) => return listener,
            Err(error) => tracing::error!(%error, address = %narrow, "cannot listen"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Serves until `stop`, then lets requests end for as long as `patience`.
pub(crate) async fn serve(
    mut listener: TcpListener,
    mut wider: Option<Wider>,
    tls: Option<TlsAcceptor>,
    router: Router,
    most: usize,
    stop: CancellationToken,
    patience: Duration,
) {
    let room = Arc::new(Semaphore::new(most));
    let graceful = GracefulShutdown::new();
    let builder = builder();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            // Those beyond the number wait in the backlog, and beyond that are refused by the system.
            Ok(place) = room.clone().acquire_owned() => place,
        };
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            () = time_for(&mut wider) => {
                if let Some(wider) = wider.take() {
                    listener = moved(listener, wider.address).await;
                }
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, or a connection that died on the way.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        configure(&stream);
        // Cancelled when a reader takes nothing.
        let cut = CancellationToken::new();
        let service = TowerToHyperService::new(MapResponse::new(router.clone(), {
            let cut = cut.clone();
            move |response: Response<Body>| look_after(response, &cut)
        }));
        let (builder, watcher) = (builder.clone(), graceful.watcher());
        // Two kinds of tasks: a connection in the clear does not carry what TLS needs.
        match tls.clone() {
            None => tokio::spawn(async move {
                let stream = TokioIo::new(Connection::new(stream, place, HEAD_PATIENCE));
                let connection = builder.serve_connection_with_upgrades(stream, service);
                ended(watcher.watch(connection.into_owned()), cut).await;
            }),
            Some(tls) => tokio::spawn(async move {
                let Ok(Ok(stream)) = timeout(HANDSHAKE_PATIENCE, tls.accept(stream)).await else {
                    return;
                };
                let stream = TokioIo::new(Connection::new(stream, place, HEAD_PATIENCE));
                let connection = builder.serve_connection_with_upgrades(stream, service);
                ended(watcher.watch(connection.into_owned()), cut).await;
            }),
        };
    }
    drop(listener);
    if timeout(patience, graceful.shutdown()).await.is_err() {
        tracing::info!("connections that did not end were cut");
    }
}

/// Serves a connection to its end, or until it is cut.
async fn ended(
    connection: impl Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>>,
    cut: CancellationToken,
) {
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended badly");
            }
        }
        () = cut.cancelled() => {}
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES)
        // A client that has sent all that it has may still read.
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .max_send_buf_size(HEAD_BYTES)
        .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESETS)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    builder
}

/// Small answers leave at once, and a client that takes nothing is noticed. No keepalive of TCP: requests end in time
/// and streams say that they live, while the probes of thousands of quiet connections would go out at one instant, be
/// lost in part, and end connections that are well.
fn configure(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let _ = stream.set_nodelay(true);
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
}
