//! Asks the user on a terminal before what cannot be undone.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

/// Why it is not to be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Declined {
    /// There is no terminal, so nobody can agree.
    #[error("{0} Say so with --yes")]
    NoTerminal(String),
    /// The user said no.
    #[error("nothing was done")]
    ByUser,
    /// The terminal cannot be used.
    #[error("cannot ask: {0}")]
    Unable(#[from] io::Error),
}

/// Asks, and returns if the user agrees.
pub(crate) fn confirm(question: &str) -> Result<(), Declined> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Declined::NoTerminal(question.to_owned()));
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Declined::ByUser),
    }
}
