//! A RabbitMQ of one's own.

use std::{fs, path::PathBuf};

use crate::{
    Broker, Missing,
    daemon::{Daemon, program},
    free_port,
};

/// Where Debian keeps the server, a folder a version.
const DEBIAN: &str = "/usr/lib/rabbitmq/lib";

/// A RabbitMQ on a port of the loopback; the user `guest` has the password `guest`.
#[derive(Debug)]
pub struct RabbitMq {
    server: Daemon,
    // What the server's runtime registers with. It would start one that outlives it.
    _registry: Daemon,
}

impl RabbitMq {
    /// Starts one.
    pub fn start() -> Result<Self, Missing> {
        let missing = || Missing {
            server: "RabbitMQ",
            install: "Debian: apt-get install rabbitmq-server",
        };
        let server = installed().ok_or_else(missing)?;
        let registry = program(&["epmd".into()]).ok_or_else(missing)?;
        let (port, registered) = (free_port(), free_port());
        let registry = Daemon::start(
            "epmd",
            registry,
            ["-address", "127.0.0.1", "-port", &registered.to_string()]
                .map(str::to_owned)
                .into(),
            Vec::new(),
            registered,
            Daemon::folder("epmd"),
        );
        let folder = Daemon::folder("rabbitmq");
        let within = |name: &str| folder.path().join(name).display().to_string();
        let env = [
            ("HOME", within("")),
            ("ERL_EPMD_PORT", registered.to_string()),
            ("RABBITMQ_NODENAME", format!("test{port}@localhost")),
            ("RABBITMQ_NODE_PORT", port.to_string()),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_DIST_PORT", free_port().to_string()),
            ("RABBITMQ_MNESIA_BASE", within("mnesia")),
            ("RABBITMQ_LOG_BASE", within("log")),
            ("RABBITMQ_PID_FILE", within("rabbitmq.pid")),
            ("RABBITMQ_CONFIG_FILE", within("rabbitmq")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", within("plugins")),
            ("RABBITMQ_GENERATED_CONFIG_DIR", within("generated")),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".to_owned()),
            // The script then becomes the server instead of waiting for it, and has its id.
            ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value)).into();
        let server = Daemon::start("RabbitMQ", server, Vec::new(), env, port, folder);
        Ok(Self {
            server,
            _registry: registry,
        })
    }
}

impl Broker for RabbitMq {
    fn server(&self) -> &Daemon {
        &self.server
    }

    fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.port())
    }

    /// As the folder has it: asking would take a runtime of its own.
    fn version(&self) -> String {
        let mut folders = self.server.program().ancestors();
        let version = folders.find_map(|folder| {
            let name = folder.file_name()?.to_str()?;
            name.strip_prefix("rabbitmq_server-")
        });
        version.unwrap_or("of an unknown version").to_owned()
    }
}

/// The program itself; the one on the path insists on being root or an account of its own.
fn installed() -> Option<PathBuf> {
    let folders = fs::read_dir(DEBIAN).ok()?.flatten();
    let mut programs: Vec<PathBuf> = folders
        .map(|folder| folder.path().join("sbin/rabbitmq-server"))
        .filter(|program| program.is_file())
        .collect();
    programs.sort();
    programs.pop()
}
