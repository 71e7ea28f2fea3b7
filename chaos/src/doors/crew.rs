//! The front doors of a round: opened, killed, opened again at the same address, and told to go.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Stdio};
use std::time::Duration;

use millrace_devstack::ProcessMark;
use nix::sys::signal::Signal;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::error::ChaosError;
use crate::place::Place;
use crate::servers::Servers;

/// How long a front door may take until it listens.
const OPENS: Duration = Duration::from_secs(30);
/// How long it may take to go.
const LEAVE: Duration = Duration::from_secs(30);

struct Door {
    address: SocketAddr,
    running: Option<(Child, ProcessMark)>,
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some((child, _)) = self.running.as_mut() {
            // Both fail only when it has been waited for already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// See the module.
pub(super) struct Doors {
    place: Place,
    doors: Vec<Door>,
    opened: usize,
    surprises: Vec<String>,
}

impl Doors {
    /// Addresses for so many, none of them open.
    pub(super) fn new(place: Place, count: usize) -> Result<Self, ChaosError> {
        // All at once, so that no two get the same port.
        let free: Vec<TcpListener> = (0..count)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<Result<_, _>>()
            .map_err(ChaosError::io("find a free port"))?;
        let doors = free
            .iter()
            .map(|listener| {
                let address = listener.local_addr()?;
                Ok(Door {
                    address,
                    running: None,
                })
            })
            .collect::<Result<_, std::io::Error>>()
            .map_err(ChaosError::io("find a free port"))?;
        Ok(Self {
            place,
            doors,
            opened: 0,
            surprises: Vec::new(),
        })
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.doors.iter().map(|door| door.address).collect()
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, index: usize) {
        if let Some((mut child, _)) = self.doors.get_mut(index).and_then(|d| d.running.take()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Opens those that are not open, and waits until they listen.
    pub(super) async fn open_all(&mut self, servers: &Servers) -> Result<(), ChaosError> {
        for index in 0..self.doors.len() {
            if let Some(door) = self.doors.get(index)
                && door.running.is_none()
            {
                let address = door.address;
                let running = self.open(servers, address)?;
                if let Some(door) = self.doors.get_mut(index) {
                    door.running = Some(running);
                }
                self.listens(address).await?;
            }
        }
        Ok(())
    }

    /// Opens those again that ended by themselves, which nobody had told to.
    pub(super) async fn reopen(&mut self, servers: &Servers) -> Result<(), ChaosError> {
        for door in &mut self.doors {
            let ended = door
                .running
                .as_mut()
                .and_then(|(child, _)| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                door.running = None;
                self.surprises.push(format!(
                    "the front door at {} ended by itself: {status}",
                    door.address
                ));
            }
        }
        self.open_all(servers).await
    }

    fn open(
        &mut self,
        servers: &Servers,
        address: SocketAddr,
    ) -> Result<(Child, ProcessMark), ChaosError> {
        self.opened += 1;
        let log = self.place.dir.join(format!("door-{}.log", self.opened));
        let output = File::create(&log).map_err(ChaosError::io("make a front door's log"))?;
        let child = self
            .place
            .command(servers, "producer")
            .args(["serve", "--listen", &address.to_string()])
            .args(["--metrics-listen", "127.0.0.1:0"])
            .env("RUST_LOG", "info,librdkafka=warn")
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .map_err(ChaosError::io("start producer serve"))?;
        let Some(mark) = ProcessMark::of(child.id()) else {
            return Err(ChaosError::Command {
                command: "producer serve".to_owned(),
                status: "ended at once".to_owned(),
                output: std::fs::read_to_string(&log).unwrap_or_default(),
            });
        };
        Ok((child, mark))
    }

    async fn listens(&self, address: SocketAddr) -> Result<(), ChaosError> {
        let deadline = Instant::now() + OPENS;
        while TcpStream::connect(address).await.is_err() {
            if Instant::now() >= deadline {
                return Err(ChaosError::TooSlow {
                    what: format!(
                        "opening a front door at {address}, see door-{}.log",
                        self.opened
                    ),
                    limit: OPENS,
                });
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// SIGTERM to all. Says how those ended that did not end in order, then and before.
    pub(super) async fn dismiss(mut self) -> Vec<String> {
        let mut complaints = std::mem::take(&mut self.surprises);
        for door in &mut self.doors {
            let Some((child, mark)) = door.running.as_mut() else {
                continue;
            };
            mark.signal(Signal::SIGTERM);
            let deadline = Instant::now() + LEAVE;
            let ended = loop {
                match child.try_wait() {
                    Ok(None) if Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
                    ended => break ended.ok().flatten(),
                }
            };
            match ended {
                Some(status) if status.success() => {}
                Some(status) => complaints.push(format!(
                    "the front door at {} left with {status}",
                    door.address
                )),
                None => complaints.push(format!(
                    "the front door at {} did not leave within {} s of SIGTERM",
                    door.address,
                    LEAVE.as_secs()
                )),
            }
        }
        complaints
    }
}
