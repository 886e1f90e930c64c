//! A server of one process on one port, which can be killed and started again on what it kept.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{PATIENCE, janitor::Janitor};

/// Between two looks at a server that starts.
const LOOK: Duration = Duration::from_millis(10);
/// Where its id stands, for the janitor.
const PID_FILE: &str = "server.pid";

/// A running server, gone when dropped.
#[derive(Debug)]
pub struct Daemon {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    env: Vec<(String, String)>,
    port: u16,
    child: Mutex<Option<Child>>,
    // Dropped in this order: the janitor ends the server before the folder goes.
    _janitor: Janitor,
    folder: TempDir,
}

impl Daemon {
    /// A folder for a server's data.
    pub(crate) fn folder(name: &str) -> TempDir {
        let prefix = format!("stategate-{}-", name.to_lowercase());
        tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir()
            .expect("a folder")
    }

    /// Starts a program that listens on `port` and keeps its data in `folder`.
    pub(crate) fn start(
        name: &'static str,
        program: PathBuf,
        arguments: Vec<String>,
        env: Vec<(String, String)>,
        port: u16,
        folder: TempDir,
    ) -> Self {
        let daemon = Self {
            name,
            program,
            arguments,
            env,
            port,
            child: Mutex::new(None),
            _janitor: Janitor::hire(folder.path(), PID_FILE),
            folder,
        };
        daemon.restart();
        daemon
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where its data is.
    pub(crate) fn data(&self) -> &Path {
        self.folder.path()
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.lock().unwrap().as_ref().map(Child::id)
    }

    /// The program it runs.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// What its program says when asked for its version: the first word that is a number.
    pub(crate) fn version(&self) -> String {
        let asked = Command::new(&self.program).arg("--version").output();
        let said = asked.expect("ask for the version").stdout;
        let said = String::from_utf8_lossy(&said);
        let mut words = said
            .split_whitespace()
            .map(|word| word.trim_start_matches(['v', '=']));
        let version = words.find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
        version.unwrap_or("of an unknown version").to_owned()
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().expect("kill the server");
            child.wait().expect("the server ends");
        }
    }

    /// Starts it again, and waits until it takes connections.
    pub(crate) fn restart(&self) {
        self.kill();
        let log = fs::File::create(self.log_file()).expect("a log file");
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("start the server");
        let id = format!("{}\n", child.id());
        fs::write(self.folder.path().join(PID_FILE), id).expect("write its id");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = child.try_wait().expect("the server");
            assert!(
                ended.is_none() && begun.elapsed() < PATIENCE,
                "{}: {ended:?}\n{}",
                self.name,
                fs::read_to_string(self.log_file()).unwrap_or_default()
            );
            thread::sleep(LOOK);
        }
        *self.child.lock().unwrap() = Some(child);
    }

    /// Waits until it has said this since it was started: some take connections before they serve them.
    pub(crate) fn says(&self, line: &str) {
        let begun = Instant::now();
        loop {
            let said = fs::read_to_string(self.log_file()).unwrap_or_default();
            if said.contains(line) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{}:\n{said}", self.name);
            thread::sleep(LOOK);
        }
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The first of these programs that is there: a path, or a name on the path.
pub(crate) fn program(candidates: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    candidates.iter().find_map(|candidate| {
        if candidate.components().count() > 1 {
            return candidate.is_file().then(|| candidate.clone());
        }
        std::env::split_paths(&path)
            .map(|folder| folder.join(candidate))
            .find(|program| program.is_file())
    })
}

/// Where `scripts/install-servers` puts what comes from the Python index.
pub(crate) fn fetched(name: &str) -> PathBuf {
    servers().join("venv/bin").join(name)
}

/// Where `scripts/install-servers` puts what it fetches.
pub(crate) fn servers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.servers")
}
