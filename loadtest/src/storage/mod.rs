//! The storage of a run, and its floors: the database that the gateway writes to, and the same rows in the
//! same tables with the same durability, inserted and read by the plain driver.

mod database;
mod postgres;
mod sqlite;

use std::{fmt, path::Path};

use tokio::runtime::Handle;

pub(crate) use self::database::Database;

/// A storage, as it is named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StorageName {
    /// A file
    Sqlite,
    /// A server of the run's own
    Postgres,
}

/// The storage of a run. A server, if there is one, runs until this is dropped.
pub(crate) enum Storage {
    Sqlite,
    Postgres(postgres::Server),
}

impl Storage {
    /// Starts the server, if one is needed, with its files in `directory`.
    pub(crate) fn start(name: StorageName, directory: &Path) -> anyhow::Result<Self> {
        Ok(match name {
            StorageName::Sqlite => Self::Sqlite,
            StorageName::Postgres => Self::Postgres(postgres::Server::start(directory)?),
        })
    }

    /// An empty database for a round: a file in `directory`, or a schema.
    pub(crate) fn new_database(
        &self,
        round: usize,
        directory: &Path,
        runtime: &Handle,
    ) -> Box<dyn Database + '_> {
        match self {
            Self::Sqlite => Box::new(sqlite::File::new(directory, runtime)),
            Self::Postgres(server) => Box::new(postgres::Schema::new(server, round, runtime)),
        }
    }

    /// How the plain clients of a floor with many clients are connected, for the report.
    pub(crate) fn plain_clients(&self) -> &'static str {
        match self {
            Self::Sqlite => sqlite::PLAIN_CLIENTS,
            Self::Postgres(_) => postgres::PLAIN_CLIENTS,
        }
    }

    /// What a run has checked about durability if it ended without an error, for the report.
    pub(crate) fn durability(&self) -> &'static str {
        match self {
            Self::Sqlite => sqlite::DURABILITY,
            Self::Postgres(_) => postgres::DURABILITY,
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite => write!(f, "SQLite {}", rusqlite::version()),
            Self::Postgres(server) => write!(f, "{server}"),
        }
    }
}
