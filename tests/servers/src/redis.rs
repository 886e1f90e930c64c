//! A Redis of one's own.

use crate::{
    Broker, Missing,
    daemon::{Daemon, program},
    free_port,
};

/// A Redis on a port of the loopback, which keeps nothing when it ends.
#[derive(Debug)]
pub struct Redis(Daemon);

impl Redis {
    /// Starts one.
    pub fn start() -> Result<Self, Missing> {
        let names = ["redis-server".into(), "valkey-server".into()];
        let program = program(&names).ok_or(Missing {
            server: "Redis",
            install: "Debian: apt-get install redis-server",
        })?;
        let (port, folder) = (free_port(), Daemon::folder("redis"));
        let mut arguments: Vec<String> = format!("--port {port} --bind 127.0.0.1 --appendonly no")
            .split(' ')
            .map(str::to_owned)
            .collect();
        arguments.extend(["--save".to_owned(), String::new()]);
        Ok(Self(Daemon::start(
            "Redis",
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
