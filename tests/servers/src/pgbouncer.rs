//! A PgBouncer in front of a PostgreSQL.

use std::{
    fs,
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{Missing, PATIENCE, Postgres, account::Account, free_port, janitor::Janitor};

const LOOK: Duration = Duration::from_millis(10);
const PID_FILE: &str = "pgbouncer.pid";

/// A PgBouncer that hands connections over between transactions. Gone when dropped.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    child: Child,
    _janitor: Janitor,
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts one in front of `server`, with hardly more connections to it than callers at a time.
    pub fn start(server: &Postgres) -> Result<Self, Missing> {
        let programs = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"];
        let program = programs
            .into_iter()
            .map(std::path::Path::new)
            .find(|program| program.is_file())
            .ok_or(Missing {
                server: "PgBouncer",
                install: "Debian: apt-get install pgbouncer",
            })?;
        let account = Account::unless_root("postgres");
        let folder = tempfile::Builder::new()
            .prefix("stategate-pgbouncer-")
            .tempdir()
            .expect("a folder");
        account.own(folder.path());
        let port = free_port();
        let shown = folder.path().display();
        let settings = format!(
            "[databases]\n\
             postgres = host=127.0.0.1 port={} user=postgres dbname=postgres\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = any\n\
             pool_mode = transaction\n\
             default_pool_size = 6\n\
             max_client_conn = 500\n\
             pidfile = {shown}/{PID_FILE}\n\
             logfile = {shown}/pgbouncer.log\n",
            server.port()
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, settings).expect("write its settings");
        let mut command: Command = account.command(program);
        let mut child = command
            .arg("--quiet")
            .arg(&file)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start pgbouncer");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let said = || fs::read_to_string(folder.path().join("pgbouncer.log"));
            let ended = child.try_wait().expect("pgbouncer");
            assert!(
                ended.is_none() && begun.elapsed() < PATIENCE,
                "PgBouncer: {ended:?} {:?}",
                said()
            );
            thread::sleep(LOOK);
        }
        Ok(Self {
            port,
            child,
            _janitor: Janitor::hire(folder.path(), PID_FILE),
            _folder: folder,
        })
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!(
            "postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable",
            self.port
        )
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
