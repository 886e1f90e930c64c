//! The processes under test: started on loopback, found by the line in which they say where they
//! listen, and ended by their process id.

use std::{
    collections::VecDeque,
    env,
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

/// How long a process may take to listen.
const START: Duration = Duration::from_secs(30);
/// How long a process may take to end; the gateway's own grace time is within it.
const END: Duration = Duration::from_secs(30);
/// Linux counts processor time in hundredths of a second, whatever its own clock does.
const TICK_MS: u64 = 10;
/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(10);
/// What a process says of itself that wants calls and lacks nothing.
pub(crate) const READY: &str = "ready\n";
/// Lines kept of what a process said, to be shown when it fails.
const LINES: usize = 20;

/// A process that serves gRPC.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    addresses: Addresses,
    said: Arc<Mutex<VecDeque<String>>>,
}

/// Where a process listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Addresses {
    grpc: SocketAddr,
    /// The listener beside gRPC; a floor has none.
    admin: Option<SocketAddr>,
}

impl Process {
    /// The floors that answer over gRPC: this binary again, in a process of its own as the gateway.
    pub(crate) fn floor() -> anyhow::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("floor-echo");
        Self::start("the echo floor", command)
    }

    /// Starts what says where it listens, and waits until it does.
    pub(crate) fn start(name: &'static str, mut command: Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!("cannot start {name} ({})", command.get_program().display())
            })?;
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let (heard, listening) = mpsc::channel();
        if let Some(stderr) = child.stderr.take() {
            let said = Arc::clone(&said);
            thread::spawn(move || listen(stderr, &said, &heard));
        }
        let addresses = listening.recv_timeout(START);
        let nowhere = Addresses {
            grpc: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: None,
        };
        let mut process = Self {
            name,
            child,
            addresses: nowhere,
            said,
        };
        match addresses {
            Ok(addresses) => process.addresses = addresses,
            Err(_) => bail!(
                "{name} did not say where it listens; it said:\n{}",
                process.said()
            ),
        }
        Ok(process)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses.grpc
    }

    /// Waits until a service that streams has its channel.
    pub(crate) fn wait_for_channel(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let state = self.readiness()?;
            if state == READY {
                return Ok(());
            }
            if begun.elapsed() > START {
                bail!("{} is not ready:\n{state}{}", self.name, self.said());
            }
            thread::sleep(LOOK);
        }
    }

    /// What it says of itself.
    pub(crate) fn readiness(&self) -> anyhow::Result<String> {
        self.ask("/readyz")
    }

    /// What the listener beside gRPC answers.
    pub(crate) fn ask(&self, path: &str) -> anyhow::Result<String> {
        let ask = || -> anyhow::Result<String> {
            let address = self.addresses.admin.context("it has no such listener")?;
            let mut stream = TcpStream::connect(address)?;
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            let (_, body) = answer
                .split_once("\r\n\r\n")
                .context("it is not an answer")?;
            Ok(body.to_owned())
        };
        ask().with_context(|| format!("cannot ask {} for {path}", self.name))
    }

    /// The most memory it held so far, in MiB.
    pub(crate) fn peak_mib(&self) -> Option<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib / 1_024)
    }

    /// The memory it holds that no file backs, in KiB.
    pub(crate) fn memory_kib(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path)?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
        Ok(kib.context("the system does not say")?.trim().parse()?)
    }

    /// The processor time it took so far, of all its threads.
    pub(crate) fn processor_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(path).unwrap_or_default();
        // Behind the name, which may have spaces, in parentheses: fields 14 and 15 of proc(5).
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * TICK_MS)
    }

    /// Ends it, which must go well.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, Signal::SIGTERM).with_context(|| format!("cannot end {}", self.name))?;
        let begun = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.said()),
                None if begun.elapsed() > END => {
                    bail!("{} did not end:\n{}", self.name, self.said())
                }
                None => thread::sleep(LOOK),
            }
        }
    }

    fn said(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().cloned().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After `end` both find nobody.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads what a process says until it ends, so that it never waits for a full pipe.
fn listen(stderr: ChildStderr, said: &Mutex<VecDeque<String>>, heard: &mpsc::Sender<Addresses>) {
    for line in BufReader::new(stderr).lines() {
        let Ok(line) = line else { return };
        if let Some(addresses) = addresses(&line) {
            // Nobody waits for a second one.
            let _ = heard.send(addresses);
        }
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() == LINES {
            said.pop_front();
        }
        said.push_back(line);
    }
}

/// The addresses in a `listening` line of the log, which is JSON when standard error is no terminal.
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
    fn only_the_line_that_says_so_has_the_addresses() {
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
