//! A line to Postgres that can fail: held back, cut, or cut between a COMMIT and its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of a piece of what a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// The connection ends, the piece does not arrive.
    Cut,
    /// The piece arrives, its answer does not.
    CutBeforeAnswer,
    /// The piece waits until the line is released; both ends stay connected.
    Hold,
}

/// Judges a piece of what a client sends.
pub type Judge = dyn Fn(&[u8]) -> Verdict + Send + Sync;

/// Listens on a port of its own and forwards to a server.
pub struct Proxy {
    address: SocketAddr,
    server: SocketAddr,
    line: Arc<Line>,
    listening: JoinHandle<()>,
}

struct Line {
    judge: Box<Judge>,
    cuts: AtomicU64,
    holds: AtomicU64,
    released: watch::Sender<bool>,
}

impl Proxy {
    /// A line to the Postgres of `url`.
    pub async fn to(url: &str, judge: Box<Judge>) -> Proxy {
        let server = server_of(url);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let line = Arc::new(Line {
            judge,
            cuts: AtomicU64::new(0),
            holds: AtomicU64::new(0),
            released: watch::Sender::new(false),
        });
        let shared = Arc::clone(&line);
        let listening = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let line = Arc::clone(&shared);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        line.forward(client, server).await;
                    }
                });
            }
        });
        Proxy {
            address,
            server,
            line,
            listening,
        }
    }

    /// The database's address by way of this line.
    pub fn url(&self, url: &str) -> String {
        url.replace(&self.server.to_string(), &self.address.to_string())
    }

    pub fn cuts(&self) -> u64 {
        self.line.cuts.load(Ordering::Relaxed)
    }

    pub fn holds(&self) -> u64 {
        self.line.holds.load(Ordering::Relaxed)
    }

    /// Lets go what is held, and holds nothing any more.
    pub fn release(&self) {
        self.line.released.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Line {
    /// Forwards until either end closes or the judge cuts; dropping the halves closes both.
    async fn forward(&self, client: TcpStream, server: TcpStream) {
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::select! {
            () = self.questions(from_client, to_server) => {}
            () = answers(from_server, to_client) => {}
        }
    }

    async fn questions(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 16 << 10];
        let mut released = self.released.subscribe();
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let piece = &buffer[..count];
            let verdict = (self.judge)(piece);
            match verdict {
                Verdict::Cut => {
                    self.cuts.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Verdict::Hold if !*released.borrow() => {
                    self.holds.fetch_add(1, Ordering::Relaxed);
                    if released.wait_for(|released| *released).await.is_err() {
                        return;
                    }
                }
                Verdict::Hold | Verdict::Pass | Verdict::CutBeforeAnswer => {}
            }
            if to.write_all(piece).await.is_err() {
                return;
            }
            if verdict == Verdict::CutBeforeAnswer {
                self.cuts.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    // An end of either side is the end of the connection.
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

/// Whether the bytes hold the words.
pub fn says(piece: &[u8], words: &str) -> bool {
    piece
        .windows(words.len())
        .any(|window| window == words.as_bytes())
}

fn server_of(url: &str) -> SocketAddr {
    let (_, after) = url.split_once('@').unwrap();
    let (address, _) = after.split_once('/').unwrap();
    address.parse().unwrap()
}
