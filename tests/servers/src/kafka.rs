//! A Kafka of one's own: one process that is broker and controller (KRaft).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Missing,
    daemon::{Daemon, program, servers},
    free_port,
};

/// What it says once it serves; it takes connections long before.
const READY: &str = "Kafka Server started";
/// The name of its cluster: sixteen bytes in base64.
const CLUSTER: &str = "c3RhdGVnYXRlIHRlc3RzIQ";
/// Little memory, and no compiling for a life that is short.
const JAVA: [&str; 5] = [
    "-Xms256m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dlog4j2.configurationFile=log4j2.properties",
];
/// Warnings, and that it serves.
const LOGGING: &str = "\
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
";

/// A Kafka on ports of the loopback.
#[derive(Debug)]
pub struct Kafka {
    server: Daemon,
    behind: u16,
}

impl Kafka {
    /// Starts one.
    pub fn start() -> Result<Self, Missing> {
        Self::start_behind(free_port())
    }

    /// Starts one that can also be reached through a proxy on this port. Clients ask a broker where it
    /// is, so it has to be told; the proxy passes on to [`Kafka::behind`].
    pub fn start_behind(proxy: u16) -> Result<Self, Missing> {
        Self::start_with(proxy, &[], &[])
    }

    /// Starts one with further lines in its settings, and users of SCRAM-SHA-512.
    fn start_with(
        proxy: u16,
        settings: &[String],
        users: &[(&str, &str)],
    ) -> Result<Self, Missing> {
        let missing = Missing {
            server: "Kafka",
            install: "run scripts/install-servers, with Java 17 and Maven there",
        };
        let (Some(java), Some(lib)) = (program(&["java".into()]), installed()) else {
            return Err(missing);
        };
        let folder = Daemon::folder("kafka");
        let (port, behind, controller) = (free_port(), free_port(), free_port());
        let data = folder.path().join("data");
        let own = format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=CONTROLLER://127.0.0.1:{controller},DIRECT://127.0.0.1:{port},PROXIED://127.0.0.1:{behind}
advertised.listeners=DIRECT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy}
inter.broker.listener.name=DIRECT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,DIRECT:PLAINTEXT,PROXIED:PLAINTEXT
log.dirs={}
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
auto.create.topics.enable=false
",
            data.display(),
        );
        let lines = own + &settings.join("\n");
        fs::write(folder.path().join("server.properties"), lines).expect("write its settings");
        fs::write(folder.path().join("log4j2.properties"), LOGGING).expect("write its settings");
        format(&java, &lib, folder.path(), users);
        let arguments = arguments(&lib, "kafka.Kafka", &["server.properties"]);
        let server = Daemon::start("Kafka", java, arguments, Vec::new(), port, folder);
        server.says(READY);
        Ok(Self { server, behind })
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Its port for a proxy.
    pub fn behind(&self) -> u16 {
        self.behind
    }

    /// Kills it, as a crash would.
    pub fn kill(&self) {
        self.server.kill();
    }

    /// Starts it again, and waits until it serves.
    pub fn restart(&self) {
        self.server.restart();
        self.server.says(READY);
    }
}

/// Prepares the folder of its data.
fn format(java: &Path, lib: &Path, folder: &Path, users: &[(&str, &str)]) {
    let mut format = vec!["format", "-t", CLUSTER, "-c", "server.properties"];
    let users: Vec<String> = users
        .iter()
        .map(|(name, password)| format!("SCRAM-SHA-512=[name={name},password={password}]"))
        .collect();
    for user in &users {
        format.extend(["--add-scram", user]);
    }
    let formatted = Command::new(java)
        .args(arguments(lib, "kafka.tools.StorageTool", &format))
        .current_dir(folder)
        .output()
        .expect("run Kafka's storage tool");
    let said = String::from_utf8_lossy(&formatted.stdout);
    let errors = String::from_utf8_lossy(&formatted.stderr);
    assert!(formatted.status.success(), "Kafka: {said}{errors}");
}

fn arguments(lib: &Path, class: &str, arguments: &[&str]) -> Vec<String> {
    let jars = format!("{}/*", lib.display());
    let java = JAVA.iter().copied().chain(["-cp", &jars, class]);
    let all = java.chain(arguments.iter().copied());
    all.map(str::to_owned).collect()
}

/// The folder with Kafka and what it needs.
fn installed() -> Option<PathBuf> {
    let folder = servers().join("kafka");
    let lib = fs::canonicalize(folder.join("lib")).ok()?;
    folder.join("fetched").is_file().then_some(lib)
}
