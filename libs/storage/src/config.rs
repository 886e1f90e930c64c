//! Which storage to use, as `STATEGATE_STORAGE_PROVIDER` says it.

use std::{path::PathBuf, sync::Arc};

use serde::Deserialize;

use crate::{Identity, Memory, MemoryConfig, Result, Sqlite, SqliteConfig, Storage};
#[cfg(feature = "postgres")]
use crate::{Postgres, PostgresConfig};

/// A storage and its settings: JSON with the provider's `name` and that provider's own fields.
/// Unknown names and fields are refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum StorageConfig {
    /// An SQLite file.
    Sqlite(SqliteConfig),
    /// A PostgreSQL database.
    #[cfg(feature = "postgres")]
    Postgres(PostgresConfig),
    /// The memory of this process: the reference store, gone when the process ends.
    Memory(MemoryConfig),
}

impl StorageConfig {
    /// An SQLite file, with everything else as it is by default.
    pub fn sqlite(path: PathBuf) -> Self {
        Self::Sqlite(SqliteConfig { path, lanes: None })
    }

    /// Where the data is kept, for people.
    pub fn location(&self) -> String {
        match self {
            Self::Sqlite(config) => config.path.display().to_string(),
            #[cfg(feature = "postgres")]
            Self::Postgres(config) => config.location(),
            Self::Memory(_) => "in memory, gone when the process ends".to_owned(),
        }
    }
}

/// Opens a storage, creating or migrating what it needs.
pub async fn open(config: &StorageConfig) -> Result<Arc<dyn Storage>> {
    Ok(match config {
        StorageConfig::Sqlite(config) => Arc::new(Sqlite::open(config).await?),
        #[cfg(feature = "postgres")]
        StorageConfig::Postgres(config) => Arc::new(Postgres::open(config).await?),
        StorageConfig::Memory(config) => Arc::new(Memory::new(config)?),
    })
}

/// Opens a storage as [`open`] does, but one without a log yet is initialised under this identity: for
/// a copy of a log, whose tokens are to stay good. One with a log keeps what it is, which
/// [`Storage::info`] tells; settings that ask for another number of lanes are refused.
pub async fn create_as(config: &StorageConfig, identity: Identity) -> Result<Arc<dyn Storage>> {
    Ok(match config {
        StorageConfig::Sqlite(config) => Arc::new(Sqlite::create_as(config, identity).await?),
        #[cfg(feature = "postgres")]
        StorageConfig::Postgres(config) => Arc::new(Postgres::create_as(config, identity).await?),
        StorageConfig::Memory(config) => Arc::new(Memory::create_as(config, identity)),
    })
}
