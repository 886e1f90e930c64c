//! A NATS server of one's own.

use crate::{
    Broker, Missing,
    daemon::{Daemon, fetched, program},
    free_port,
};

/// A NATS server with JetStream, on a port of the loopback.
#[derive(Debug)]
pub struct Nats(Daemon);

impl Nats {
    /// Starts one.
    pub fn start() -> Result<Self, Missing> {
        Self::with(&[])
    }

    /// Starts one with further arguments.
    pub fn with(arguments: &[&str]) -> Result<Self, Missing> {
        let program = program(&["nats-server".into(), fetched("nats-server")]).ok_or(Missing {
            server: "NATS",
            install: "run scripts/install-servers, or install nats-server",
        })?;
        let (port, folder) = (free_port(), Daemon::folder("nats"));
        let shown = folder.path().display();
        let own = format!("-a 127.0.0.1 -p {port} -js -sd {shown}");
        let arguments = own
            .split(' ')
            .chain(arguments.iter().copied())
            .map(str::to_owned)
            .collect();
        Ok(Self(Daemon::start(
            "NATS",
            program,
            arguments,
            Vec::new(),
            port,
            folder,
        )))
    }
}

impl Broker for Nats {
    fn server(&self) -> &Daemon {
        &self.0
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port())
    }
}
