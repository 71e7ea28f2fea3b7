//! Asks a running process for its health, for container health checks in images without a shell.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long to wait for the connection, and again for the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// More than any health answer.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// Why a process is not known to be healthy.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nobody answered at the address within two seconds.
    #[error("no answer from {addr}: {source}")]
    NoAnswer {
        /// Who was asked.
        addr: SocketAddr,
        /// What the connection said.
        source: io::Error,
    },
    /// The process answered that it is not well, or something else answered.
    #[error("{addr} answered: {answer}")]
    Unhealthy {
        /// Who was asked.
        addr: SocketAddr,
        /// The status line and the body.
        answer: String,
    },
}

/// Asks `GET /healthz` at `addr` and succeeds on 200. An unspecified address (`0.0.0.0`, `::`),
/// as given to `--metrics-listen`, means this machine.
///
/// # Errors
/// Nobody answers in time, or the answer is not 200.
pub fn probe(addr: SocketAddr) -> Result<(), ProbeError> {
    let addr = reachable(addr);
    let answer = ask(addr).map_err(|source| ProbeError::NoAnswer { addr, source })?;
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    let status = answer.lines().next().unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Err(ProbeError::Unhealthy {
        addr,
        answer: format!("{status} {body}"),
    })
}

fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

fn ask(addr: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET /healthz HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
