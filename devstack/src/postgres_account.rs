//! Where a private Postgres may live, and as whom it runs.
//!
//! Postgres refuses to run as root. Started by root it runs as `postgres` or `nobody`, and then
//! every folder above its data must be passable for that account (`/root` is not): otherwise the
//! data goes to a short folder below the system's temporary one, always the same for the same
//! wish. Started by anybody else it runs as that user, where it was asked to.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User};

use crate::DevstackError;

/// The account that runs the server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Account {
    /// The user who runs this program.
    Own,
    /// Another one, because this program runs as root.
    Other {
        /// User number.
        uid: u32,
        /// Group number.
        gid: u32,
    },
}

impl Account {
    /// The account for a server started by this process.
    pub fn choose() -> Result<Self, DevstackError> {
        if !Uid::effective().is_root() {
            return Ok(Self::Own);
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Self::Other {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
            })
            .ok_or(DevstackError::NoAccount)
    }

    /// Makes `command` run under this account, in a folder that every account may enter.
    pub fn apply(self, command: &mut Command) {
        command.current_dir("/");
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
    }

    /// Makes a private folder (0700) of this account, with the folders above it.
    pub fn make_dir(self, path: &Path) -> Result<(), DevstackError> {
        fs::create_dir_all(path).map_err(DevstackError::path("create", path))?;
        self.refuse_strangers(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(DevstackError::path("set the mode of", path))?;
        self.give(path)
    }

    /// In a folder that everybody may write to, somebody else may have put a link or a folder of
    /// theirs in this place.
    fn refuse_strangers(self, path: &Path) -> Result<(), DevstackError> {
        let found = fs::symlink_metadata(path).map_err(DevstackError::path("look at", path))?;
        let ours = match self {
            Self::Own => found.uid() == Uid::effective().as_raw(),
            Self::Other { uid, .. } => [uid, Uid::effective().as_raw()].contains(&found.uid()),
        };
        if found.is_dir() && ours {
            return Ok(());
        }
        let reason = std::io::Error::other("it is a link, or belongs to somebody else");
        Err(DevstackError::path("use", path)(reason))
    }

    /// Hands a file or folder to this account.
    pub fn give(self, path: &Path) -> Result<(), DevstackError> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid } => chown(path, Some(uid), Some(gid))
                .map_err(DevstackError::path("change the owner of", path)),
        }
    }

    /// Lets every account pass through a folder of our own, without reading it.
    pub fn make_passable(path: &Path) -> Result<(), DevstackError> {
        fs::set_permissions(path, fs::Permissions::from_mode(0o711))
            .map_err(DevstackError::path("set the mode of", path))
    }

    /// The folder to use for a server that was asked to live in `wish` (absolute).
    pub fn home_for(self, wish: &Path) -> PathBuf {
        match self {
            Self::Own => wish.to_owned(),
            Self::Other { .. } if passable(wish) => wish.to_owned(),
            Self::Other { .. } => {
                let mut hasher = DefaultHasher::new();
                wish.hash(&mut hasher);
                std::env::temp_dir().join(format!("millrace-{:016x}", hasher.finish()))
            }
        }
    }
}

/// True when any account may pass through all existing folders above `path`.
fn passable(path: &Path) -> bool {
    path.ancestors()
        .skip(1)
        .filter_map(|folder| fs::metadata(folder).ok())
        .all(|folder| folder.permissions().mode() & 0o001 != 0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::expect_used, reason = "a failed step fails the test")]
    use super::*;

    #[test]
    fn a_folder_closed_to_others_is_replaced_always_by_the_same_one() {
        let closed = tempfile::tempdir().expect("a temporary folder");
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(closed.path(), mode).expect("the folder is ours");
        let wish = closed.path().join("postgres");
        let account = Account::Other { uid: 1, gid: 1 };
        let home = account.home_for(&wish);
        assert_ne!(home, wish);
        assert_eq!(home, account.home_for(&wish));
        assert_eq!(Account::Own.home_for(&wish), wish);
    }
}
