//! A PostgreSQL of one's own.

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{Missing, PATIENCE, account::Account, free_port, janitor::Janitor};

/// Between two looks at a server that starts or ends.
const LOOK: Duration = Duration::from_millis(10);
/// Where Debian keeps what is not on the path, a folder a version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// The file with the server's id, its port, and whether it is ready.
const PID_FILE: &str = "postmaster.pid";

/// A server with data of its own, on a port of the loopback. Everybody may connect as `postgres`.
///
/// Its durability settings are the defaults: what it acknowledges has been synced.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    account: Account,
    port: u16,
    settings: Vec<String>,
    server: Mutex<Option<Child>>,
    // Dropped in this order: the janitor ends the server before the folder goes.
    _janitor: Janitor,
    folder: TempDir,
}

impl Postgres {
    /// Makes a database cluster and starts a server on it, with `settings` such as `fsync=off` beside
    /// the defaults.
    pub fn start(settings: &[&str]) -> Result<Self, Missing> {
        Self::start_in(&std::env::temp_dir(), settings)
    }

    /// The same with its data below `directory`, which the server's account can go through.
    pub fn start_in(directory: &Path, settings: &[&str]) -> Result<Self, Missing> {
        let programs = programs().ok_or(Missing {
            server: "PostgreSQL",
            install: "Debian: apt-get install postgresql",
        })?;
        let account = Account::unless_root("postgres");
        let folder = tempfile::Builder::new()
            .prefix("stategate-postgres-")
            .tempdir_in(directory)
            .expect("a folder");
        account.own(folder.path());
        let initialised = account
            .command(&programs.join("initdb"))
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "--no-sync", "--pgdata"])
            .arg(folder.path())
            .current_dir(folder.path())
            .output()
            .expect("run initdb");
        assert!(
            initialised.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&initialised.stderr)
        );
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        Ok(Self::on(folder, programs, account, settings))
    }

    /// Starts a server on the data in a folder.
    fn on(folder: TempDir, programs: PathBuf, account: Account, settings: Vec<String>) -> Self {
        let server = Self {
            programs,
            account,
            port: free_port(),
            settings,
            server: Mutex::new(None),
            _janitor: Janitor::hire(folder.path(), PID_FILE),
            folder,
        };
        server.restart();
        server
    }

    /// A standby of this server, which from now on waits for it with every commit.
    pub fn standby(&self) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("stategate-postgres-")
            .tempdir()
            .expect("a folder");
        self.account.own(folder.path());
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(folder.path(), private).expect("a private folder");
        let copied = self
            .account
            .command(&self.programs.join("pg_basebackup"))
            .args([
                "--checkpoint=fast",
                "--no-sync",
                "--write-recovery-conf",
                "--dbname",
            ])
            .arg(format!(
                "host=127.0.0.1 port={} user=postgres application_name=standby",
                self.port
            ))
            .arg("--pgdata")
            .arg(folder.path())
            .current_dir(folder.path())
            .output()
            .expect("run pg_basebackup");
        assert!(
            copied.status.success(),
            "pg_basebackup: {}",
            String::from_utf8_lossy(&copied.stderr)
        );
        let account = self.account;
        let standby = Self::on(
            folder,
            self.programs.clone(),
            account,
            self.settings.clone(),
        );
        self.sql("ALTER SYSTEM SET synchronous_standby_names = '*'");
        self.sql("SELECT pg_reload_conf()");
        self.until_replicated();
        standby
    }

    /// Waits until the standby has come (back) and is waited for.
    pub fn until_replicated(&self) {
        let begun = Instant::now();
        let waited_for = "SELECT count(*) FROM pg_stat_replication \
                          WHERE sync_state = 'sync' AND state = 'streaming'";
        while self.sql(waited_for) == "0" {
            assert!(begun.elapsed() < PATIENCE, "no standby: {}", self.log());
            thread::sleep(LOOK);
        }
    }

    /// One server for all tests of this process.
    pub fn shared() -> Result<&'static Self, Missing> {
        static SHARED: OnceLock<Result<Postgres, Missing>> = OnceLock::new();
        SHARED
            .get_or_init(|| Self::start(&["max_connections=400", "shared_buffers=256MB"]))
            .as_ref()
            .map_err(Clone::clone)
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!(
            "postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable",
            self.port
        )
    }

    /// One of its programs, such as `psql`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs statements through psql and answers what they print, columns separated by `|`.
    pub fn sql(&self, statements: &str) -> String {
        let out = Command::new(self.programs.join("psql"))
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["--set=ON_ERROR_STOP=1", "--command", statements])
            .arg(self.url())
            .output()
            .expect("run psql");
        assert!(
            out.status.success(),
            "{statements}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
    }

    /// A schema as statements that make it again.
    pub fn dump(&self, schema: &str) -> String {
        let out = Command::new(self.programs.join("pg_dump"))
            .args([
                "--inserts",
                "--no-owner",
                "--no-comments",
                "--schema",
                schema,
            ])
            .arg(self.url())
            .output()
            .expect("run pg_dump");
        assert!(out.status.success(), "pg_dump: {out:?}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Kills it, as a crash would; what its processes had in hand is gone.
    pub fn kill(&self) {
        self.end(Signal::SIGKILL);
    }

    /// Ends it in good order: running statements are cancelled, connections closed.
    pub fn stop(&self) {
        self.end(Signal::SIGINT);
    }

    /// Stops every process of it where it stands: connections stay, and nothing answers.
    pub fn freeze(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    /// Lets it go on after a [`Postgres::freeze`].
    pub fn thaw(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    fn signal_all(&self, signal: Signal) {
        let server = self.server.lock().unwrap();
        let id = server.as_ref().expect("a server that runs").id();
        let id = i32::try_from(id).expect("a process id");
        // First the one that makes others.
        kill(Pid::from_raw(id), signal).expect("signal the server");
        for child in children(id) {
            let _ = kill(child, signal);
        }
    }

    fn end(&self, signal: Signal) {
        let Some(mut server) = self.server.lock().unwrap().take() else {
            return;
        };
        let id = i32::try_from(server.id()).expect("a process id");
        let children = children(id);
        kill(Pid::from_raw(id), signal).expect("signal the server");
        // Stopped processes end when they go on.
        for process in [Pid::from_raw(id)].iter().chain(&children) {
            let _ = kill(*process, Signal::SIGCONT);
        }
        server.wait().expect("the server ends");
        // Those that serve connections notice its death when they next wait for something; until then
        // they would go on as if nothing had happened.
        for child in children {
            let _ = kill(child, Signal::SIGKILL);
            let begun = Instant::now();
            while kill(child, None).is_ok() && begun.elapsed() < PATIENCE {
                thread::sleep(LOOK);
            }
        }
    }

    /// Starts it again on its data, and waits until it answers.
    pub fn restart(&self) {
        let begun = Instant::now();
        while !self.try_start() {
            // After a kill its processes let go of the shared memory one by one.
            assert!(begun.elapsed() < PATIENCE, "PostgreSQL: {}", self.log());
            thread::sleep(LOOK);
        }
    }

    /// Whether it started; false if it ended again before it was ready.
    fn try_start(&self) -> bool {
        self.end(Signal::SIGQUIT);
        let log = fs::File::create(self.log_file()).expect("a log file");
        let mut command = self.account.command(&self.programs.join("postgres"));
        command.arg("-D").arg(self.folder.path());
        command.arg("-p").arg(self.port.to_string());
        command.args(["-c", "listen_addresses=127.0.0.1"]);
        command.arg("-c").arg(format!(
            "unix_socket_directories={}",
            self.folder.path().display()
        ));
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        let mut child = command
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start postgres");
        let begun = Instant::now();
        loop {
            if child.try_wait().expect("the server").is_some() {
                return false;
            }
            if self.is_ready() {
                *self.server.lock().unwrap() = Some(child);
                return true;
            }
            assert!(begun.elapsed() < PATIENCE, "PostgreSQL: {}", self.log());
            thread::sleep(LOOK);
        }
    }

    /// The last line of the file is the state, and connections are taken only in this one.
    fn is_ready(&self) -> bool {
        let said = fs::read_to_string(self.folder.path().join(PID_FILE));
        said.is_ok_and(|said| said.trim_end().ends_with("ready"))
            && TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// What it has said since it last started.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end(Signal::SIGQUIT);
    }
}

/// The processes of a server.
fn children(id: i32) -> Vec<Pid> {
    let listed = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let listed = listed.unwrap_or_default();
    let ids = listed.split_whitespace().filter_map(|id| id.parse().ok());
    ids.map(Pid::from_raw).collect()
}

/// Where the programs are: the folder of the newest version, or that of `initdb` on the path.
fn programs() -> Option<PathBuf> {
    let mut folders: Vec<(u32, PathBuf)> = fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    folders.sort();
    folders
        .into_iter()
        .rev()
        .map(|(_, folder)| folder)
        .chain(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ))
        .find(|folder| is_complete(folder))
}

fn is_complete(folder: &Path) -> bool {
    ["initdb", "postgres", "psql"]
        .iter()
        .all(|program| folder.join(program).is_file())
}
