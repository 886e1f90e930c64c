//! The command line as a person types it: what it prints, and how it ends.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Map, Value};

use crate::{Gateway, PATIENCE, Role, binaries};

/// It did what it was told.
pub const DONE: i32 = 0;
/// It failed.
pub const FAILED: i32 = 1;
/// The command line is wrong.
pub const USAGE: i32 = 2;
/// There is no such entity or event.
pub const NOT_FOUND: i32 = 3;
/// The gateway refused.
pub const REFUSED: i32 = 4;
/// There is no gateway, or no answer in time.
pub const UNAVAILABLE: i32 = 5;
/// Some rows of an import failed.
pub const ROWS_FAILED: i32 = 6;

/// The folder of the real data.
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// The command line of a gateway's user.
#[derive(Debug, Clone)]
pub struct Cli {
    binary: PathBuf,
    address: String,
    env: Vec<(&'static str, String)>,
}

impl Cli {
    /// The one of a gateway in one process.
    pub fn new(gateway: &mut Gateway) -> Self {
        Self {
            binary: binaries::find("stategate"),
            address: gateway.process(Role::Everything).grpc().to_string(),
            env: Vec::new(),
        }
    }

    /// The one of what is at an address.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            binary: binaries::find("stategate"),
            address: address.to_string(),
            env: Vec::new(),
        }
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    /// A command that is yet to be run, with nothing of stategate in its environment but the address and
    /// what it was given.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        for (variable, _) in env::vars_os() {
            if variable.to_string_lossy().starts_with("STATEGATE_") {
                command.env_remove(variable);
            }
        }
        command
            .env("STATEGATE_ADDR", &self.address)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(arguments).output().unwrap();
        Ran {
            what: arguments.join(" "),
            status,
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Runs a command that succeeds, and answers the JSON lines it prints.
    pub fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        self.run(arguments).ends(DONE).lines()
    }

    /// Runs a command that succeeds and prints one thing.
    pub fn line(&self, arguments: &[&str]) -> Value {
        let mut lines = self.lines(arguments);
        assert_eq!(lines.len(), 1, "{arguments:?}: {lines:?}");
        lines.remove(0)
    }

    /// The arguments that import a file of the examples.
    pub fn import(&self, file: &str, kind: &str, key: &str, more: &[&str]) -> Vec<String> {
        let path = examples().join(file);
        let fixed = [
            "import",
            path.to_str().unwrap(),
            "--domain",
            "faa",
            "--type",
            kind,
            "--key",
            key,
        ];
        let all = fixed.iter().chain(more);
        all.map(|argument| (*argument).to_owned()).collect()
    }

    /// The values of everything of a type, by key.
    pub fn all(&self, domain: &str, kind: &str) -> BTreeMap<String, Map<String, Value>> {
        let found = self.lines(&["search", domain, kind, "--limit", "0"]);
        let found = found.into_iter().map(|entity| {
            let key = entity["key"].as_str().unwrap().to_owned();
            (key, entity["values"].as_object().unwrap().clone())
        });
        found.collect()
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    what: String,
    status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Ran {
    /// Fails unless it ended with this code.
    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{}: {self:#?}", self.what);
        self
    }

    /// Fails unless it says each of these on stderr.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(
                self.stderr.contains(word),
                "does not say {word:?}: {self:#?}"
            );
        }
        self
    }

    /// The JSON lines it printed.
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON line: {self:#?}"))
            })
            .collect()
    }
}

/// A watch that runs.
pub struct Watch {
    child: Child,
    /// What it prints.
    pub lines: Receiver<Value>,
}

impl Watch {
    /// Starts one.
    pub fn start(cli: &Cli, arguments: &[&str]) -> Self {
        let mut child = cli
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// The next thing it prints.
    pub fn next(&self) -> Value {
        self.lines.recv_timeout(PATIENCE).unwrap()
    }

    /// Ends it as Ctrl-C does. Answers what it had not handed over yet, and what it said.
    pub fn interrupt(mut self) -> (Vec<Value>, String) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(DONE), "{said}");
        (self.lines.iter().collect(), said)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
