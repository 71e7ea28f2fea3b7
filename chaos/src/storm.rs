//! Does to workers and servers what the plan says, when it says so, and heals everything afterwards.
//!
//! One task walks through the plan; what takes time, such as the start of a broker, goes on beside it. What
//! was begun has ended, and what was broken is whole, when it returns.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::crew::{Crew, Worker};
use crate::error::ChaosError;
use crate::place::Place;
use crate::plan::{Fault, FaultKind, Handlers, Plan, Target, types};
use crate::proxy::Weather;
use crate::servers::{Servers, connect, freeze, thaw};

const TICK: Duration = Duration::from_millis(10);

/// What is to be done later because of something done before.
#[derive(Debug, Clone, Copy)]
enum Sequel {
    Thaw,
    HealLines(Target),
    Join,
    Leave { by_kill: bool },
}

struct Storm<'a> {
    servers: &'a Arc<Servers>,
    place: &'a Place,
    crew: &'a mut Crew,
    sequels: VecDeque<(Instant, Sequel)>,
    frozen: Vec<millrace_devstack::ProcessMark>,
    beside: JoinSet<Result<(), ChaosError>>,
    leaving: Vec<Worker>,
    joined: u32,
}

/// Injects the plan's faults; how many of each kind.
///
/// # Errors
/// When a server does not come back.
pub async fn rage(
    servers: &Arc<Servers>,
    place: &Place,
    crew: &mut Crew,
    plan: &Plan,
    began: Instant,
    length: Duration,
) -> Result<BTreeMap<&'static str, u32>, ChaosError> {
    let mut injected = BTreeMap::new();
    let mut storm = Storm {
        servers,
        place,
        crew,
        sequels: VecDeque::new(),
        frozen: Vec::new(),
        beside: JoinSet::new(),
        leaving: Vec::new(),
        joined: 0,
    };
    let mut faults: VecDeque<Fault> = plan.faults.iter().copied().collect();
    let storm_end = began + length;
    while !faults.is_empty() || !storm.sequels.is_empty() || Instant::now() < storm_end {
        let now = Instant::now();
        while let Some(fault) =
            faults.pop_front_if(|fault| began + Duration::from_millis(fault.at_ms.into()) <= now)
        {
            storm.crew.note(fault.to_string());
            *injected.entry(fault.kind.name()).or_default() += 1;
            storm.inject(fault.kind).await;
        }
        storm.follow_up(now)?;
        storm.crew.fill(servers)?;
        sleep(TICK).await;
    }
    storm.calm().await?;
    Ok(injected)
}

impl Storm<'_> {
    async fn inject(&mut self, kind: FaultKind) {
        match kind {
            FaultKind::KillWorker { slot } => _ = self.crew.kill(slot),
            FaultKind::FreezeWorker { slot, ms } => {
                let processes = self.crew.processes(Some(slot));
                self.freeze(processes, ms);
            }
            FaultKind::Storm { joins, every_ms } => {
                for number in 0..joins {
                    self.later(number * every_ms, Sequel::Join);
                    let by_kill = number % 2 == 0;
                    self.later((joins + number) * every_ms, Sequel::Leave { by_kill });
                }
            }
            FaultKind::KillBroker { broker, down_ms } => {
                let servers = Arc::clone(self.servers);
                let down = Duration::from_millis(down_ms.into());
                self.beside
                    .spawn(async move { servers.kill_broker(broker, down).await });
            }
            FaultKind::FreezeBroker { broker, ms } => {
                let processes = self.servers.broker_processes(broker).await;
                self.freeze(processes, ms);
            }
            FaultKind::KillPostgres { down_ms } => {
                let servers = Arc::clone(self.servers);
                let down = Duration::from_millis(down_ms.into());
                self.beside
                    .spawn(async move { servers.kill_postgres(down).await });
            }
            FaultKind::FreezePostgres { ms } => {
                let processes = self.servers.postgres_processes().await;
                self.freeze(processes, ms);
            }
            FaultKind::Cut(target) => self.servers.cut(target),
            FaultKind::Refuse(target, ms) => {
                let refuse = true;
                self.set(
                    target,
                    ms,
                    Weather {
                        refuse,
                        ..Weather::default()
                    },
                );
                self.servers.cut(target);
            }
            FaultKind::Slow(target, ms) => {
                let weather = Weather {
                    bytes_per_s: Some(40_000),
                    latency: Duration::from_millis(40),
                    ..Weather::default()
                };
                self.set(target, ms, weather);
            }
            FaultKind::Hole(target, ms) => {
                let hole = true;
                self.set(
                    target,
                    ms,
                    Weather {
                        hole,
                        ..Weather::default()
                    },
                );
            }
            FaultKind::FreezeAll { ms } => {
                let mut processes = self.crew.processes(None);
                processes.extend(self.servers.postgres_processes().await);
                for broker in 0..self.servers.brokers() {
                    processes.extend(self.servers.broker_processes(broker).await);
                }
                self.freeze(processes, ms);
            }
            FaultKind::PauseType { ms } => self.pause(ms),
            FaultKind::LateClaim { partition } => self.claim_late(partition),
        }
    }

    /// As the statement of a worker that is not there any more would; when the database is away it never comes.
    fn claim_late(&mut self, partition: i32) {
        let (servers, schema) = (Arc::clone(self.servers), self.place.schema());
        self.beside.spawn(async move {
            let Ok(mut connection) = connect(servers.database_url(), &schema).await else {
                return Ok(());
            };
            // Nobody waits for the answer.
            let _ = sqlx::query(
                "UPDATE partition_progress SET claim = gen_random_uuid(), owner = 'a dead worker', seq = seq + 1, \
                   claimed_at = now(), unclean_starts = unclean_starts + 1 WHERE partition = $1",
            )
            .bind(partition)
            .execute(&mut connection)
            .await;
            Ok(())
        });
    }

    /// As an operator would: by the command, again when the database is away.
    fn pause(&mut self, ms: u32) {
        if self.place.handlers == Handlers::Stock {
            return;
        }
        let (servers, place) = (Arc::clone(self.servers), self.place.clone());
        self.beside.spawn(async move {
            let quick = ["--type", types::QUICK];
            let pause = [&["pause"], &quick[..], &["--reason", "chaos"]].concat();
            let resume = [&["resume"], &quick[..]].concat();
            insist(&place, &servers, &pause).await?;
            sleep(Duration::from_millis(ms.into())).await;
            insist(&place, &servers, &resume).await
        });
    }

    fn freeze(&mut self, processes: Vec<millrace_devstack::ProcessMark>, ms: u32) {
        freeze(&processes);
        self.frozen.extend(processes);
        self.later(ms, Sequel::Thaw);
    }

    fn set(&mut self, target: Target, ms: u32, weather: Weather) {
        self.servers.set(target, weather);
        self.later(ms, Sequel::HealLines(target));
    }

    fn later(&mut self, ms: u32, sequel: Sequel) {
        let at = Instant::now() + Duration::from_millis(ms.into());
        self.sequels.push_back((at, sequel));
    }

    fn follow_up(&mut self, now: Instant) -> Result<(), ChaosError> {
        let (due, rest): (VecDeque<_>, VecDeque<_>) =
            self.sequels.drain(..).partition(|(at, _)| *at <= now);
        self.sequels = rest;
        for (_, sequel) in due {
            match sequel {
                // All that are frozen wake together; what was killed meanwhile hears nothing.
                Sequel::Thaw => thaw(&std::mem::take(&mut self.frozen)),
                Sequel::HealLines(target) => self.servers.set(target, Weather::default()),
                Sequel::Join => {
                    self.crew.join(self.servers)?;
                    self.joined += 1;
                }
                Sequel::Leave { by_kill } if self.joined > 0 => {
                    self.joined -= 1;
                    if by_kill {
                        self.crew.shrink_by_kill();
                    } else {
                        self.leaving.extend(self.crew.shrink());
                    }
                }
                Sequel::Leave { .. } => {}
            }
        }
        Ok(())
    }

    async fn calm(&mut self) -> Result<(), ChaosError> {
        thaw(&std::mem::take(&mut self.frozen));
        thaw(&self.crew.processes(None));
        self.servers.heal().await;
        while let Some(done) = self.beside.join_next().await {
            done.map_err(std::io::Error::other)
                .map_err(ChaosError::io("inject a fault"))??;
        }
        for worker in std::mem::take(&mut self.leaving) {
            // One that was frozen or cut off on its way out may be late: the second signal is for that.
            self.crew.see_off(worker).await;
        }
        Ok(())
    }
}

async fn insist(place: &Place, servers: &Servers, arguments: &[&str]) -> Result<(), ChaosError> {
    let mut tries = 0;
    loop {
        match place.run(servers, "consumer", arguments).await {
            Ok(_) => return Ok(()),
            Err(error) if tries == 20 => return Err(error),
            Err(_) => tries += 1,
        }
        sleep(Duration::from_millis(500)).await;
    }
}
