//! The machine's own Postgres: the newest one that Debian installed, else what is on the PATH.

use std::fs;
use std::path::PathBuf;

use crate::DevstackError;

/// Where the two programs are that a private cluster needs.
#[derive(Debug)]
pub(crate) struct Programs {
    pub initdb: PathBuf,
    pub postgres: PathBuf,
}

impl Programs {
    /// The newest of Debian's versions, else what is on the PATH.
    pub fn find() -> Result<Self, DevstackError> {
        let debian = fs::read_dir("/usr/lib/postgresql")
            .ok()
            .and_then(|versions| {
                versions
                    .filter_map(|entry| entry.ok())
                    .filter_map(|entry| Some((version(entry.file_name().to_str()?)?, entry.path())))
                    .map(|(version, path)| (version, path.join("bin")))
                    .filter(|(_, bin)| bin.join("postgres").exists())
                    .max_by_key(|(version, _)| *version)
                    .map(|(_, bin)| bin)
            });
        let path = std::env::var_os("PATH").unwrap_or_default();
        debian
            .into_iter()
            .chain(std::env::split_paths(&path))
            .find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
            .map(|bin| Self {
                initdb: bin.join("initdb"),
                postgres: bin.join("postgres"),
            })
            .ok_or(DevstackError::NotInstalled {
                program: "initdb",
                remedy: "install Postgres (Debian: apt-get install postgresql) or put its bin \
                         folder on the PATH",
            })
    }
}

fn version(folder: &str) -> Option<u32> {
    folder.split('.').next()?.parse().ok()
}
