//! One HTTP request on a connection of its own, so that it meets whoever listens now.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Why a connection broke.
pub(super) type Broken = Box<dyn std::error::Error + Send + Sync>;

/// What is asked.
pub(super) struct Ask {
    pub method: Method,
    pub path: String,
    pub content_type: &'static str,
    pub header: Option<(&'static str, String)>,
    pub body: UnsyncBoxBody<Bytes, Infallible>,
}

impl Ask {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            content_type: "application/json",
            header: None,
            body: Full::default().boxed_unsync(),
        }
    }

    pub(super) fn post(path: impl Into<String>, body: &Value) -> Self {
        Self {
            method: Method::POST,
            body: Full::new(Bytes::from(body.to_string())).boxed_unsync(),
            ..Self::get(path)
        }
    }

    /// Posts lines as they come from the channel.
    pub(super) fn post_lines(path: impl Into<String>, lines: mpsc::Receiver<Bytes>) -> Self {
        let frames = stream::unfold(lines, |mut lines| async {
            let line = lines.recv().await?;
            Some((Ok(Frame::data(line)), lines))
        });
        Self {
            method: Method::POST,
            content_type: "application/x-ndjson",
            body: StreamBody::new(frames).boxed_unsync(),
            ..Self::get(path)
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.header = Some((name, value.into()));
        self
    }
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub body: Bytes,
    headers: HeaderMap,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn content_type(&self) -> &str {
        self.header(CONTENT_TYPE.as_str()).unwrap_or_default()
    }

    pub(super) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    pub(super) fn text(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        format!("{} {}: {body}", self.status, self.content_type())
    }
}

/// An answer of which the head has come.
pub(super) struct Opened {
    pub status: u16,
    headers: HeaderMap,
    body: Incoming,
    /// What has come and is not taken yet.
    pending: BytesMut,
}

impl Opened {
    /// The rest, to its end.
    pub(super) async fn whole(self) -> Result<Answer, Broken> {
        Ok(Answer {
            status: self.status,
            headers: self.headers,
            body: self.body.collect().await?.to_bytes(),
        })
    }

    /// The next piece up to this end, which is not a part of it; `None` once the answer has ended in order. May be
    /// dropped and called again.
    pub(super) async fn piece(&mut self, end: &[u8]) -> Result<Option<Bytes>, Broken> {
        loop {
            let found = self.pending.windows(end.len()).position(|some| some == end);
            if let Some(at) = found {
                let mut piece = self.pending.split_to(at + end.len());
                piece.truncate(at);
                return Ok(Some(piece.freeze()));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.pending.extend_from_slice(&data);
                    }
                }
                None if self.pending.is_empty() => return Ok(None),
                None => return Err("the answer ended in the middle of a piece".into()),
            }
        }
    }
}

/// Sends a request, and reads the answer's head.
pub(super) async fn open(door: SocketAddr, ask: Ask) -> Result<Opened, Broken> {
    let stream = TcpStream::connect(door).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with its sender; what goes wrong is seen there.
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(ask.method)
        .uri(ask.path)
        .header(HOST, door.to_string())
        .header(CONTENT_TYPE, ask.content_type);
    if let Some((name, value)) = ask.header {
        request = request.header(name, value);
    }
    let answer = sender.send_request(request.body(ask.body)?).await?;
    let (head, body) = answer.into_parts();
    Ok(Opened {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
        pending: BytesMut::new(),
    })
}
