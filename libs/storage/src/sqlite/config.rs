//! The settings of an SQLite file.

use std::path::PathBuf;

use serde::Deserialize;

/// Settings of [`super::Sqlite`]: `{"name": "sqlite", "path": "stategate.db", "lanes": 8}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// The file; made if it is not there. Two more files stand beside it while it is open.
    pub path: PathBuf,
    /// How many lanes the log has, 1 to 64. Fixed when the file is made (1 unless given here); given
    /// later, it must be the same.
    #[serde(default)]
    pub lanes: Option<u8>,
}
