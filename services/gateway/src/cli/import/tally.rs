//! Counts what became of the rows, and shows it: a bar while the import runs, a line at its end.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde::Serialize;
use serde_json::Value;
use stategate_client::{Token, Written};

use crate::cli::{
    failure::{Exit, Failure},
    output::{Form, Note, Output},
    progress::Progress,
    text,
};

/// The counts of an import.
pub(crate) struct Tally {
    what: &'static str,
    written: u64,
    failed: u64,
    replayed: u64,
    token: Option<Token>,
    read: Arc<AtomicU64>,
    progress: Progress,
}

/// The counts as they are printed for programs.
#[derive(Debug, Serialize)]
struct Counts<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<u64>,
    written: u64,
    failed: u64,
    /// How many of the written were so by an earlier run.
    replayed: u64,
    seconds: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<String>,
}

impl Tally {
    /// Begins, with a bar if a terminal shows it. `what` is counted, `rows` or `events`; `read` counts
    /// the bytes read of `size`.
    pub(crate) fn new(what: &'static str, read: Arc<AtomicU64>, size: Option<u64>) -> Self {
        Self {
            what,
            written: 0,
            failed: 0,
            replayed: 0,
            token: None,
            read,
            progress: Progress::new(what, size),
        }
    }

    /// A row was written.
    pub(crate) fn written(&mut self, written: &Written) {
        self.many_written(1, Some(&written.token), written.replayed);
    }

    /// Rows were written, by this run or, `replayed`, by an earlier one.
    pub(crate) fn many_written(&mut self, count: u64, token: Option<&Token>, replayed: bool) {
        self.written += count;
        if replayed {
            self.replayed += count;
        }
        match (&mut self.token, token) {
            (Some(latest), Some(token)) => latest.merge(token),
            (latest @ None, token) => *latest = token.cloned(),
            (Some(_), None) => {}
        }
        self.show();
    }

    /// A row was not, as far as is known.
    pub(crate) fn failed(&mut self, why: &str) {
        self.failed += 1;
        let why = text::plain(why);
        self.progress.suspend(|| Note::stderr().write(&why));
        self.show();
    }

    /// Prints the counts. `id` is that of the import, if it has one.
    pub(crate) fn finish(
        &self,
        name: &str,
        id: Option<&str>,
        output: &mut Output,
    ) -> Result<(), Failure> {
        self.progress.finish();
        let seconds = self.progress.seconds();
        let all = self.written + self.failed;
        let rate = self.progress.rate(all);
        if let Form::Json = output.form() {
            let of = |what: &str, number: u64| (self.what == what).then_some(number);
            return output.json(&Counts {
                rows: of("rows", all),
                events: of("events", all),
                written: self.written,
                failed: self.failed,
                replayed: self.replayed,
                seconds: Value::from((seconds * 1e3).round() / 1e3),
                rows_per_second: of("rows", rate),
                events_per_second: of("events", rate),
                id,
                position: self.token.as_ref().map(Token::to_string),
            });
        }
        let before = match self.replayed {
            0 => String::new(),
            before => format!(" ({} by an earlier run)", text::count(before)),
        };
        output.line(&format!(
            "{name}: {} {}, {} written{before}, {} failed in {seconds:.1} s ({}/s)",
            text::count(all),
            self.what,
            text::count(self.written),
            text::count(self.failed),
            text::count(rate)
        ))
    }

    /// Whether the import succeeded.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        if self.failed == 0 {
            return Ok(());
        }
        let (failed, all) = (self.failed, self.written + self.failed);
        let message = format!(
            "{} of {} {} failed",
            text::count(failed),
            text::count(all),
            self.what
        );
        Err(Failure::new(Exit::RowsFailed, message))
    }

    fn show(&mut self) {
        let read = &self.read;
        let all = self.written + self.failed;
        self.progress
            .show(all, self.failed, || read.load(Ordering::Relaxed));
    }
}
