//! What brokers have in common: each is a server on one port that goes away and comes back.

use std::fmt;

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::daemon::Daemon;

/// A broker of one's own, which can be killed and stopped.
pub trait Broker: fmt::Debug + Send + Sync + 'static {
    /// The server that it is.
    fn server(&self) -> &Daemon;

    /// What it is called.
    fn name(&self) -> &'static str {
        self.server().name()
    }

    /// Where clients connect.
    fn url(&self) -> String;

    /// Its version.
    fn version(&self) -> String {
        self.server().version()
    }

    /// Its port.
    fn port(&self) -> u16 {
        self.server().port()
    }

    /// Its port for a proxy.
    fn behind(&self) -> u16 {
        self.port()
    }

    /// Kills it, as a crash would.
    fn kill(&self) {
        self.server().kill();
    }

    /// Starts it again, and waits until it takes connections.
    fn restart(&self) {
        self.server().restart();
    }

    /// Takes it away.
    fn leave(&self, how: Absence) {
        match how {
            Absence::Killed => self.kill(),
            Absence::Stopped => signal(self.server(), Signal::SIGSTOP),
        }
    }

    /// Brings it back.
    fn come_back(&self, from: Absence) {
        match from {
            Absence::Killed => self.restart(),
            Absence::Stopped => signal(self.server(), Signal::SIGCONT),
        }
    }
}

/// How a broker goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Absence {
    /// Killed: whoever asks is refused at once.
    Killed,
    /// Stopped: connections stay and nobody answers.
    Stopped,
}

fn signal(server: &Daemon, signal: Signal) {
    let pid = server.pid().expect("a broker that runs");
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
    signal::kill(pid, signal).expect("send a signal");
}
