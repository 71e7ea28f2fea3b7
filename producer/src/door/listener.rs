//! Connections: accepted up to a number, each bounded in what it may hold and for how long it may be silent.
//!
//! HTTP/1.1 and HTTP/2 on one port, by TLS or in the clear. A connection that sends its head slowly, or half of
//! it, ends by itself; the others do not notice.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Connection, Version, spoken};
use super::entrance::{Entrance, Served};

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
/// Bytes that a client may send ahead of being read, by HTTP/2: of all streams of a connection, and of one. h2 ends a
/// connection for what small DATA frames that were not read yet cost beyond their bytes, 256 each, once that is half
/// of its window: this one lets each stream have two of them.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
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
    served: Served,
    most: usize,
    stop: CancellationToken,
    patience: Duration,
) {
    let room = Arc::new(Semaphore::new(most));
    let open = TaskTracker::new();
    let speakers = Speakers::new();
    let served = Arc::new(served);
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
                    match stop.run_until_cancelled(moved(listener, wider.address)).await {
                        Some(moved) => listener = moved,
                        None => return ended(&open, &served.door.sockets, patience).await,
                    }
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
        let service = Entrance::new(served.clone(), cut.clone());
        let (speakers, stopping) = (speakers.clone(), stop.clone());
        // Two kinds of tasks: a connection in the clear does not carry what TLS needs.
        match tls.clone() {
            None => open.spawn(async move {
                let version = stopping.run_until_cancelled(spoken(&stream, HEAD_PATIENCE));
                if let Some(Some(version)) = version.await {
                    let stream = Connection::new(stream, place);
                    speakers
                        .serve(version, stream, service, stopping, cut)
                        .await;
                }
            }),
            Some(tls) => open.spawn(async move {
                let shaking = timeout(HANDSHAKE_PATIENCE, tls.accept(stream));
                let Some(Ok(Ok(stream))) = stopping.run_until_cancelled(shaking).await else {
                    return;
                };
                let version = match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => Version::Http2,
                    _ => Version::Http1,
                };
                let stream = Connection::new(stream, place);
                speakers
                    .serve(version, stream, service, stopping, cut)
                    .await;
            }),
        };
    }
    drop(listener);
    ended(&open, &served.door.sockets, patience).await;
}

/// Waits until connections and conversations have ended, for as long as `patience`.
async fn ended(open: &TaskTracker, sockets: &TaskTracker, patience: Duration) {
    open.close();
    sockets.close();
    let both = async {
        open.wait().await;
        sockets.wait().await;
    };
    if timeout(patience, both).await.is_err() {
        tracing::info!("connections that did not end were cut");
    }
}

/// How each version is spoken.
#[derive(Clone)]
struct Speakers {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Speakers {
    fn new() -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .max_headers(HEADERS)
            .max_buf_size(HEAD_BYTES)
            // A client that has sent all that it has may still read.
            .half_close(true);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .max_send_buf_size(HEAD_BYTES)
            .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(RESETS)
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE);
        Self { http1, http2 }
    }

    /// Serves a connection to its end, or until it is cut. From `stop` on it takes no other request.
    async fn serve<S>(
        self,
        version: Version,
        stream: Connection<S>,
        service: Entrance,
        stop: CancellationToken,
        cut: CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        // Boxed: they are large, and this would be as large for either.
        let connection = match version {
            Version::Http1 => {
                let connection = self.http1.serve_connection(stream, service);
                let mut connection = connection.with_upgrades();
                async move {
                    tokio::select! {
                        ended = &mut connection => return ended,
                        () = stop.cancelled() => Pin::new(&mut connection).graceful_shutdown(),
                    }
                    connection.await
                }
                .boxed()
            }
            Version::Http2 => {
                let mut connection = self.http2.serve_connection(stream, service);
                async move {
                    tokio::select! {
                        ended = &mut connection => return ended,
                        () = stop.cancelled() => Pin::new(&mut connection).graceful_shutdown(),
                    }
                    connection.await
                }
                .boxed()
            }
        };
        tokio::select! {
            ended = connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended badly");
                }
            }
            () = cut.cancelled() => {}
        }
    }
}

/// Small answers leave at once, and a client that takes nothing is noticed. No keepalive of TCP: requests end in time
/// and streams say that they live, while the probes of thousands of quiet connections would go out at one instant, be
/// lost in part, and end connections that are well.
fn configure(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let _ = stream.set_nodelay(true);
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
}
