//! `watch`: prints changes as they happen, and goes on where it was when a connection is lost.

use std::str::FromStr;

use futures::FutureExt as _;
use stategate_client::{Client, Method, Start, Step, Subscription, Timestamp, Token, Watch};
use stategate_protocol::event::PROGRESS;

use super::{
    events,
    failure::{self, Failure},
    json::{Event, Progress},
    output::{Form, Note, Output, Screen},
    text,
    when::When,
};

/// What `watch` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A lost connection is made again, and the watch goes on after the last event it printed: nothing is left \
out and nothing printed twice. So it is when the token expires and the token file has a newer one. When it ends, it says the token to go on from with --from.

Examples:
  stategate watch
  stategate watch --domain faa --type 'air*' --from beginning
  stategate watch --domain faa --filter '{\"entity.values.alt\": {\"$gt\": 1000}}'
  stategate watch --domain faa --method del --from 1d --ndjson
  stategate watch --from 6f9619ff-8b86-4d01-b42d-00cf4fc964ff/0:4780")]
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
    /// Where to begin: live, beginning, a token that a write or an earlier watch printed, or a time as
    /// commands show it (2026-01-31 15:47:44, 2026-01-31, 2026-01-31T15:47:44Z, nanoseconds, or how long
    /// ago: 10m, 2h)
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
    #[arg(long = "method", value_name = "METHOD", value_parser = method)]
    methods: Vec<Method>,
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
            // A time has a slash in the name of its zone.
            text => match text.parse() {
                Ok(time) => Ok(Self::Since(time)),
                Err(_) if text.contains('/') => text
                    .parse()
                    .map(Self::After)
                    .map_err(|problem| format!("`{text}` {problem}")),
                Err(problem) => Err(format!("{problem}; or write live, beginning or a token")),
            },
        }
    }
}

/// Prints events until there are enough of them, or the user ends it.
pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let mut printer = Printer {
        prints_progress: args.progress,
        left: (args.limit > 0).then_some(args.limit),
    };
    let stop = super::signals::stop();
    tokio::pin!(stop);
    let mut watch = tokio::select! {
        watch = client.subscribe(args.subscription()) => watch?,
        // Nothing was read that there would be something to say of.
        () = &mut stop => return Ok(()),
    };
    let ended = tokio::select! {
        ended = printer.run(&mut watch, output) => ended,
        () = stop => output.flush(),
    };
    if let (Ok(()), Some(token)) = (&ended, watch.token()) {
        Note::stderr().say(&format!("read up to {token}"));
    }
    ended
}

impl Args {
    fn subscription(self) -> Subscription {
        Subscription::new(self.domain, self.kind)
            .key(self.key)
            .filter_text(self.filter)
            .methods(self.methods)
            .from(match self.from {
                From::Live => Start::Live,
                From::Beginning => Start::Beginning,
                From::After(token) => Start::After(token),
                From::Since(when) => Start::Since(Timestamp(when.first())),
            })
    }
}

/// What is printed, and how much of it.
struct Printer {
    prints_progress: bool,
    /// `None`: without end.
    left: Option<u64>,
}

impl Printer {
    async fn run(&mut self, watch: &mut Watch, output: &mut Output) -> Result<(), Failure> {
        let mut is_lost = false;
        while self.left != Some(0) {
            // What was printed is handed on before there is anything to wait for, and not more often,
            // so that a replay is as fast as a pipe.
            let step = match watch.step().now_or_never() {
                Some(step) => step,
                None => {
                    output.flush()?;
                    watch.step().await
                }
            };
            match step {
                Ok(Step::Event(event)) => {
                    print(&Event::from(&event), output)?;
                    self.left = self.left.map(|left| left - 1);
                }
                Ok(Step::Progress(lane, position)) if self.prints_progress => {
                    let progress = Progress {
                        method: PROGRESS,
                        lane: lane.0,
                        position: position.get(),
                    };
                    match output.form().clone() {
                        Form::Json => output.json(&progress)?,
                        Form::Text(screen) => output.line(&passed(&progress, &screen))?,
                    }
                }
                Ok(Step::Lost(error)) if !is_lost => {
                    is_lost = true;
                    output.flush()?;
                    Note::stderr().say(&failure::lost(&error));
                }
                Ok(Step::Resumed) => {
                    is_lost = false;
                    Note::stderr().say("connected again");
                }
                Ok(_) => {}
                Err(error) => {
                    output.flush()?;
                    return Err(error.into());
                }
            }
        }
        output.flush()
    }
}

fn print(event: &Event, output: &mut Output) -> Result<(), Failure> {
    match output.form().clone() {
        Form::Json => output.json(event),
        Form::Text(screen) => output.line(&events::line(event, &screen)),
    }
}

fn passed(progress: &Progress, screen: &Screen) -> String {
    let line = format!("lane {} position {}", progress.lane, progress.position);
    screen.paint.faint(&text::cut(&line, screen.width))
}

/// A method by its short name, in any case.
fn method(name: &str) -> Result<Method, String> {
    let full = format!("/stategate.EntityService/{name}").to_ascii_lowercase();
    let known = Method::ALL
        .into_iter()
        .find(|method| method.as_str().to_ascii_lowercase() == full);
    known.ok_or_else(|| format!("`{name}` makes no events; write set, edit, revert or del"))
}

#[cfg(test)]
mod tests {
    use stategate_api::Problem;
    use stategate_protocol::{pb, status};
    use tonic::Status;

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
        let zoned = "2013-01-01 05:00:00 Europe/Berlin";
        assert!(matches!(zoned.parse(), Ok(From::Since(_))));
        for wrong in ["then", "x/0:1", "Live", ""] {
            assert!(wrong.parse::<From>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn methods_have_short_names() {
        assert_eq!(method("set"), Ok(Method::Set));
        assert_eq!(method("Del"), Ok(Method::Del));
        assert!(method("get").is_err());
    }

    fn id(position: i64) -> String {
        format!("1b4e28ba-2fa1-4d2b-883f-{position:012}")
    }

    fn event(position: i64) -> pb::Event {
        pb::Event {
            id: id(position),
            entity: Some(pb::Entity {
                domain: "faa".to_owned(),
                r#type: "airport".to_owned(),
                key: "JFK".to_owned(),
                values: Some(stategate_protocol::Struct::default()),
                version: 0,
            }),
            claims: Some(stategate_protocol::Struct::default()),
            method: "/stategate.EntityService/Set".to_owned(),
            version: 1,
            position,
            ..pb::Event::default()
        }
    }

    fn progress(position: i64) -> pb::Event {
        pb::Event {
            method: PROGRESS.to_owned(),
            position,
            ..pb::Event::default()
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
        let client = fake.start().await.open().await.unwrap();
        let printed = Printed::default();
        let ended = run(&client, args(more), &mut printed.output()).await;
        let ids = printed.lines();
        let ids = ids.iter().map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            let id = event["id"].as_str().unwrap_or("-");
            let position = id.rsplit('-').next().unwrap();
            position.trim_start_matches('0').to_owned()
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
            (vec![event(8)], Some(status(Problem::StorageUnavailable))),
            (vec![event(9), event(10), event(11)], None),
        ]
        .into();
        let (ids, ended) = watch(&fake, &["--from", "beginning", "--limit", "5"]).await;
        ended.unwrap();
        assert_eq!(ids, ["1", "2", "8", "9", "10"]);
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
            (vec![event(1)], Some(status(Problem::LogRewound))),
            (vec![event(1)], None),
        ]
        .into();
        let (ids, ended) = watch(&fake, &[]).await;
        assert_eq!(ids, ["1"]);
        assert_eq!(ended.unwrap_err().exit(), Exit::Refused);
        assert_eq!(fake.0.lock().unwrap().subscriptions.len(), 1);
    }

    #[tokio::test]
    async fn progress_is_printed_on_request_and_never_counted() {
        for (more, expected) in [
            (&["--limit", "1"][..], vec!["2"]),
            (&["--limit", "1", "--progress"], vec!["", "2"]),
        ] {
            let fake = Fake::default();
            fake.0.lock().unwrap().streams = [(vec![progress(1), event(2)], None)].into();
            let (ids, ended) = watch(&fake, more).await;
            ended.unwrap();
            assert_eq!(ids, expected);
        }
    }
}
