//! The processes under test: started on loopback, found by the line in which they say where they
//! listen, and ended by their process id.

use std::{
    collections::VecDeque,
    env,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
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
/// Lines kept of what a process said, to be shown when it fails.
const LINES: usize = 20;

/// A process that serves gRPC.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    address: SocketAddr,
    said: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// `stategate dev` on a free port with the storage that `provider` says.
    pub(crate) fn gateway(binary: &Path, provider: &serde_json::Value) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        // What is measured is the defaults.
        for (variable, _) in env::vars_os() {
            if variable.to_string_lossy().starts_with("STATEGATE_") {
                command.env_remove(variable);
            }
        }
        command
            .args(["dev", "--port", "0"])
            .env("STATEGATE_STORAGE_PROVIDER", provider.to_string());
        Self::start("the gateway", command)
    }

    /// The floors that answer over gRPC: this binary again, in a process of its own as the gateway.
    pub(crate) fn floor() -> anyhow::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("floor-echo");
        Self::start("the echo floor", command)
    }

    fn start(name: &'static str, mut command: Command) -> anyhow::Result<Self> {
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
        let address = listening.recv_timeout(START);
        let mut process = Self {
            name,
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            said,
        };
        match address {
            Ok(address) => process.address = address,
            Err(_) => bail!(
                "{name} did not say where it listens; it said:\n{}",
                process.said()
            ),
        }
        Ok(process)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
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
                None => thread::sleep(Duration::from_millis(10)),
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
fn listen(stderr: ChildStderr, said: &Mutex<VecDeque<String>>, heard: &mpsc::Sender<SocketAddr>) {
    for line in BufReader::new(stderr).lines() {
        let Ok(line) = line else { return };
        if let Some(address) = address(&line) {
            // Nobody waits for a second one.
            let _ = heard.send(address);
        }
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() == LINES {
            said.pop_front();
        }
        said.push_back(line);
    }
}

/// The address in a `listening` line of the log, which is JSON when standard error is no terminal.
fn address(line: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    (line.get("message")? == "listening").then_some(())?;
    line.get("grpc")?.as_str()?.parse().ok()
}

/// The gateway's binary: that beside this one, unless another is named.
pub(crate) fn gateway_binary(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let path = match named {
        Some(path) => path,
        None => env::current_exe()?.with_file_name("stategate"),
    };
    if !path.is_file() {
        bail!(
            "there is no gateway at {}; build it with `cargo build --release -p stategate`, or name it with --gateway",
            path.display()
        );
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_that_says_so_has_the_address() {
        let line = r#"{"timestamp":"t","level":"INFO","message":"listening","grpc":"127.0.0.1:4711","admin":"127.0.0.1:4712"}"#;
        assert_eq!(
            address(line),
            Some(SocketAddr::from(([127, 0, 0, 1], 4711)))
        );
        for other in [
            "",
            "listening on 127.0.0.1:1",
            r#"{"message":"ended","grpc":"127.0.0.1:1"}"#,
        ] {
            assert_eq!(address(other), None, "{other}");
        }
    }
}
