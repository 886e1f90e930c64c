//! Counts what became of the rows, and shows it: a bar while the import runs, a line at its end.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde::Serialize;
use serde_json::Value;
use stategate_client::{Outcome, Token, Written};
use stategate_model::LogId;

use crate::cli::{
    failure::{Exit, Failure},
    output::{Form, Note, Output},
    progress::Progress,
    text,
};

/// The counts of an import.
pub(crate) struct Tally {
    what: &'static str,
    /// In the log there is.
    written: u64,
    /// Surely not.
    failed: u64,
    /// Perhaps.
    open: u64,
    /// Of the written, what was there before it was sent.
    replayed: u64,
    /// Where the last of it is.
    token: Option<Token>,
    /// Logs that were replaced while this went on, and what was written to them.
    gone: Vec<LogId>,
    lost: u64,
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
    /// How many of the written were so by an earlier run, or an earlier try.
    replayed: u64,
    /// How many may have been written, once.
    #[serde(skip_serializing_if = "is_none")]
    unknown: u64,
    /// How many were written to a log that was replaced since.
    #[serde(skip_serializing_if = "is_none")]
    lost: u64,
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

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields over by reference"
)]
fn is_none(count: &u64) -> bool {
    *count == 0
}

impl Tally {
    /// Begins, with a bar if a terminal shows it. `what` is counted, `rows` or `events`; `read` counts
    /// the bytes read of `size`.
    pub(crate) fn new(what: &'static str, read: Arc<AtomicU64>, size: Option<u64>) -> Self {
        Self {
            what,
            written: 0,
            failed: 0,
            open: 0,
            replayed: 0,
            token: None,
            gone: Vec::new(),
            lost: 0,
            read,
            progress: Progress::new(what, size),
        }
    }

    /// A row was written.
    pub(crate) fn written(&mut self, written: &Written) -> Result<(), Failure> {
        self.many_written(1, Some(&written.token), written.replayed)
    }

    /// Rows were written, by this try or, `replayed`, by an earlier one. Fails where that is another log
    /// than the one that the rows before went to.
    pub(crate) fn many_written(
        &mut self,
        count: u64,
        token: Option<&Token>,
        replayed: bool,
    ) -> Result<(), Failure> {
        let is_same = match (&mut self.token, token) {
            (Some(latest), Some(token)) if latest.log_id == token.log_id => {
                latest.merge(token);
                true
            }
            // Late: this was written before the log was replaced.
            (Some(_), Some(token)) if self.gone.contains(&token.log_id) => {
                self.lost += count;
                return Err(replaced(self.what));
            }
            (Some(latest), Some(token)) => {
                self.gone.push(latest.log_id);
                *latest = token.clone();
                self.lost += std::mem::take(&mut self.written);
                self.replayed = 0;
                false
            }
            (latest @ None, token) => {
                *latest = token.cloned();
                true
            }
            (Some(_), None) => true,
        };
        self.written += count;
        if replayed {
            self.replayed += count;
        }
        self.show();
        if is_same {
            Ok(())
        } else {
            Err(replaced(self.what))
        }
    }

    /// A row failed, with what is known of it.
    pub(crate) fn failed(&mut self, outcome: Outcome, why: &str) {
        match outcome {
            Outcome::Written => self.written += 1,
            Outcome::MayBeWritten => self.open += 1,
            Outcome::NotWritten => self.failed += 1,
        }
        let why = text::plain(why);
        self.progress.suspend(|| Note::stderr().write(&why));
        self.show();
    }

    /// Rows were sent, and nobody waits for what becomes of them.
    pub(crate) fn left_open(&mut self, count: u64) {
        self.open += count;
    }

    fn all(&self) -> u64 {
        self.written + self.failed + self.open + self.lost
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
        let all = self.all();
        let rate = self.progress.rate(all);
        if let Form::Json = output.form() {
            let of = |what: &str, number: u64| (self.what == what).then_some(number);
            return output.json(&Counts {
                rows: of("rows", all),
                events: of("events", all),
                written: self.written,
                failed: self.failed,
                replayed: self.replayed,
                unknown: self.open,
                lost: self.lost,
                seconds: Value::from((seconds * 1e3).round() / 1e3),
                rows_per_second: of("rows", rate),
                events_per_second: of("events", rate),
                id,
                position: self.token.as_ref().map(Token::to_string),
            });
        }
        let before = match self.replayed {
            0 => String::new(),
            before => format!(" ({} by an earlier try)", text::count(before)),
        };
        let more = |count: u64, what: &str| match count {
            0 => String::new(),
            count => format!(", {} {what}", text::count(count)),
        };
        output.line(&format!(
            "{name}: {} {}, {} written{before}, {} failed{}{} in {seconds:.1} s ({}/s)",
            text::count(all),
            self.what,
            text::count(self.written),
            text::count(self.failed),
            more(self.open, "may have been written"),
            more(self.lost, "written to a log that was replaced since"),
            text::count(rate)
        ))
    }

    /// Whether the import succeeded.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        if self.failed == 0 && self.open == 0 {
            return Ok(());
        }
        let all = text::count(self.all());
        let open = match self.open {
            0 => String::new(),
            open => format!(", {} more may have been written", text::count(open)),
        };
        let failed = text::count(self.failed);
        let message = format!("{failed} of {all} {} failed{open}", self.what);
        Err(Failure::new(Exit::RowsFailed, message))
    }

    fn show(&mut self) {
        let read = &self.read;
        let all = self.all();
        self.progress
            .show(all, self.failed, || read.load(Ordering::Relaxed));
    }
}

/// What was written so far is not where the rest would go.
fn replaced(what: &str) -> Failure {
    Failure::new(
        Exit::Refused,
        format!(
            "the log of the gateway was replaced while this import ran (restored, or started again in memory), and the {what} written before are not in it"
        ),
    )
}

#[cfg(test)]
mod tests {
    use stategate_model::{Lane, Position};

    use super::*;

    #[test]
    fn what_a_replaced_log_had_is_not_counted_as_written() {
        let of = |log| move |at| Token::of_lane(log, Lane(0), Position::new(at));
        let (old, new) = (of(LogId::random()), of(LogId::random()));
        let mut tally = Tally::new("rows", Arc::default(), None);
        for at in 1..=3 {
            tally.many_written(1, Some(&old(at)), true).unwrap();
        }
        let ended = tally.many_written(1, Some(&new(1)), false).unwrap_err();
        assert_eq!(ended.exit(), Exit::Refused);
        assert!(ended.message().unwrap().contains("log"));
        // What was on its way, to either.
        assert!(tally.many_written(1, Some(&old(4)), false).is_err());
        assert!(tally.many_written(1, Some(&new(2)), false).is_ok());
        tally.failed(Outcome::MayBeWritten, "line 8: may have been written");
        tally.failed(Outcome::NotWritten, "line 9: not written");
        assert_eq!((tally.written, tally.lost, tally.replayed), (2, 4, 0));
        assert_eq!((tally.open, tally.failed, tally.all()), (1, 1, 8));
        let verdict = tally.verdict().unwrap_err();
        assert_eq!(
            verdict.message(),
            Some("1 of 8 rows failed, 1 more may have been written")
        );
    }
}
