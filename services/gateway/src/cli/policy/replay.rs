//! `policy replay`: the history judged by a policy that is not in force: which writes it would have refused.

use std::{
    io::BufRead,
    path::{Path, PathBuf},
};

use serde::Serialize;
use stategate_api::documents;
use stategate_model::{Event, Filter, Glob, Method, value::Corrupt};
use stategate_policy::{Decision, Denied, Document, Limits, Policy};

use super::files;
use crate::cli::{
    archive::{Item, Reader},
    connection::Connection,
    failure::{Exit, Failure},
    input::{self, Opened},
    json::{self as answers, int64},
    output::{Form, Output},
    progress::Progress,
    text,
    walk::Walk,
};

/// What `policy replay` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each event is judged as the call that made it: its method, its entity with the values, and the claims that were \
kept of its caller. What the history does not keep, the policy does not see: metadata and the client's \
certificate are empty; an Edit has all values of the entity and not only those that were given; a Revert has no \
event id; and of the claims there are those that STATEGATE_EVENT_CLAIMS named then.

With --response, each event is judged as a stream would deliver it to a caller with the claims given.

Exit codes: 0 nothing would have been refused; 1 something would have been; 2 the policy cannot be used.

Examples:
  stategate policy replay policy.rego
  stategate policy replay policy.rego --data roles.json --domain accounting --json
  stategate policy replay policy.rego --history history.ndjson.gz
  stategate policy replay response.rego --response --claims claims.json")]
pub(crate) struct Args {
    /// The files of one policy, or directories of which every *.rego but tests counts
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The data document
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// A file that `export --history` wrote, instead of the running gateway; - reads stdin
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Judge events as a stream delivers them, by a policy of answers
    #[arg(long, requires = "claims")]
    response: bool,
    /// The claims to judge by, as JSON, instead of those of each event
    #[arg(long, value_name = "FILE")]
    claims: Option<PathBuf>,
    /// Only events of these domains, as a glob (* ? [a-z] {a,b})
    #[arg(long, value_name = "GLOB", default_value = "*")]
    domain: String,
    /// Only events of these types
    #[arg(long = "type", value_name = "GLOB", default_value = "*")]
    kind: String,
    /// Only events of these keys
    #[arg(long, value_name = "GLOB", default_value = "*")]
    key: String,
    /// Only events that this filter matches, as in `events`
    #[arg(
        long,
        value_name = "JSON",
        default_value = "",
        hide_default_value = true
    )]
    filter: String,
    /// Most refused events to print; 0 prints all
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: u64,
}

/// An event that would have been refused.
#[derive(Debug, Serialize)]
struct Refused {
    id: String,
    domain: String,
    #[serde(rename = "type")]
    kind: String,
    key: String,
    method: &'static str,
    #[serde(serialize_with = "int64")]
    version: u64,
    #[serde(serialize_with = "int64")]
    time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<String>,
    why: String,
}

/// The outcome.
#[derive(Debug, Default, Serialize)]
struct Report {
    judged: u64,
    refused: u64,
    /// Edits, of which the values given are not known.
    edits: u64,
    /// Events without claims: written while authentication was off.
    without_claims: u64,
    /// Those that would have been refused, up to the limit.
    events: Vec<Refused>,
}

/// Judges events.
struct Judge {
    policy: Policy,
    is_response: bool,
    claims: Option<Document>,
    selection: Selection,
    limit: u64,
    report: Report,
}

/// Which events are judged.
struct Selection {
    domain: Glob,
    kind: Glob,
    key: Glob,
    filter: Filter,
}

impl Selection {
    fn new(args: &Args) -> Result<Self, Failure> {
        let glob = |field, text: &str| {
            Glob::parse(field, text).map_err(|invalid| Failure::usage(invalid.to_string()))
        };
        Ok(Self {
            domain: glob("domain", &args.domain)?,
            kind: glob("type", &args.kind)?,
            key: glob("key", &args.key)?,
            filter: Filter::parse_event(&args.filter)
                .map_err(|invalid| Failure::usage(invalid.to_string()))?,
        })
    }

    fn has(&self, event: &Event) -> bool {
        self.domain.matches(event.entity.domain())
            && self.kind.matches(event.entity.kind())
            && self.key.matches(event.entity.key())
            && (self.filter.is_all() || self.filter.matches_event(event).unwrap_or(false))
    }
}

/// Judges the history.
pub(super) async fn run(way: &Connection, args: Args, output: &mut Output) -> Result<(), Failure> {
    let judge = judge(&args)?;
    let judge = match &args.history {
        Some(file) => from_file(file.clone(), judge).await?,
        None => from_gateway(way, &args.domain, judge).await?,
    };
    let Judge {
        is_response,
        report,
        ..
    } = judge;
    print(&report, is_response, output)?;
    output.flush()?;
    match report.refused {
        0 => Ok(()),
        _ => Err(Failure::quiet(Exit::Failed)),
    }
}

fn judge(args: &Args) -> Result<Judge, Failure> {
    let modules = files::policy(&args.files)?;
    let data = args.data.as_deref().map(files::data).transpose()?;
    let policy = Policy::compile(&modules, data.as_ref(), Limits::default());
    let policy = policy
        .map_err(|error| Failure::usage(format!("the gateway would refuse the policy: {error}")))?;
    let claims = args.claims.as_deref().map(files::object).transpose()?;
    Ok(Judge {
        policy,
        is_response: args.response,
        claims: claims.as_ref().map(Document::from),
        selection: Selection::new(args)?,
        limit: args.limit,
        report: Report::default(),
    })
}

async fn from_gateway(way: &Connection, domains: &str, mut judge: Judge) -> Result<Judge, Failure> {
    let client = way.open().await?;
    let mut walk = Walk::begin(&client, domains, None).await?;
    let mut progress = Progress::new("events", Some(walk.size()));
    while let Some(event) = walk.next().await? {
        judge.event(&event).map_err(damaged)?;
        let (judged, refused) = (judge.report.judged, judge.report.refused);
        progress.show(judged, refused, || walk.read());
        // A long history must not keep an interruption waiting.
        tokio::task::consume_budget().await;
    }
    progress.finish();
    Ok(judge)
}

async fn from_file(file: PathBuf, judge: Judge) -> Result<Judge, Failure> {
    let read = tokio::task::spawn_blocking(move || {
        let Opened { text, .. } = input::open(&file)?;
        read(text, &file, judge)
    });
    read.await
        .map_err(|_| Failure::failed("the reader of the file ended early"))?
}

fn read(text: impl BufRead, file: &Path, mut judge: Judge) -> Result<Judge, Failure> {
    let shown = file.display().to_string();
    let Some(mut reader) = Reader::begin(text, &shown)? else {
        return Err(Failure::failed(format!(
            "{shown}, line 1 is not the beginning of what `export --history` writes"
        )));
    };
    let mut is_whole = false;
    while let Some((_, item)) = reader.next()? {
        is_whole = match item {
            Item::Event(event) => {
                judge.event(&event).map_err(damaged)?;
                false
            }
            Item::End(_) => true,
        };
    }
    if !is_whole {
        return Err(Failure::failed(format!(
            "{shown} ends before the export did; export it again with the same --out to go on"
        )));
    }
    Ok(judge)
}

fn damaged(corrupt: Corrupt) -> Failure {
    Failure::failed(format!("an event cannot be judged: {corrupt}"))
}

impl Judge {
    fn event(&mut self, event: &Event) -> Result<(), Corrupt> {
        if !self.selection.has(event) {
            return Ok(());
        }
        self.report.judged += 1;
        self.report.edits += u64::from(event.method == Method::Edit);
        let claims = event.claims.values();
        self.report.without_claims += u64::from(claims.json() == "{}");
        let claims = match &self.claims {
            Some(claims) => claims.clone(),
            None => Document::try_from(claims)?,
        };
        let (method, body) = match self.is_response {
            true => ("/stategate.EventService/Stream", documents::event(event)?),
            false => (event.method.as_str(), request(event)?),
        };
        let decision = self.policy.decide(|| {
            Document::object([
                ("claims", claims),
                ("method", Document::from(method)),
                ("metadata", Document::object::<&str>([])),
                ("body", body),
                ("client_stream", Document::from(false)),
                ("server_stream", Document::from(self.is_response)),
            ])
        });
        if let Decision::Deny(why) = decision {
            self.refuse(event, &why);
        }
        Ok(())
    }

    fn refuse(&mut self, event: &Event, why: &Denied) {
        self.report.refused += 1;
        if self.limit != 0 && self.report.refused > self.limit {
            return;
        }
        let shown = answers::Event::from(event);
        self.report.events.push(Refused {
            who: shown.author().map(str::to_owned),
            id: shown.id,
            domain: shown.entity.domain,
            kind: shown.entity.kind,
            key: shown.entity.key,
            method: shown.method,
            version: shown.version,
            time: shown.time,
            why: why.to_string(),
        });
    }
}

/// The request that made an event, as far as the event tells.
fn request(event: &Event) -> Result<Document, Corrupt> {
    let entity = &event.entity;
    let names = [
        ("domain", Document::from(entity.domain())),
        ("type", Document::from(entity.kind())),
        ("key", Document::from(entity.key())),
    ];
    Ok(match event.method {
        Method::Set | Method::Edit => {
            let values = ("values", Document::try_from(&event.values)?);
            Document::object(names.into_iter().chain([values]))
        }
        Method::Revert | Method::Del => Document::object(names),
    })
}

fn print(report: &Report, is_response: bool, output: &mut Output) -> Result<(), Failure> {
    let Form::Text(screen) = output.form().clone() else {
        return output.json(report);
    };
    for event in &report.events {
        let who = event.who.as_deref().unwrap_or("nobody known");
        let name = format!("{}/{}/{}", event.domain, event.kind, event.key);
        output.line(&format!(
            "{}  {}  {}  v{}  {}  {}  ({})",
            screen.clock.time(event.time),
            text::method(event.method),
            screen.paint.bold(&text::plain(&name)),
            event.version,
            text::plain(who),
            screen.paint.faint(&text::plain(&event.id)),
            event.why
        ))?;
    }
    let listed = u64::try_from(report.events.len()).unwrap_or(u64::MAX);
    if listed < report.refused {
        let more = text::count(report.refused - listed);
        output.line(&format!("… and {more} more; --limit 0 prints all"))?;
    }
    let what = match is_response {
        true => "events are withheld",
        false => "writes would have been refused",
    };
    output.line(&format!(
        "{} of {} {what}",
        text::count(report.refused),
        text::count(report.judged)
    ))?;
    if report.without_claims > 0 && !is_response {
        output.line(&format!(
            "{} were written without claims, while authentication was off; --claims gives some to judge by",
            text::count(report.without_claims)
        ))?;
    }
    if report.edits > 0 && !is_response {
        output.line(&format!(
            "{} were Edits, judged with all values of the entity: the history does not keep which were given",
            text::count(report.edits)
        ))?;
    }
    Ok(())
}
