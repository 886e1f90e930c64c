//! A Kafka of one's own: one process that is broker and controller (KRaft).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Broker, Missing,
    daemon::{Daemon, program, servers},
    free_port,
};

/// What it says once it serves; it takes connections long before.
const READY: &str = "Kafka Server started";
/// The name of its cluster: sixteen bytes in base64.
const CLUSTER: &str = "c3RhdGVnYXRlIHRlc3RzIQ";
/// What knows the users.
const LOGIN: &str = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
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
        let behind = free_port();
        Self::start_on(behind, behind, "", None)
    }

    /// Starts one that can also be reached through a proxy on this port. Clients ask a broker where it
    /// is, so it has to be told; the proxy passes on to [`Kafka::behind`].
    pub fn start_behind(proxy: u16) -> Result<Self, Missing> {
        Self::start_on(free_port(), proxy, "", None)
    }

    /// Starts one that speaks TLS on [`Kafka::behind`], with this key and certificate (PEM, in one), and
    /// there knows one user, by SCRAM-SHA-512.
    pub fn start_secured(identity: &str, user: &str, password: &str) -> Result<Self, Missing> {
        let behind = free_port();
        Self::start_on(behind, behind, identity, Some((user, password)))
    }

    fn start_on(
        behind: u16,
        proxy: u16,
        identity: &str,
        user: Option<(&str, &str)>,
    ) -> Result<Self, Missing> {
        let missing = Missing {
            server: "Kafka",
            install: "run scripts/install-servers, with Java 17 and Maven there",
        };
        let (Some(java), Some(lib)) = (program(&["java".into()]), installed()) else {
            return Err(missing);
        };
        let folder = Daemon::folder("kafka");
        let (port, controller) = (free_port(), free_port());
        let spoken = user.map_or("PLAINTEXT", |_| "SASL_SSL");
        let data = folder.path().join("data");
        let settings = format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=CONTROLLER://127.0.0.1:{controller},DIRECT://127.0.0.1:{port},PROXIED://127.0.0.1:{behind}
advertised.listeners=DIRECT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy}
inter.broker.listener.name=DIRECT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,DIRECT:PLAINTEXT,PROXIED:{spoken}
log.dirs={}
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
auto.create.topics.enable=false
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.proxied.scram-sha-512.sasl.jaas.config={LOGIN}
ssl.keystore.type=PEM
ssl.keystore.location=identity.pem
",
            data.display(),
        );
        for (name, text) in [
            ("server.properties", settings.as_str()),
            ("log4j2.properties", LOGGING),
            ("identity.pem", identity),
        ] {
            fs::write(folder.path().join(name), text).expect("write its settings");
        }
        format(&java, &lib, folder.path(), user);
        let arguments = arguments(&lib, "kafka.Kafka", &["server.properties"]);
        let server = Daemon::start("Kafka", java, arguments, Vec::new(), port, folder);
        server.says(READY);
        Ok(Self { server, behind })
    }
}

impl Broker for Kafka {
    fn server(&self) -> &Daemon {
        &self.server
    }

    fn url(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// As it was fetched.
    fn version(&self) -> String {
        let fetched = fs::read_to_string(servers().join("kafka/fetched"));
        fetched.map_or_else(
            |_| "of an unknown version".to_owned(),
            |version| version.trim().to_owned(),
        )
    }

    fn behind(&self) -> u16 {
        self.behind
    }

    /// It serves when this returns.
    fn restart(&self) {
        self.server.restart();
        self.server.says(READY);
    }
}

/// Prepares the folder of its data.
fn format(java: &Path, lib: &Path, folder: &Path, user: Option<(&str, &str)>) {
    let mut format = vec!["format", "-t", CLUSTER, "-c", "server.properties"];
    let user =
        user.map(|(name, password)| format!("SCRAM-SHA-512=[name={name},password={password}]"));
    if let Some(user) = &user {
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
