//! Counts what became of the rows, and shows it: a bar while the import runs, a line at its end.

use std::{
    io::{self, IsTerminal as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use stategate_model::{Token, Value};

use crate::cli::{
    failure::{Exit, Failure},
    output::{Form, Note, Output},
    text,
};

/// How often the bar is brought up to date.
const UPDATE: Duration = Duration::from_millis(100);

/// The counts of an import.
pub(crate) struct Tally {
    written: u64,
    failed: u64,
    token: Option<Token>,
    began: Instant,
    shown: Instant,
    read: Arc<AtomicU64>,
    bar: ProgressBar,
}

/// The counts as they are printed for programs.
#[derive(Debug, Serialize)]
struct Counts {
    rows: u64,
    written: u64,
    failed: u64,
    seconds: Value,
    rows_per_second: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<String>,
}

impl Tally {
    /// Begins, with a bar if a terminal shows it. `read` counts the bytes read of `size`.
    pub(crate) fn new(read: Arc<AtomicU64>, size: Option<u64>) -> Self {
        let now = Instant::now();
        Self {
            written: 0,
            failed: 0,
            token: None,
            began: now,
            shown: now,
            read,
            bar: bar(size),
        }
    }

    /// A row was written.
    pub(crate) fn written(&mut self, token: Option<Token>) {
        self.written += 1;
        match (&mut self.token, token) {
            (Some(latest), Some(token)) => latest.merge(&token),
            (latest @ None, token) => *latest = token,
            (Some(_), None) => {}
        }
        self.show();
    }

    /// A row was not, as far as is known.
    pub(crate) fn failed(&mut self, why: &str) {
        self.failed += 1;
        let why = text::plain(why);
        self.bar.suspend(|| Note::stderr().write(&why));
        self.show();
    }

    /// Prints the counts.
    pub(crate) fn finish(&self, name: &str, output: &mut Output) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        let seconds = self.began.elapsed().as_secs_f64();
        let rows = self.written + self.failed;
        let rate = self.rate();
        match output.form() {
            Form::Json => output.json(&Counts {
                rows,
                written: self.written,
                failed: self.failed,
                // As a value, which prints whole seconds without a fraction.
                seconds: Value::from((seconds * 1e3).round() / 1e3),
                rows_per_second: whole(rate),
                position: self.token.as_ref().map(Token::to_string),
            }),
            Form::Text(_) => output.line(&format!(
                "{name}: {} rows, {} written, {} failed in {seconds:.1} s ({} rows/s)",
                text::count(rows),
                text::count(self.written),
                text::count(self.failed),
                text::count(whole(rate))
            )),
        }
    }

    /// Whether the import succeeded.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        if self.failed == 0 {
            return Ok(());
        }
        let (failed, rows) = (self.failed, self.written + self.failed);
        let message = format!(
            "{} of {} rows failed",
            text::count(failed),
            text::count(rows)
        );
        Err(Failure::new(Exit::RowsFailed, message))
    }

    #[allow(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    fn rate(&self) -> f64 {
        let seconds = self.began.elapsed().as_secs_f64();
        (self.written + self.failed) as f64 / seconds.max(1e-9)
    }

    fn show(&mut self) {
        if self.bar.is_hidden() || self.shown.elapsed() < UPDATE {
            return;
        }
        self.shown = Instant::now();
        self.bar.set_position(self.read.load(Ordering::Relaxed));
        let mut message = format!(
            "{} rows  {} rows/s",
            text::count(self.written + self.failed),
            text::count(whole(self.rate()))
        );
        if self.failed > 0 {
            message.push_str(&format!("  {} failed", text::count(self.failed)));
        }
        self.bar.set_message(message);
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is positive and far below the bounds"
)]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

fn bar(size: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(size, ProgressDrawTarget::hidden());
    }
    let template = match size {
        Some(_) => "{bar:30} {percent:>3}%  {msg}  {eta} left",
        None => "{spinner} {msg}  {elapsed}",
    };
    // The templates are constant; were one wrong, the default style would do.
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr()).with_style(style)
}
