//! The front doors of a round: opened, killed, opened again at the same address, and told to go. One that ends by
//! itself, at whatever time, is noted with its status and the end of its log, and opened again.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use millrace_devstack::ProcessMark;
use nix::sys::signal::Signal;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::lives::Lives;
use crate::error::ChaosError;
use crate::place::{Place, end_of};
use crate::servers::Servers;

/// How long a front door may take until it listens.
const OPENS: Duration = Duration::from_secs(30);
/// How long it may take to go.
const LEAVE: Duration = Duration::from_secs(30);
/// One that ends so often as it is opened will not stay.
const TRIES: usize = 3;
/// Where ports are looked for: below those that Linux gives to connections, for a caller that finds nobody listening
/// could otherwise get the very port and keep the front door from it.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

struct Running {
    child: Child,
    mark: ProcessMark,
    log: PathBuf,
}

impl Running {
    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// See the module.
pub(super) struct Doors {
    place: Place,
    lives: Arc<Lives>,
    doors: Vec<Option<Running>>,
    /// How often each was killed.
    killed: Vec<usize>,
    /// The logs of all that were ever opened.
    logs: Vec<PathBuf>,
    surprises: Vec<String>,
}

impl Doors {
    /// Addresses for so many, none of them open.
    pub(super) fn new(place: Place, count: usize) -> Result<Self, ChaosError> {
        Ok(Self {
            place,
            lives: Arc::new(Lives::new(&free_addresses(count)?)),
            doors: std::iter::repeat_with(|| None).take(count).collect(),
            killed: vec![0; count],
            logs: Vec::new(),
            surprises: Vec::new(),
        })
    }

    /// What callers may know of them.
    pub(super) fn lives(&self) -> Arc<Lives> {
        Arc::clone(&self.lives)
    }

    /// How often each was killed.
    pub(super) fn killed(&self) -> &[usize] {
        &self.killed
    }

    /// SIGKILL. One that had ended by itself is noted instead.
    pub(super) fn kill(&mut self, index: usize) {
        self.notice(index);
        let Some(mut running) = self.doors.get_mut(index).and_then(Option::take) else {
            return;
        };
        self.lives.down(index);
        let _ = running.child.kill();
        match running.child.wait() {
            Ok(status) if status.signal() == Some(Signal::SIGKILL as i32) => {
                if let Some(count) = self.killed.get_mut(index) {
                    *count += 1;
                }
            }
            Ok(status) => self.surprise(index, status, &running),
            Err(error) => self.surprises.push(format!(
                "front door {} cannot be waited for: {error}",
                index + 1
            )),
        }
    }

    /// Notes those that ended by themselves, opens those that are not open, and waits until they listen.
    pub(super) async fn open_all(&mut self, servers: &Servers) -> Result<(), ChaosError> {
        for index in 0..self.doors.len() {
            self.notice(index);
            let mut tries = 0;
            while self.doors.get(index).is_some_and(Option::is_none) {
                let running = self.open(servers, index)?;
                let log = running.log.clone();
                if let Some(door) = self.doors.get_mut(index) {
                    *door = Some(running);
                }
                self.listens(index).await?;
                tries += 1;
                if tries >= TRIES && self.doors.get(index).is_some_and(Option::is_none) {
                    return Err(ChaosError::Command {
                        command: "producer serve".to_owned(),
                        status: format!("ended {tries} times before it listened"),
                        output: end_of(&log),
                    });
                }
            }
        }
        Ok(())
    }

    /// Takes a front door out if it ended by itself, and notes how. Callers may not know: it is no excuse.
    fn notice(&mut self, index: usize) {
        let slot = self.doors.get_mut(index);
        let status = slot.and_then(|slot| slot.as_mut()?.ended());
        if let Some(status) = status
            && let Some(running) = self.doors.get_mut(index).and_then(Option::take)
        {
            self.surprise(index, status, &running);
        }
    }

    fn surprise(&mut self, index: usize, status: ExitStatus, running: &Running) {
        self.surprises.push(format!(
            "front door {} ended by itself: {status}; {}",
            index + 1,
            end_of(&running.log)
        ));
    }

    fn open(&mut self, servers: &Servers, index: usize) -> Result<Running, ChaosError> {
        let address = self.lives.address(index);
        let address = address.map(|address| address.to_string());
        let number = self.logs.len() + 1;
        let log = self.place.dir.join(format!("door-{number}.log"));
        let output = File::create(&log).map_err(ChaosError::io("make a front door's log"))?;
        self.logs.push(log.clone());
        let child = self
            .place
            .command(servers, "producer")
            .args(["serve", "--listen", &address.unwrap_or_default()])
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
                output: end_of(&log),
            });
        };
        Ok(Running { child, mark, log })
    }

    /// Waits until a front door listens, or has ended, which is noted.
    async fn listens(&mut self, index: usize) -> Result<(), ChaosError> {
        let deadline = Instant::now() + OPENS;
        while let Some(address) = self.lives.address(index) {
            if TcpStream::connect(address).await.is_ok() {
                self.lives.up(index);
                return Ok(());
            }
            self.notice(index);
            if self.doors.get(index).is_some_and(Option::is_none) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(ChaosError::TooSlow {
                    what: format!(
                        "opening a front door at {address}, see door-{}.log",
                        self.logs.len()
                    ),
                    limit: OPENS,
                });
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// SIGTERM to all. Says how those ended that did not end in order, then and before.
    pub(super) async fn dismiss(&mut self) -> Vec<String> {
        for index in 0..self.doors.len() {
            self.notice(index);
            let Some(mut running) = self.doors.get_mut(index).and_then(Option::take) else {
                continue;
            };
            running.mark.signal(Signal::SIGTERM);
            let deadline = Instant::now() + LEAVE;
            let ended = loop {
                match running.ended() {
                    None if Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
                    ended => break ended,
                }
            };
            let complaint = match ended {
                Some(status) if status.success() => continue,
                Some(status) => format!("left with {status}"),
                None => format!("did not leave within {} s of SIGTERM", LEAVE.as_secs()),
            };
            self.surprises.push(format!(
                "front door {} {complaint}; {}",
                index + 1,
                end_of(&running.log)
            ));
        }
        std::mem::take(&mut self.surprises)
    }

    /// The logs of all that were ever opened.
    pub(super) fn logs(&self) -> &[PathBuf] {
        &self.logs
    }
}

/// So many addresses that nobody listens at, no two the same.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, ChaosError> {
    // Rounds side by side begin at other places.
    let skipped = std::process::id() as usize * 37 % PORTS.len();
    let free: Vec<TcpListener> = PORTS
        .cycle()
        .skip(skipped)
        .take(PORTS.len())
        .filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .take(count)
        .collect();
    let addresses = free.iter().map(TcpListener::local_addr);
    addresses
        .collect::<Result<_, _>>()
        .map_err(ChaosError::io("find a free port"))
}
