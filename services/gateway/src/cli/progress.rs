//! A bar for work that takes its time: how much is done, how fast, how long it still takes.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::text;

/// How often the bar is brought up to date.
const UPDATE: Duration = Duration::from_millis(100);

/// A bar on stderr, where a terminal shows it.
pub(crate) struct Progress {
    began: Instant,
    shown: Instant,
    what: &'static str,
    bar: ProgressBar,
}

impl Progress {
    /// Begins. `what` is counted: `rows`; `size` is how much there is to go through, in whatever
    /// [`Progress::show`] is told, if that is known.
    pub(crate) fn new(what: &'static str, size: Option<u64>) -> Self {
        let now = Instant::now();
        Self {
            began: now,
            shown: now,
            what,
            bar: bar(size),
        }
    }

    /// Shows that `count` are done, and how far that is through the size.
    pub(crate) fn show(&mut self, count: u64, failed: u64, at: impl FnOnce() -> u64) {
        if self.bar.is_hidden() || self.shown.elapsed() < UPDATE {
            return;
        }
        self.shown = Instant::now();
        self.bar.set_position(at());
        let mut message = format!(
            "{} {}  {}/s",
            text::count(count),
            self.what,
            text::count(self.rate(count))
        );
        if failed > 0 {
            message.push_str(&format!("  {} failed", text::count(failed)));
        }
        self.bar.set_message(message);
    }

    /// Does something with the terminal while the bar is out of the way.
    pub(crate) fn suspend(&self, work: impl FnOnce()) {
        self.bar.suspend(work);
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Seconds since it began.
    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// How many of `count` were done in a second.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is positive, far below the bounds, and need not be exact"
    )]
    pub(crate) fn rate(&self, count: u64) -> u64 {
        (count as f64 / self.seconds().max(1e-9)).round() as u64
    }
}

fn bar(size: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(size, ProgressDrawTarget::hidden());
    }
    let template = match size {
        Some(_) => "{bar:24} {percent:>3}%  {msg}  {eta} left",
        None => "{spinner} {msg}  {elapsed}",
    };
    // The templates are constant; were one wrong, the default style would do.
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr()).with_style(style)
}
