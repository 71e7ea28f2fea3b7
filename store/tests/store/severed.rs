//! A wire to Postgres that can be cut around a COMMIT, to the byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the simple query `COMMIT` ends with on the wire.
const COMMIT: &[u8] = b"COMMIT\0";

/// Where the wire breaks at the next COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    Never = 0,
    /// The server has answered, and the client never hears of it.
    BeforeTheAnswer = 1,
    /// The server never hears of the COMMIT.
    BeforeTheCommit = 2,
}

/// The wire; it goes with the runtime of its test.
pub struct Wire {
    pub url: String,
    mode: Arc<AtomicU8>,
    broken: Arc<AtomicUsize>,
}

impl Wire {
    /// Listens on a free port and forwards to the server of `url`.
    pub async fn to(url: &str) -> Self {
        let (head, rest) = url.split_once("127.0.0.1:").expect("a server on 127.0.0.1");
        let (port, tail) = rest.split_once('/').unwrap();
        let server = format!("127.0.0.1:{port}");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let mode = Arc::new(AtomicU8::new(Break::Never as u8));
        let broken = Arc::new(AtomicUsize::new(0));
        let wire = Self {
            url: format!("{head}{here}/{tail}"),
            mode: Arc::clone(&mode),
            broken: Arc::clone(&broken),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = server.clone();
                let (mode, broken) = (Arc::clone(&mode), Arc::clone(&broken));
                tokio::spawn(async move {
                    // However a connection ends, the client only sees that it did.
                    let _ = carry(client, &server, &mode, &broken).await;
                });
            }
        });
        wire
    }

    /// Breaks at the next COMMIT, once.
    pub fn break_next(&self, at: Break) {
        self.mode.store(at as u8, Ordering::SeqCst);
    }

    /// How often it broke.
    pub fn broken(&self) -> usize {
        self.broken.load(Ordering::SeqCst)
    }
}

async fn carry(
    mut client: TcpStream,
    server: &str,
    mode: &AtomicU8,
    broken: &AtomicUsize,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            sent = client.read(&mut up) => {
                let sent = sent?;
                if sent == 0 {
                    return Ok(());
                }
                let commits = up[..sent].windows(COMMIT.len()).any(|bytes| bytes == COMMIT);
                let at = if commits { mode.swap(Break::Never as u8, Ordering::SeqCst) } else { 0 };
                if at == Break::BeforeTheCommit as u8 {
                    broken.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
                server.write_all(&up[..sent]).await?;
                if at == Break::BeforeTheAnswer as u8 {
                    // The answer means that it happened; it goes no further.
                    let _answer = server.read(&mut down).await?;
                    broken.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
            }
            answered = server.read(&mut down) => {
                let answered = answered?;
                if answered == 0 {
                    return Ok(());
                }
                client.write_all(&down[..answered]).await?;
            }
        }
    }
}
