//! Which storage to use, as `STATEGATE_STORAGE_PROVIDER` says it.

use std::sync::Arc;

use serde::Deserialize;

use crate::{Memory, MemoryConfig, Result, Sqlite, SqliteConfig, Storage};

/// A storage and its settings: JSON with the provider's `name` and that provider's own fields.
/// Unknown names and fields are refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum StorageConfig {
    /// An SQLite file.
    Sqlite(SqliteConfig),
    /// The memory of this process: the reference store, gone when the process ends.
    Memory(MemoryConfig),
}

/// Opens a storage, creating or migrating what it needs.
pub async fn open(config: &StorageConfig) -> Result<Arc<dyn Storage>> {
    Ok(match config {
        StorageConfig::Sqlite(config) => Arc::new(Sqlite::open(config).await?),
        StorageConfig::Memory(config) => Arc::new(Memory::new(config)?),
    })
}
