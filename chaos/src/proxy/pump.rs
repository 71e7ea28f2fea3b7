//! Moves the bytes of one connection, as the weather of its line allows.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::sleep;

use super::State;

const PIECE: usize = 16 << 10;

/// Forwards both ways until both ends are done, either breaks, or the connection is cut. Dropping the halves
/// closes both sockets.
pub(super) async fn forward(client: TcpStream, server: TcpStream, state: watch::Receiver<State>) {
    // The proxy must not add a delay of its own.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let born = state.borrow().cuts;
    tokio::select! {
        () = cut(state.clone(), born) => {}
        () = both(
            pump(from_client, to_server, state.clone()),
            pump(from_server, to_client, state),
        ) => {}
    }
}

/// Returns when there was a cut after number `born`, or the line is gone.
async fn cut(mut state: watch::Receiver<State>, born: u64) {
    let _ = state.wait_for(|state| state.cuts != born).await;
}

async fn both(one: impl Future<Output = Ended>, other: impl Future<Output = Ended>) {
    let (mut one, mut other) = (std::pin::pin!(one), std::pin::pin!(other));
    tokio::select! {
        ended = &mut one => if ended == Ended::InOrder { other.await; },
        ended = &mut other => if ended == Ended::InOrder { one.await; },
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// One end said that it has no more to say; the other may still answer.
    InOrder,
    Broken,
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) -> Ended {
    let mut buffer = vec![0; PIECE];
    loop {
        let Ok(count) = from.read(&mut buffer).await else {
            return Ended::Broken;
        };
        let flows = state.wait_for(|state| !state.weather.hole).await;
        let Ok(weather) = flows.map(|state| state.weather) else {
            return Ended::Broken;
        };
        let delay = weather.latency + time_for(count, weather.bytes_per_s);
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if count == 0 {
            // The other end may be gone already.
            let _ = to.shutdown().await;
            return Ended::InOrder;
        }
        let Some(piece) = buffer.get(..count) else {
            return Ended::Broken;
        };
        if to.write_all(piece).await.is_err() {
            return Ended::Broken;
        }
    }
}

fn time_for(bytes: usize, bytes_per_s: Option<u32>) -> Duration {
    let Some(rate) = bytes_per_s.filter(|rate| *rate > 0) else {
        return Duration::ZERO;
    };
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    Duration::from_secs(1) * bytes / rate
}
