//! The processes under test. Each is started on free ports, its addresses are read from the `listening` line
//! of its log, and it is stopped by its process id.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a process may take to listen, and a stream service to connect to its channel.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a process may take to stop. The gateway's own time limit for draining is shorter.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Linux reports processor time in hundredths of a second, whatever the frequency of its timer.
const TICK_MS: u64 = 10;
/// Between two checks of a process.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// What `/readyz` answers if the process accepts calls and all of its connections are up.
pub(crate) const READY: &str = "ready\n";
/// How many of a process's last lines of log are kept, to be shown if it fails.
const KEPT_LINES: usize = 20;

/// A process that serves gRPC.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    addresses: Addresses,
    /// The last lines of its log.
    log: Arc<Mutex<VecDeque<String>>>,
}

/// Where a process listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Addresses {
    grpc: SocketAddr,
    /// For health and metrics. The echo server has none.
    admin: Option<SocketAddr>,
}

impl Process {
    /// Starts a process that logs its addresses, and waits until it does.
    pub(crate) fn start(name: &'static str, mut command: Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!("cannot start {name} ({})", command.get_program().display())
            })?;
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (sender, receiver) = mpsc::channel();
        if let Some(stderr) = child.stderr.take() {
            let log = Arc::clone(&log);
            thread::spawn(move || read_log(stderr, &log, &sender));
        }
        let addresses = receiver.recv_timeout(START_TIMEOUT);
        let unknown = Addresses {
            grpc: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: None,
        };
        let mut process = Self {
            name,
            child,
            addresses: unknown,
            log,
        };
        match addresses {
            Ok(addresses) => process.addresses = addresses,
            Err(_) => bail!(
                "{name} did not log where it listens; its log:\n{}",
                process.log()
            ),
        }
        Ok(process)
    }

    /// The address of its gRPC listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses.grpc
    }

    /// Waits until it is ready: a stream service then is connected to its channel.
    pub(crate) fn wait_until_ready(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let state = self.readiness()?;
            if state == READY {
                return Ok(());
            }
            if begun.elapsed() > START_TIMEOUT {
                bail!("{} is not ready:\n{state}{}", self.name, self.log());
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// The answer of `/readyz`.
    pub(crate) fn readiness(&self) -> anyhow::Result<String> {
        self.http_get("/readyz")
    }

    /// The body that the admin listener answers a GET with.
    pub(crate) fn http_get(&self, path: &str) -> anyhow::Result<String> {
        let get = || -> anyhow::Result<String> {
            let address = self.addresses.admin.context("it has no admin listener")?;
            let mut stream = TcpStream::connect(address)?;
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            let (_, body) = answer
                .split_once("\r\n\r\n")
                .context("the answer is not HTTP")?;
            Ok(body.to_owned())
        };
        get().with_context(|| format!("cannot ask {} for {path}", self.name))
    }

    /// Its highest memory use so far, in MiB.
    pub(crate) fn peak_mib(&self) -> Option<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib / 1_024)
    }

    /// Its anonymous resident memory, in KiB.
    pub(crate) fn memory_kib(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path)?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
        Ok(kib
            .context("there is no RssAnon in /proc/PID/status")?
            .trim()
            .parse()?)
    }

    /// The processor time of all its threads so far.
    pub(crate) fn processor_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(path).unwrap_or_default();
        // Fields 14 and 15 of proc(5). The name before them is in parentheses and may contain spaces.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * TICK_MS)
    }

    /// Stops it; anything but a clean exit is an error.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, Signal::SIGTERM).with_context(|| format!("cannot stop {}", self.name))?;
        let begun = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.log()),
                None if begun.elapsed() > STOP_TIMEOUT => {
                    bail!("{} did not stop:\n{}", self.name, self.log())
                }
                None => thread::sleep(POLL_INTERVAL),
            }
        }
    }

    fn log(&self) -> String {
        let lines = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After `stop` there is no process any more, and both fail.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the log of a process until it ends, so that the process never blocks on a full pipe.
fn read_log(
    stderr: ChildStderr,
    log: &Mutex<VecDeque<String>>,
    addresses_sender: &mpsc::Sender<Addresses>,
) {
    for line in BufReader::new(stderr).lines() {
        let Ok(line) = line else { return };
        if let Some(addresses) = addresses(&line) {
            // Only the first is received.
            let _ = addresses_sender.send(addresses);
        }
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == KEPT_LINES {
            log.pop_front();
        }
        log.push_back(line);
    }
}

/// The addresses in a `listening` line of the log. The log is JSON, since standard error is not a terminal.
fn addresses(line: &str) -> Option<Addresses> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    (line.get("message")? == "listening").then_some(())?;
    let address = |field| line.get(field)?.as_str()?.parse().ok();
    Some(Addresses {
        grpc: address("grpc")?,
        admin: address("admin"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listening_line_has_addresses() {
        let line = r#"{"timestamp":"t","level":"INFO","message":"listening","grpc":"127.0.0.1:4711","admin":"127.0.0.1:4712"}"#;
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(
            addresses(line),
            Some(Addresses {
                grpc: at(4711),
                admin: Some(at(4712)),
            })
        );
        let floor = addresses(r#"{"message":"listening","grpc":"127.0.0.1:4711"}"#);
        assert_eq!(floor.and_then(|floor| floor.admin), None);
        for other in [
            "",
            "listening on 127.0.0.1:1",
            r#"{"message":"ended","grpc":"127.0.0.1:1"}"#,
        ] {
            assert_eq!(addresses(other), None, "{other}");
        }
    }
}
