//! One process under test: started, watched through its standard error, and ended by its id.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};

use crate::PATIENCE;

/// Between two looks at what cannot be waited for.
const LOOK: Duration = Duration::from_millis(2);

/// A process of the gateway. Dropping it kills it.
pub struct Process {
    name: &'static str,
    child: Child,
    lines: Arc<Lines>,
    grpc: SocketAddr,
    admin: SocketAddr,
}

/// The lines of its standard error.
struct Lines {
    read: Mutex<Vec<String>>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    lines: usize,
    is_over: bool,
}

impl Process {
    /// Starts `binary` with nothing of stategate in its environment but `env`, and waits until it
    /// is ready.
    pub async fn start(
        name: &'static str,
        binary: &Path,
        arguments: &[&str],
        env: &[(String, String)],
        folder: &Path,
    ) -> Self {
        let process = Self::start_unready(name, binary, arguments, env, folder).await;
        let begun = Instant::now();
        while process.http("/readyz").await.is_none() {
            process.overdue(begun, "is ready");
            sleep(LOOK).await;
        }
        process
    }

    /// The same, as soon as it listens.
    pub async fn start_unready(
        name: &'static str,
        binary: &Path,
        arguments: &[&str],
        env: &[(String, String)],
        folder: &Path,
    ) -> Self {
        let mut command = Command::new(binary);
        command
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("STATEGATE_") {
                command.env_remove(variable);
            }
        }
        command.envs(env.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().expect("start a binary under test");
        let lines = Arc::new(Lines {
            read: Mutex::default(),
            progress: watch::Sender::default(),
        });
        let stderr = child.stderr.take().expect("its standard error");
        thread::spawn({
            let lines = Arc::clone(&lines);
            move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let mut read = lines.read.lock().unwrap();
                    read.push(line);
                    lines.progress.send_modify(|p| p.lines = read.len());
                }
                lines.progress.send_modify(|p| p.is_over = true);
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut process = Self {
            name,
            child,
            lines,
            grpc: nowhere,
            admin: nowhere,
        };
        let (_, line) = process
            .line(0, "says where it listens", |line| {
                line.contains(r#""message":"listening""#)
            })
            .await;
        let line: serde_json::Value = serde_json::from_str(&line).expect("a JSON line");
        let address = |field: &str| -> SocketAddr {
            let text = line[field].as_str().expect("an address");
            text.parse().expect("an address")
        };
        process.grpc = address("grpc");
        process.admin = address("admin");
        process
    }

    /// Where its gRPC is.
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many lines it has written so far.
    pub fn written(&self) -> usize {
        self.lines.progress.borrow().lines
    }

    /// Waits for a line, from the `from`-th on, that `matches`; answers it and its number. `what`
    /// says what it stands for.
    pub async fn line(
        &self,
        from: usize,
        what: &str,
        matches: impl Fn(&str) -> bool,
    ) -> (usize, String) {
        let mut progress = self.lines.progress.subscribe();
        let mut at = from;
        let found = timeout(PATIENCE, async {
            loop {
                let now = *progress.borrow_and_update();
                {
                    let read = self.lines.read.lock().unwrap();
                    while let Some(line) = read.get(at) {
                        at += 1;
                        if matches(line) {
                            return Some((at - 1, line.clone()));
                        }
                    }
                }
                if now.is_over || progress.changed().await.is_err() {
                    return None;
                }
            }
        });
        match found.await {
            Ok(Some(found)) => found,
            Ok(None) => panic!(
                "{} ended before it {what}:\n{}",
                self.name,
                self.last_words()
            ),
            Err(_) => panic!("{} never {what}:\n{}", self.name, self.last_words()),
        }
    }

    /// The step that a batch was at when the last line of that kind was written.
    pub fn last_step(&self) -> Option<String> {
        let read = self.lines.read.lock().unwrap();
        let step = read
            .iter()
            .rev()
            .find_map(|line| line.strip_prefix("step "))?;
        step.split(' ').next().map(str::to_owned)
    }

    /// What followed this beginning, in every line that has it.
    pub fn said(&self, beginning: &str) -> Vec<String> {
        let read = self.lines.read.lock().unwrap();
        let rest = read.iter().filter_map(|line| line.strip_prefix(beginning));
        rest.map(str::to_owned).collect()
    }

    /// The newest lines that are no steps, for a message about a failure.
    pub fn last_words(&self) -> String {
        let read = self.lines.read.lock().unwrap();
        let lines = read.iter().rev().filter(|line| !line.starts_with("step "));
        let mut lines: Vec<&str> = lines.take(20).map(String::as_str).collect();
        lines.reverse();
        lines.join("\n")
    }

    /// Lines that are errors in its own eyes.
    pub fn errors(&self) -> Vec<String> {
        let read = self.lines.read.lock().unwrap();
        let errors = read
            .iter()
            .filter(|line| line.contains(r#""level":"ERROR""#) || line.contains("panicked at"));
        errors.cloned().collect()
    }

    /// SIGKILL, and waits until it is gone and its last line is read.
    pub async fn kill(&mut self) {
        // By its id, which is its own until it is waited for.
        let _ = self.child.kill();
        self.gone().await;
    }

    /// SIGSTOP.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Waits until it has ended by itself.
    pub async fn gone(&mut self) -> ExitStatus {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait for a process") {
                break status;
            }
            self.overdue(begun, "ended");
            sleep(LOOK).await;
        };
        let mut progress = self.lines.progress.subscribe();
        let over = timeout(PATIENCE, progress.wait_for(|progress| progress.is_over));
        over.await
            .expect("the end of its lines")
            .expect("its lines");
        status
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Memory it holds, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.child.id())
    }

    /// The sum of a metric over its labels; 0 while it was never touched.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.http("/metrics").await.expect("metrics");
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let rest = match rest.strip_prefix('{') {
                Some(labels) => labels.split_once('}')?.1,
                None => rest,
            };
            rest.strip_prefix(' ')?.parse::<f64>().ok()
        });
        values.sum()
    }

    /// What the listener beside gRPC answers, if it is 200.
    pub async fn http(&self, path: &str) -> Option<String> {
        let (is_ok, body) = self.answer(path).await?;
        is_ok.then_some(body)
    }

    /// Waits until `/readyz` says that the process is ready or not, and something else that `says`
    /// recognises; answers how long that took.
    pub async fn readiness(&self, is_ready: bool, says: impl Fn(&str) -> bool) -> Duration {
        let begun = Instant::now();
        loop {
            let said = self.answer("/readyz").await;
            if let Some((ready, body)) = &said
                && *ready == is_ready
                && says(body)
            {
                return begun.elapsed();
            }
            self.overdue(begun, &format!("said so, but {said:?}"));
            sleep(LOOK).await;
        }
    }

    /// What the listener beside gRPC answers, and whether that is 200.
    async fn answer(&self, path: &str) -> Option<(bool, String)> {
        let mut stream = TcpStream::connect(self.admin).await.ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: stategate\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.starts_with("HTTP/1.1 200"), body.to_owned()))
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        signal::kill(Pid::from_raw(pid), signal).expect("send a signal");
    }

    fn overdue(&self, begun: Instant, what: &str) {
        assert!(
            begun.elapsed() < PATIENCE,
            "{} never {what}:\n{}",
            self.name,
            self.last_words()
        );
    }
}

/// Memory that a process holds, in bytes; 0 once it is gone.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    1024 * kib
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or_default()
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- last lines of {}\n{}", self.name, self.last_words());
        }
    }
}
