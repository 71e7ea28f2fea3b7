//! The lines between workers and servers, and all that can go wrong with a line.
//!
//! Each line listens on a port of its own and forwards to one server. Its weather may change at any time:
//! connections are cut or refused, bytes arrive slowly, late or not at all while both ends stay connected.
//! What is held back is delivered once the line has healed, as TCP would.

mod pump;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How a line behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// New connections are closed at once.
    pub refuse: bool,
    /// Nothing is delivered either way.
    pub hole: bool,
    /// Bytes a second each way; none is no limit.
    pub bytes_per_s: Option<u32>,
    /// Every piece comes so much later.
    pub latency: Duration,
}

/// The state that all connections of a line watch.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    weather: Weather,
    /// Connections of an earlier number are cut.
    cuts: u64,
}

/// One line, from a port of its own to a port of 127.0.0.1.
pub struct Line {
    port: u16,
    target: Arc<AtomicU16>,
    state: Arc<watch::Sender<State>>,
    listening: JoinHandle<()>,
}

impl Line {
    /// A line that leads nowhere yet: until [`lead_to`](Self::lead_to), connections are refused.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let target = Arc::new(AtomicU16::new(0));
        let state = Arc::new(watch::Sender::new(State::default()));
        let listening = tokio::spawn(listen(listener, Arc::clone(&target), Arc::clone(&state)));
        Ok(Self {
            port,
            target,
            state,
            listening,
        })
    }

    /// Where workers connect to, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on, new connections go to this port of 127.0.0.1.
    pub fn lead_to(&self, port: u16) {
        self.target.store(port, Ordering::Release);
    }

    /// Ends all connections that there are; new ones are taken.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Changes the weather for old and new connections.
    pub fn set(&self, weather: Weather) {
        self.state.send_modify(|state| state.weather = weather);
    }

    /// Fair weather: everything flows.
    pub fn heal(&self) {
        self.set(Weather::default());
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

async fn listen(listener: TcpListener, target: Arc<AtomicU16>, state: Arc<watch::Sender<State>>) {
    loop {
        // A failed accept is the client's trouble: it comes again.
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let port = target.load(Ordering::Acquire);
        if port == 0 || state.borrow().weather.refuse {
            continue;
        }
        let watching = state.subscribe();
        tokio::spawn(async move {
            let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if let Ok(server) = TcpStream::connect(server).await {
                pump::forward(client, server, watching).await;
            }
        });
    }
}

#[cfg(test)]
#[path = "proxy_test.rs"]
mod tests;
