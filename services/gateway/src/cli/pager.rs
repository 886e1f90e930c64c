//! Long answers through the user's pager, where a terminal shows them.

use std::{
    env,
    io::{self, Stdout, Write},
    process::{Child, Command, Stdio},
};

use tokio::signal::unix::{SignalKind, signal};

/// What shows a text a screen at a time, ends by itself where that is all, and leaves it there.
const LESS: &str = "less -FRX";

/// Stdout, behind a pager from the first byte on.
pub(crate) struct Pager {
    program: Vec<String>,
    target: Target,
}

enum Target {
    /// Nothing was written yet.
    Waiting,
    Child(Child),
    /// There is no pager to be had.
    Stdout(Stdout),
}

impl Pager {
    /// The pager of `PAGER`; `None` when the user wants none.
    pub(crate) fn of_user() -> Option<Self> {
        let program = env::var("PAGER").unwrap_or(LESS.to_owned());
        let program: Vec<_> = program.split_whitespace().map(str::to_owned).collect();
        match program.first().map(String::as_str) {
            None | Some("cat") => None,
            // Its own settings would keep it from ending by itself.
            Some("less") if program.len() == 1 => {
                Some(LESS.split_whitespace().map(str::to_owned).collect())
            }
            Some(_) => Some(program),
        }
        .map(|program| Self {
            program,
            target: Target::Waiting,
        })
    }

    fn start(&self) -> Target {
        let Some((name, arguments)) = self.program.split_first() else {
            return Target::Stdout(io::stdout());
        };
        let child = Command::new(name)
            .args(arguments)
            .stdin(Stdio::piped())
            .spawn();
        match child {
            Ok(child) => {
                // An interrupt is the pager's: it ends a search there, and not this program.
                if let Ok(mut interrupts) = signal(SignalKind::interrupt()) {
                    tokio::spawn(async move { while interrupts.recv().await.is_some() {} });
                }
                Target::Child(child)
            }
            Err(_) => Target::Stdout(io::stdout()),
        }
    }
}

impl Write for Pager {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Target::Waiting = self.target {
            self.target = self.start();
        }
        match &mut self.target {
            Target::Waiting => Err(io::ErrorKind::NotConnected.into()),
            Target::Child(child) => match &mut child.stdin {
                Some(stdin) => stdin.write(bytes),
                None => Err(io::ErrorKind::BrokenPipe.into()),
            },
            Target::Stdout(stdout) => stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::Waiting => Ok(()),
            Target::Child(child) => child.stdin.as_mut().map_or(Ok(()), Write::flush),
            Target::Stdout(stdout) => stdout.flush(),
        }
    }
}

/// The terminal is the pager's until the user has read enough.
impl Drop for Pager {
    fn drop(&mut self) {
        if let Target::Child(child) = &mut self.target {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}
