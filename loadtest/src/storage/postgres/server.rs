//! The server.

use std::{fmt, path::Path};

use anyhow::Context as _;
use tokio_postgres::{Client, NoTls};

/// A PostgreSQL server with default settings. It runs until this is dropped.
pub(crate) struct Server {
    server: stategate_servers::Postgres,
    version: String,
}

impl Server {
    pub(in crate::storage) fn start(directory: &Path) -> anyhow::Result<Self> {
        let server = stategate_servers::Postgres::start_in(directory, &[])
            .map_err(|missing| anyhow::anyhow!("{missing}"))?;
        let version = server.sql("SELECT current_setting('server_version')");
        Ok(Self { server, version })
    }

    /// The URL of the server.
    pub(super) fn url(&self) -> String {
        self.server.url()
    }

    /// Runs a statement, outside of the measurements.
    pub(super) fn execute(&self, sql: &str) {
        self.server.sql(sql);
    }

    /// Connects a plain client.
    pub(super) async fn connect(&self) -> anyhow::Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls)
            .await
            .context("cannot connect to PostgreSQL")?;
        // The task ends with the client, and the client's calls return its errors.
        tokio::spawn(connection);
        Ok(client)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {}, default settings", self.version)
    }
}
