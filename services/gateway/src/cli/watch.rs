//! `watch`: prints changes as they happen, and goes on where it was when a connection is lost.

use std::{str::FromStr, time::Duration};

use futures::FutureExt as _;
use stategate_model::{Lane, Position, Token};
use stategate_protocol::{event::PROGRESS, headers, pb};
use tonic::{Request, Status, Streaming};

use super::{
    client::Gateway,
    events,
    failure::{self, Failure, Kind},
    json,
    output::{Form, Note, Output},
    when::When,
};

/// The first and the longest wait before a lost connection is tried again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What `watch` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Domains, as a glob (* ? [a-z] {a,b}); one domain costs the gateway least
    #[arg(long, value_name = "GLOB", default_value = "*")]
    domain: String,
    /// Types, as a glob
    #[arg(long = "type", value_name = "GLOB", default_value = "*")]
    kind: String,
    /// Keys, as a glob
    #[arg(long, value_name = "GLOB", default_value = "*")]
    key: String,
    /// Where to begin: live, beginning, a token that a write or an earlier watch printed, or a time
    /// (2013-01-01T05:00:00Z, or how long ago: 10m, 2h)
    #[arg(long, value_name = "START", default_value = "live")]
    from: From,
    /// A JSON filter over the event, such as '{"entity.values.alt": {"$gt": 1000}}'
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "",
        hide_default_value = true
    )]
    filter: String,
    /// Only changes made by this method: set, edit, revert or del; may be given several times
    #[arg(long = "method", value_name = "METHOD")]
    methods: Vec<String>,
    /// Also print how far the log was read while nothing matched
    #[arg(long)]
    progress: bool,
    /// End after this many events; 0 goes on
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: u64,
}

/// Where a watch begins.
#[derive(Debug, Clone, PartialEq)]
enum From {
    Live,
    Beginning,
    After(Token),
    Since(When),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "live" => Ok(Self::Live),
            "beginning" => Ok(Self::Beginning),
            token if token.contains('/') => token
                .parse()
                .map(Self::After)
                .map_err(|problem| format!("`{token}` {problem}")),
            time => time
                .parse()
                .map(Self::Since)
                .map_err(|problem| format!("{problem}; or write live, beginning or a token")),
        }
    }
}

/// Prints events until there are enough of them, or the user ends it.
pub(crate) async fn run(gateway: &Gateway, args: Args, output: &mut Output) -> Result<(), Failure> {
    let mut watch = Watch::new(args);
    let ended = tokio::select! {
        ended = watch.run(gateway, output) => ended,
        () = super::signals::stop() => output.flush(),
    };
    if let (Ok(()), Some(token)) = (&ended, &watch.token) {
        Note::stderr().say(&format!("read up to {token}"));
    }
    ended
}

/// What is asked for, and how far it was answered.
struct Watch {
    options: pb::StreamOpts,
    prints_progress: bool,
    /// `None`: without end.
    left: Option<u64>,
    token: Option<Token>,
}

/// How one stream ended.
enum Ended {
    Enough,
    Lost(String),
    Failed(Failure),
}

impl Watch {
    fn new(args: Args) -> Self {
        use pb::stream_opts::Start;

        let start = match args.from {
            From::Live => None,
            From::Beginning => Some(Start::FromBeginning(true)),
            From::After(token) => Some(Start::After(token.to_string())),
            From::Since(when) => Some(Start::Since(when.nanoseconds())),
        };
        Self {
            options: pb::StreamOpts {
                domain: args.domain,
                r#type: args.kind,
                key: args.key,
                query_string: args.filter,
                methods: args.methods.iter().map(|name| method(name)).collect(),
                // Always, so that a watch that matches little resumes near the end of the log.
                progress: true,
                start,
                ..pb::StreamOpts::default()
            },
            prints_progress: args.progress,
            left: (args.limit > 0).then_some(args.limit),
            token: None,
        }
    }

    async fn run(&mut self, gateway: &Gateway, output: &mut Output) -> Result<(), Failure> {
        let mut wait = BACK_OFF.0;
        let mut is_lost = false;
        loop {
            let before = self.token.clone();
            let cause = match self.stream(gateway, output, &mut is_lost).await {
                Ended::Enough => return output.flush(),
                Ended::Failed(failure) => return Err(failure),
                Ended::Lost(cause) => cause,
            };
            output.flush()?;
            if self.token != before {
                wait = BACK_OFF.0;
            }
            if !is_lost {
                Note::stderr().say(&format!("{cause}; trying again until it is back"));
                is_lost = true;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(BACK_OFF.1);
        }
    }

    /// Prints one stream until it ends.
    async fn stream(
        &mut self,
        gateway: &Gateway,
        output: &mut Output,
        was_lost: &mut bool,
    ) -> Ended {
        let mut options = self.options.clone();
        if let Some(token) = &self.token {
            options.start = Some(pb::stream_opts::Start::After(token.to_string()));
        }
        // Not a request with a timeout: that would end the stream.
        let mut events = gateway.events();
        let opening = events.stream(Request::new(options));
        let opened = match tokio::time::timeout(gateway.timeout(), opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(status)) => return self.ended(&status, gateway),
            Err(_) if self.token.is_some() => return Ended::Lost("no answer in time".to_owned()),
            Err(_) => return Ended::Failed(Failure::no_answer(Kind::Read, gateway.timeout())),
        };
        if self.token.is_none() {
            let token = opened.metadata().get(headers::POSITION);
            self.token = token.and_then(|token| token.to_str().ok()?.parse().ok());
        }
        if std::mem::take(was_lost) {
            Note::stderr().say("connected again");
        }
        let mut stream = opened.into_inner();
        loop {
            match self.next(&mut stream, output).await {
                Ok(Ok(Some(event))) => match self.print(event, output) {
                    Ok(true) => return Ended::Enough,
                    Ok(false) => {}
                    Err(failure) => return Ended::Failed(failure),
                },
                Ok(Ok(None)) => return self.ended(&Status::unavailable("closed"), gateway),
                Ok(Err(status)) => return self.ended(&status, gateway),
                Err(failure) => return Ended::Failed(failure),
            }
        }
    }

    /// The next event. What was printed is handed on before there is anything to wait for, and not
    /// more often, so that a replay is as fast as a pipe.
    async fn next(
        &self,
        stream: &mut Streaming<pb::Event>,
        output: &mut Output,
    ) -> Result<Result<Option<pb::Event>, Status>, Failure> {
        if let Some(next) = stream.message().now_or_never() {
            return Ok(next);
        }
        output.flush()?;
        Ok(stream.message().await)
    }

    /// Prints an event; whether it was the last one wanted.
    fn print(&mut self, event: pb::Event, output: &mut Output) -> Result<bool, Failure> {
        let place = u8::try_from(event.lane)
            .ok()
            .zip(Position::from_i64(event.position));
        let is_progress = event.method == PROGRESS;
        if !is_progress || self.prints_progress {
            let event = json::Event::from(event);
            match output.form() {
                Form::Json => output.json(&event)?,
                Form::Text(screen) => {
                    let line = events::line(&event, screen);
                    output.line(&line)?;
                }
            }
        }
        // After it was printed, so that an event is never counted as read before it is.
        if let (Some(token), Some((lane, position))) = (&mut self.token, place) {
            token.advance(Lane(lane), position);
        }
        if is_progress {
            return Ok(false);
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Ok(self.left == Some(0))
    }

    /// Whether a stream that ended can go on where it was. Reading twice changes nothing, so every
    /// loss of a connection is tried again; what a gateway refuses is not.
    fn ended(&self, status: &Status, gateway: &Gateway) -> Ended {
        let is_passing = !failure::is_answer(status) || failure::retry_delay(status).is_some();
        let is_unknown_call = status.code() == tonic::Code::Unimplemented;
        if self.token.is_some() && is_passing && !is_unknown_call {
            let cause = failure::explain(status, Kind::Read, gateway.address());
            Ended::Lost(cause)
        } else {
            Ended::Failed(Failure::of_status(status, Kind::Read, gateway.address()))
        }
    }
}

/// A method by its short name, in any case, or in full.
fn method(name: &str) -> String {
    match name.to_ascii_lowercase().as_str() {
        "set" => "/stategate.EntityService/Set".to_owned(),
        "edit" => "/stategate.EntityService/Edit".to_owned(),
        "revert" => "/stategate.EntityService/Revert".to_owned(),
        "del" => "/stategate.EntityService/Del".to_owned(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use stategate_protocol::Problem;

    use super::*;
    use crate::cli::{
        failure::Exit,
        testing::{Fake, LOG, Printed},
    };

    #[test]
    fn a_start_is_a_word_a_token_or_a_time() {
        assert_eq!("live".parse(), Ok(From::Live));
        assert_eq!("beginning".parse(), Ok(From::Beginning));
        let token = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff/0:12";
        assert_eq!(token.parse(), Ok(From::After(token.parse().unwrap())));
        assert!(matches!("10m".parse(), Ok(From::Since(_))));
        assert!(matches!("2013-01-01T05:00:00Z".parse(), Ok(From::Since(_))));
        for wrong in ["now", "x/0:1", "Live", ""] {
            assert!(wrong.parse::<From>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn methods_have_short_names() {
        assert_eq!(method("set"), "/stategate.EntityService/Set");
        assert_eq!(method("Del"), "/stategate.EntityService/Del");
        assert_eq!(method("/x/Y"), "/x/Y");
    }

    fn event(position: i64) -> pb::Event {
        pb::Event {
            id: format!("e{position}"),
            method: "/stategate.EntityService/Set".to_owned(),
            position,
            ..pb::Event::default()
        }
    }

    fn progress(position: i64) -> pb::Event {
        pb::Event {
            id: String::new(),
            method: PROGRESS.to_owned(),
            ..event(position)
        }
    }

    fn args(more: &[&str]) -> Args {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let line = ["watch"].iter().chain(more);
        <Line as clap::Parser>::try_parse_from(line).unwrap().args
    }

    async fn watch(fake: &Fake, more: &[&str]) -> (Vec<String>, Result<(), Failure>) {
        let gateway = fake.start().await;
        let printed = Printed::default();
        let ended = run(&gateway, args(more), &mut printed.output()).await;
        let ids = printed.lines();
        let ids = ids.iter().map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            event["id"].as_str().unwrap_or("-").to_owned()
        });
        (ids.collect(), ended)
    }

    #[tokio::test]
    async fn a_lost_stream_goes_on_where_it_was() {
        use pb::stream_opts::Start;

        let fake = Fake::default();
        fake.0.lock().unwrap().streams = [
            (
                vec![event(1), event(2)],
                Some(Status::unavailable("draining")),
            ),
            (vec![progress(7)], None),
            (vec![event(8)], Some(Problem::StorageUnavailable.into())),
            (vec![event(9), event(10), event(11)], None),
        ]
        .into();
        let (ids, ended) = watch(&fake, &["--from", "beginning", "--limit", "5"]).await;
        ended.unwrap();
        assert_eq!(ids, ["e1", "e2", "e8", "e9", "e10"]);
        let script = fake.0.lock().unwrap();
        let starts = script.subscriptions.iter().map(|asked| asked.start.clone());
        let after = |position| Some(Start::After(format!("{LOG}/0:{position}")));
        assert_eq!(
            starts.collect::<Vec<_>>(),
            [
                Some(Start::FromBeginning(true)),
                after(2),
                after(7),
                after(8)
            ]
        );
        assert!(script.subscriptions.iter().all(|asked| asked.progress));
    }

    #[tokio::test]
    async fn what_a_gateway_refuses_is_not_tried_again() {
        let fake = Fake::default();
        fake.0.lock().unwrap().streams = [
            (vec![event(1)], Some(Problem::LogRewound.into())),
            (vec![event(1)], None),
        ]
        .into();
        let (ids, ended) = watch(&fake, &[]).await;
        assert_eq!(ids, ["e1"]);
        assert_eq!(ended.unwrap_err().exit(), Exit::Failed);
        assert_eq!(fake.0.lock().unwrap().subscriptions.len(), 1);
    }

    #[tokio::test]
    async fn progress_is_printed_on_request_and_never_counted() {
        for (more, expected) in [
            (&["--limit", "1"][..], vec!["e2"]),
            (&["--limit", "1", "--progress"], vec!["-", "e2"]),
        ] {
            let fake = Fake::default();
            fake.0.lock().unwrap().streams = [(vec![progress(1), event(2)], None)].into();
            let (ids, ended) = watch(&fake, more).await;
            ended.unwrap();
            assert_eq!(ids, expected);
        }
    }
}
