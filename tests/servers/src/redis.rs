//! A Redis of one's own, or a Valkey.

use crate::{
    Broker, Missing,
    daemon::{Daemon, fetched, program},
    free_port,
};

/// A Redis or Valkey on a port of the loopback, which keeps nothing when it ends.
#[derive(Debug)]
pub struct Redis(Daemon);

impl Redis {
    /// Starts one.
    pub fn start() -> Result<Self, Missing> {
        Self::of(Missing {
            server: "Redis",
            install: "Debian: apt-get install redis-server",
        })
    }

    /// Starts a Valkey.
    pub fn start_valkey() -> Result<Self, Missing> {
        Self::of(Missing {
            server: "Valkey",
            install: "run scripts/install-servers, or install valkey-server",
        })
    }

    fn of(missing: Missing) -> Result<Self, Missing> {
        let name = missing.server;
        let server = format!("{}-server", name.to_lowercase());
        let program = program(&[server.clone().into(), fetched(&server)]).ok_or(missing)?;
        let (port, folder) = (free_port(), Daemon::folder(name));
        let mut arguments: Vec<String> = format!("--port {port} --bind 127.0.0.1 --appendonly no")
            .split(' ')
            .map(str::to_owned)
            .collect();
        arguments.extend(["--save".to_owned(), String::new()]);
        Ok(Self(Daemon::start(
            name,
            program,
            arguments,
            Vec::new(),
            port,
            folder,
        )))
    }
}

impl Broker for Redis {
    fn server(&self) -> &Daemon {
        &self.0
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }
}
