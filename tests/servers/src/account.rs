//! Servers that refuse to run as root run as their own account there, and as the caller elsewhere.

use std::{path::Path, process::Command};

/// Who a server runs as.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Account {
    /// The caller.
    Caller,
    /// An account of the system, by name; the caller is root.
    Named(&'static str),
}

impl Account {
    /// `name` when the caller is root, the caller otherwise.
    pub(crate) fn unless_root(name: &'static str) -> Self {
        if nix::unistd::geteuid().is_root() {
            Self::Named(name)
        } else {
            Self::Caller
        }
    }

    /// A command that runs as this account.
    pub(crate) fn command(self, program: &Path) -> Command {
        match self {
            Self::Caller => Command::new(program),
            Self::Named(name) => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={name}"))
                    .arg(format!("--regid={name}"))
                    .args(["--init-groups", "--"])
                    .arg(program);
                command
            }
        }
    }

    /// Gives a folder to this account.
    pub(crate) fn own(self, folder: &Path) {
        if let Self::Named(name) = self {
            let status = Command::new("chown").arg(name).arg(folder).status();
            assert!(status.is_ok_and(|status| status.success()), "chown {name}");
        }
    }
}

/// The group of the account that PostgreSQL runs as, where that is not the caller.
pub fn postgres_group() -> Option<u32> {
    match Account::unless_root("postgres") {
        Account::Caller => None,
        Account::Named(name) => {
            let group = nix::unistd::Group::from_name(name).ok().flatten();
            group.map(|group| group.gid.as_raw())
        }
    }
}
