//! A private Postgres cluster, made with the machine's own `initdb`.
//!
//! Durable as in production (`fsync` and `synchronous_commit` on), so what survives a kill here
//! survives there. It listens on 127.0.0.1 with a password of its own, and on a Unix socket in a
//! private folder. A cluster that is started again in the same folder keeps data, port and
//! password.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::postgres_account::Account;
use crate::postgres_programs::Programs;
use crate::process::{Lifetime, ServerProcess, ServerSpec, lock_file, run_tool};
use crate::{DevstackError, ProcessMark, ports};

const SERVER: &str = "Postgres";
const USER: &str = "millrace";
const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);

/// Settings that differ from Postgres' own, and why.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    // A laptop's share; the default of 128 MB makes checkpoints evict pages of the hot indexes.
    ("shared_buffers", "256MB"),
    // Bulk loads otherwise force a checkpoint every gigabyte.
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "15min"),
    // Test suites open a pool each, side by side.
    ("max_connections", "200"),
    // Compiling a plan costs more than any query here takes.
    ("jit", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
];

/// A Postgres of one's own. Dropping it ends it; killing the owning process ends it too.
#[derive(Debug)]
pub struct PrivatePostgres {
    programs: Programs,
    account: Account,
    home: PathBuf,
    port: u16,
    password: String,
    lifetime: Lifetime,
    process: Option<ServerProcess>,
    temp: Option<TempDir>,
}

impl PrivatePostgres {
    /// Starts the cluster in `dir`, making it first if there is none; ready when this returns.
    ///
    /// When root's folders are closed to other accounts, the data lies elsewhere: see
    /// [`home`](Self::home).
    ///
    /// # Errors
    /// Says what to install when there is no Postgres; shows the end of the log when it does not
    /// start.
    pub async fn start(dir: impl AsRef<Path>) -> Result<Self, DevstackError> {
        Self::launch(dir.as_ref(), None, Lifetime::Owned).await
    }

    /// Starts a fresh cluster in a temporary folder that disappears with it.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_temp() -> Result<Self, DevstackError> {
        let temp = tempfile::Builder::new()
            .prefix("millrace-pg-")
            .tempdir()
            .map_err(DevstackError::path(
                "create a folder in",
                std::env::temp_dir(),
            ))?;
        // The server's account must be able to pass; its data folder inside is closed.
        Account::make_passable(temp.path())?;
        let home = temp.path().join("pg");
        Self::launch(&home, Some(temp), Lifetime::Owned).await
    }

    /// Starts the cluster in `dir` as a background process that outlives this one.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_background(
        dir: impl AsRef<Path>,
    ) -> Result<(Self, ProcessMark), DevstackError> {
        let mut cluster = Self::launch(dir.as_ref(), None, Lifetime::Background).await?;
        let mark = cluster.take_process("running")?.leave_running();
        Ok((cluster, mark))
    }

    /// True when `url` leads to the private cluster of `dir`, running or not.
    #[must_use]
    pub fn is_url_of(dir: &Path, url: &str) -> bool {
        let Ok(account) = Account::choose() else {
            return false;
        };
        let Ok(wish) = std::path::absolute(dir) else {
            return false;
        };
        let password = read(&account.home_for(&wish).join("password"));
        password.is_ok_and(|password| url.contains(&format!("{USER}:{password}@")))
    }

    /// `postgres://` address over TCP, for sqlx, psql and everything else.
    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "postgres://{USER}:{}@127.0.0.1:{}/postgres",
            self.password, self.port
        )
    }

    /// The same database over its Unix socket; only this account and root may use it.
    #[must_use]
    pub fn socket_url(&self) -> String {
        let dir = self.home.join("run");
        format!(
            "postgres://{USER}@localhost:{}/postgres?host={}",
            self.port,
            dir.display()
        )
    }

    /// The TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that holds the data and the log.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The server's log file.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.home.join("postgres.log")
    }

    /// Stops in order ("fast": open transactions are rolled back, the rest is written out).
    ///
    /// # Errors
    /// When it is not running, or needs longer than 30 s.
    pub async fn stop(&mut self) -> Result<(), DevstackError> {
        self.take_process("running")?.stop(STOP).await
    }

    /// SIGKILL to the server and all its backends, as a crash of the machine's memory would.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill(&mut self) -> Result<(), DevstackError> {
        self.take_process("running")?.kill().await
    }

    /// Starts a stopped or killed server again: same port, same data.
    ///
    /// # Errors
    /// When it is still running, its port was taken by somebody, or it does not come up.
    pub async fn start_again(&mut self) -> Result<(), DevstackError> {
        if self.process.is_some() {
            return Err(wrong_state("running", "stopped"));
        }
        self.spawn().await
    }

    /// An orderly stop and a start.
    ///
    /// # Errors
    /// As [`stop`](Self::stop) and [`start_again`](Self::start_again).
    pub async fn restart(&mut self) -> Result<(), DevstackError> {
        self.stop().await?;
        self.start_again().await
    }

    /// The running server, for signals such as SIGSTOP.
    #[must_use]
    pub fn mark(&self) -> Option<ProcessMark> {
        self.process.as_ref().map(ServerProcess::mark)
    }

    async fn launch(
        dir: &Path,
        temp: Option<TempDir>,
        lifetime: Lifetime,
    ) -> Result<Self, DevstackError> {
        let programs = Programs::find()?;
        let account = Account::choose()?;
        let wish = std::path::absolute(dir).map_err(DevstackError::path("resolve", dir))?;
        let home = account.home_for(&wish);
        account.make_dir(&home)?;
        let _only_one = lock_file(home.join("lock")).await?;
        account.make_dir(&home.join("run"))?;
        if !home.join("data/PG_VERSION").exists() {
            make_cluster(&programs, account, &home).await?;
        }
        let port = choose_port(&home)?;
        let password = read(&home.join("password"))?;
        let mut cluster = Self {
            programs,
            account,
            home,
            port,
            password,
            lifetime,
            process: None,
            temp,
        };
        cluster.spawn().await?;
        Ok(cluster)
    }

    async fn spawn(&mut self) -> Result<(), DevstackError> {
        let socket_dir = self.socket_dir();
        let mut command = Command::new(&self.programs.postgres);
        command
            .arg("-D")
            .arg(self.home.join("data"))
            .args(["-p", &self.port.to_string()]);
        command
            .arg("-c")
            .arg(format!("unix_socket_directories={socket_dir}"));
        for (name, value) in SETTINGS {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        self.account.apply(&mut command);
        let spec = ServerSpec {
            name: SERVER,
            stop_signal: Signal::SIGINT,
            log: self.log(),
            temp_dir: self.temp.as_ref().map(|dir| dir.path().to_owned()),
            lifetime: self.lifetime,
        };
        let mut process = ServerProcess::spawn(command, spec)?;
        self.wait_until_ready(&mut process).await?;
        self.process = Some(process);
        Ok(())
    }

    async fn wait_until_ready(&self, process: &mut ServerProcess) -> Result<(), DevstackError> {
        let deadline = Instant::now() + READY;
        let url = self.url();
        loop {
            process.check()?;
            let attempt = timeout(Duration::from_secs(5), PgConnection::connect(&url)).await;
            if let Ok(Ok(connection)) = attempt {
                return Ok(connection.close().await?);
            }
            if Instant::now() >= deadline {
                return Err(DevstackError::TooSlow {
                    what: format!("the start of {SERVER}"),
                    limit: READY,
                    log: Some(self.log()),
                });
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// A socket's path must fit into 107 bytes; in a deep folder there is no socket.
    fn socket_dir(&self) -> String {
        const LONGEST: usize = 107 - "/.s.PGSQL.65535.lock".len();
        let dir = self.home.join("run").display().to_string();
        if dir.len() <= LONGEST {
            dir
        } else {
            String::new()
        }
    }

    fn take_process(&mut self, needed: &'static str) -> Result<ServerProcess, DevstackError> {
        self.process
            .take()
            .ok_or_else(|| wrong_state("stopped", needed))
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        // Before the temporary folder goes, or the dying server writes into it again.
        self.process.take();
    }
}

async fn make_cluster(
    programs: &Programs,
    account: Account,
    home: &Path,
) -> Result<(), DevstackError> {
    let password_file = home.join("password");
    write_private(
        &password_file,
        &uuid::Uuid::now_v7().simple().to_string(),
        account,
    )?;
    // An initdb that was interrupted leaves a folder that the next one refuses.
    let data = home.join("data");
    if data.exists() {
        fs::remove_dir_all(&data).map_err(DevstackError::path("delete", &data))?;
    }
    let mut command = Command::new(&programs.initdb);
    command.args([
        "--locale=C",
        "--encoding=UTF8",
        "--no-sync",
        "--no-instructions",
    ]);
    command.args([
        "--username",
        USER,
        "--auth-local=trust",
        "--auth-host=scram-sha-256",
    ]);
    command
        .arg("--pwfile")
        .arg(&password_file)
        .arg("-D")
        .arg(&data);
    account.apply(&mut command);
    run_tool("initdb", command).await?;
    Ok(())
}

fn choose_port(home: &Path) -> Result<u16, DevstackError> {
    let file = home.join("port");
    let former = fs::read_to_string(&file)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    if let Some(port) = former.filter(|port| ports::is_free(*port)) {
        return Ok(port);
    }
    let [port] = ports::free_ports()?;
    fs::write(&file, port.to_string()).map_err(DevstackError::path("write", &file))?;
    Ok(port)
}

fn write_private(path: &Path, text: &str, account: Account) -> Result<(), DevstackError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(DevstackError::path("create", path))?;
    file.write_all(text.as_bytes())
        .map_err(DevstackError::path("write", path))?;
    account.give(path)
}

fn read(path: &Path) -> Result<String, DevstackError> {
    let text = fs::read_to_string(path).map_err(DevstackError::path("read", path))?;
    Ok(text.trim().to_owned())
}

fn wrong_state(found: &'static str, needed: &'static str) -> DevstackError {
    DevstackError::WrongState {
        server: SERVER,
        found,
        needed,
    }
}
