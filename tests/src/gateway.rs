//! A gateway under test: one process or three over a log of its own, in an SQLite file or in a schema
//! of a PostgreSQL database.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use futures::future::join_all;
use serde_json::{Value, json};
use stategate_servers::Issuer;
use tempfile::TempDir;
use uuid::Uuid;

use crate::{Clients, Process, binaries};

/// How the services are spread over processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `stategate dev`: all three services, the in-memory channel.
    One,
    /// A process for each service, the storage channel.
    Three,
}

/// What a process is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything: `stategate dev`.
    Everything,
    /// Writes.
    Command,
    /// Reads.
    Query,
    /// Streams.
    Stream,
}

impl Role {
    fn binary(self) -> &'static str {
        match self {
            Self::Everything => "stategate",
            Self::Command => "stategate-command",
            Self::Query => "stategate-query",
            Self::Stream => "stategate-stream",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Everything => &["dev"],
            Self::Command | Self::Query | Self::Stream => &[],
        }
    }

    fn writes(self) -> bool {
        matches!(self, Self::Everything | Self::Command)
    }
}

impl Form {
    fn roles(self) -> &'static [Role] {
        match self {
            Self::One => &[Role::Everything],
            Self::Three => &[Role::Command, Role::Query, Role::Stream],
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "one process",
            Self::Three => "three processes",
        })
    }
}

/// What a gateway keeps its log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// A file.
    Sqlite,
    /// A schema of its own in the database at this address.
    Postgres(String),
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        })
    }
}

/// How a gateway is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the log is kept in.
    pub store: Store,
    /// How the services are spread over processes.
    pub form: Form,
    /// How many lanes the log has.
    pub lanes: u8,
    /// Further variables of every process.
    pub env: Vec<(String, String)>,
}

impl Options {
    /// One lane and no further variables.
    pub fn new(form: Form) -> Self {
        Self {
            store: Store::Sqlite,
            form,
            lanes: 1,
            env: Vec::new(),
        }
    }

    /// With this many lanes.
    #[must_use]
    pub fn lanes(mut self, lanes: u8) -> Self {
        self.lanes = lanes;
        self
    }

    /// On a log in this.
    #[must_use]
    pub fn store(mut self, store: Store) -> Self {
        self.store = store;
        self
    }

    /// With callers that this issuer vouches for, and judged by these rules.
    #[must_use]
    pub fn protected(self, issuer: &Issuer, request: &str, response: &str) -> Self {
        let variables = issuer.variables(request, response).into_iter();
        variables.fold(self, |options, (name, value)| options.env(name, value))
    }

    /// With a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }
}

/// A running gateway and its data. Dropping it kills its processes and removes the data.
pub struct Gateway {
    options: Options,
    storage: Value,
    processes: Vec<(Role, Process)>,
    folder: TempDir,
}

impl Gateway {
    /// Starts a gateway on fresh data and waits until it is ready.
    pub async fn start(options: Options) -> Self {
        let folder = TempDir::with_prefix("stategate-test-").expect("a folder for the data");
        let storage = match &options.store {
            Store::Sqlite => json!({
                "name": "sqlite",
                "path": folder.path().join("stategate.db"),
                "lanes": options.lanes,
            }),
            Store::Postgres(address) => json!({
                "name": "postgres",
                "addr": address,
                "schema": format!("t_{}", Uuid::new_v4().simple()),
                "lanes": options.lanes,
            }),
        };
        let mut gateway = Self {
            options,
            storage,
            processes: Vec::new(),
            folder,
        };
        let roles = gateway.options.form.roles();
        let started = join_all(roles.iter().map(|role| gateway.spawn(*role, &[]))).await;
        gateway.processes = roles.iter().copied().zip(started).collect();
        gateway
    }

    /// Starts one more process on the same data; it is the caller's.
    pub async fn spawn(&self, role: Role, env: &[(&str, String)]) -> Process {
        let (binary, variables) = self.command(role, env);
        let (name, arguments) = (role.binary(), role.arguments());
        Process::start(name, &binary, arguments, &variables, self.folder.path()).await
    }

    /// The same, without waiting until it is ready.
    pub async fn spawn_unready(&self, role: Role, env: &[(&str, String)]) -> Process {
        let (binary, variables) = self.command(role, env);
        let (name, arguments) = (role.binary(), role.arguments());
        Process::start_unready(name, &binary, arguments, &variables, self.folder.path()).await
    }

    fn command(&self, role: Role, env: &[(&str, String)]) -> (PathBuf, Vec<(String, String)>) {
        let binary = if role.writes() {
            binaries::find_with_faults(role.binary())
        } else {
            binaries::find(role.binary())
        };
        let mut variables = vec![
            ("STATEGATE_PORT".to_owned(), "0".to_owned()),
            ("STATEGATE_HOST".to_owned(), "127.0.0.1".to_owned()),
            ("STATEGATE_AUTH_DISABLED".to_owned(), "true".to_owned()),
            ("STATEGATE_REFLECTION".to_owned(), "true".to_owned()),
            (
                "STATEGATE_STORAGE_PROVIDER".to_owned(),
                self.storage.to_string(),
            ),
        ];
        variables.extend(self.options.env.iter().cloned());
        variables.extend(env.iter().map(|(n, v)| ((*n).to_owned(), v.clone())));
        (binary, variables)
    }

    /// The process that plays a role: the one there is, if there is only one.
    pub fn process(&mut self, role: Role) -> &mut Process {
        let at = self.at(role);
        &mut self.processes[at].1
    }

    fn at(&self, role: Role) -> usize {
        let mut roles = self.processes.iter().map(|(role, _)| *role);
        roles
            .position(|has| has == role || has == Role::Everything)
            .expect("a process of that role")
    }

    /// The process that writes.
    pub fn writer(&mut self) -> &mut Process {
        self.process(Role::Command)
    }

    /// Starts the process of a role again, on the same data, after its end.
    pub async fn restart(&mut self, role: Role, env: &[(&str, String)]) {
        let at = self.at(role);
        let role = self.processes[at].0;
        assert!(!self.processes[at].1.is_running(), "it still runs");
        self.processes[at].1 = self.spawn(role, env).await;
    }

    /// Clients over connections of their own, which are opened with the first call.
    pub fn clients(&self) -> Clients {
        let address = |role| -> SocketAddr { self.processes[self.at(role)].1.grpc() };
        Clients::new(
            address(Role::Command),
            address(Role::Query),
            address(Role::Stream),
        )
    }

    /// Whether the service that streams dies with the one that writes.
    pub fn is_one_process(&self) -> bool {
        self.options.form == Form::One
    }

    /// The schema that a log in PostgreSQL is in.
    pub fn schema(&self) -> &str {
        self.storage["schema"].as_str().expect("a schema")
    }

    /// The folder that its processes run in, with the file of its log if that is one.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How many lanes the log has.
    pub fn lanes(&self) -> u8 {
        self.options.lanes
    }

    /// Fails if a process wrote down an error.
    pub fn assert_no_errors(&self) {
        for (role, process) in &self.processes {
            let errors = process.errors();
            assert!(errors.is_empty(), "{role:?} logged {errors:#?}");
        }
    }
}
