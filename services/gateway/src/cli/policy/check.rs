//! `policy check`: what a policy decides on an input and why; or whether the gateway would take it, and what
//! it looks at.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;
use serde_json::{Value, value::RawValue};
use stategate_policy::{
    Decision, Members, Module, Policy, Reads,
    kit::{self, Definition, Explanation, Outcome, Seen},
};

use super::files;
use crate::cli::{
    failure::{Exit, Failure},
    output::{Form, Output, Paint},
    text,
};

/// Most characters of a value that a person is shown.
const SHOWN: usize = 200;

/// What `policy check` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With an input, prints the decision of the gateway, which definitions of `allow` hold, at which statement the \
others end and what that looked at, and the values of all other rules. Without one, prints what the policy \
looks at, or everything that the gateway would refuse it for.

Exit codes: 0 allowed, or accepted; 1 denied; 2 refused by the gateway, or it cannot be checked.

Examples:
  stategate policy check policy.rego
  stategate policy check policy.rego --input input.json --data roles.json
  echo '{\"claims\": {\"tenant\": \"acme\"}, \"method\": \"/stategate.EntityService/Get\",
    \"body\": {\"domain\": \"acme\", \"type\": \"user\", \"key\": \"1\"}}' |
    stategate policy check policy.rego --input -")]
pub(crate) struct Args {
    /// The files of one policy, or directories of which every *.rego but tests counts
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// What it is to decide on, as JSON; - reads stdin
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The data document
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
}

/// A decision as it is printed for programs.
#[derive(Debug, Serialize)]
struct Report<'e> {
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    definitions: Vec<DefinitionLine<'e>>,
    rules: BTreeMap<&'e str, Option<Box<RawValue>>>,
    reads: ReadsLine<'e>,
}

#[derive(Debug, Serialize)]
struct DefinitionLine<'e> {
    file: &'e str,
    line: u32,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<EndLine<'e>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'e str>,
}

#[derive(Debug, Serialize)]
struct EndLine<'e> {
    line: u32,
    statement: &'e str,
    seen: BTreeMap<&'e str, Option<Box<RawValue>>>,
}

/// What a policy looks at.
#[derive(Debug, Serialize)]
struct ReadsLine<'r> {
    claims: Value,
    metadata: Value,
    method: bool,
    body: bool,
    client_certificate: bool,
    streams: bool,
    /// The input in a way that cannot be told from the source.
    everything: bool,
    clock: bool,
    /// What it says of everything, if it looks at nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    always: Option<&'r str>,
}

/// The outcome without an input.
#[derive(Debug, Serialize)]
struct Accepted<'r> {
    accepted: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refusals: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reads: Option<ReadsLine<'r>>,
}

/// Checks a policy.
pub(super) async fn run(args: Args, output: &mut Output) -> Result<(), Failure> {
    let checked = tokio::task::spawn_blocking(move || check(&args));
    let checked = checked
        .await
        .map_err(|_| Failure::usage("the check ended early"))??;
    let form = output.form().clone();
    match (&checked, &form) {
        (Checked::Refused(refusals), Form::Json) => output.json(&Accepted {
            accepted: false,
            refusals: refusals.clone(),
            reads: None,
        })?,
        (Checked::Refused(_), Form::Text(_)) => {}
        (Checked::Accepted(policy), Form::Json) => output.json(&Accepted {
            accepted: true,
            refusals: Vec::new(),
            reads: Some(reads(policy)),
        })?,
        (Checked::Accepted(policy), Form::Text(_)) => {
            output.line("The gateway would take it.")?;
            output.line(&looks_at(policy))?;
        }
        (Checked::Decided(policy, told), Form::Json) => output.json(&report(policy, told))?,
        (Checked::Decided(policy, told), Form::Text(screen)) => {
            print(policy, told, screen.paint, output)?;
        }
    }
    output.flush()?;
    match checked {
        Checked::Refused(refusals) => Err(Failure::usage(format!(
            "the gateway would refuse the policy: {}",
            refusals.join("; ")
        ))),
        Checked::Decided(_, told) if !told.is_agreed => Err(Failure::usage(
            "the reasons are not those of the decision: the interpreter that tells them decides otherwise",
        )),
        Checked::Decided(_, told) if !told.decision.is_allow() => Err(Failure::quiet(Exit::Failed)),
        Checked::Accepted(_) | Checked::Decided(..) => Ok(()),
    }
}

/// What came out.
enum Checked {
    Refused(Vec<String>),
    Accepted(Policy),
    Decided(Policy, Box<Explanation>),
}

fn check(args: &Args) -> Result<Checked, Failure> {
    let modules: Vec<Module> = files::policy(&args.files)?;
    let data = args.data.as_deref().map(files::data).transpose()?;
    let refusals = kit::refusals(&modules, data.as_ref());
    if !refusals.is_empty() {
        let refusals = refusals.iter().map(ToString::to_string);
        return Ok(Checked::Refused(refusals.collect()));
    }
    let refused = |error: stategate_policy::PolicyError| Failure::usage(error.to_string());
    let limits = stategate_policy::Limits::default();
    let policy = Policy::compile(&modules, data.as_ref(), limits).map_err(refused)?;
    let Some(input) = &args.input else {
        return Ok(Checked::Accepted(policy));
    };
    let input = files::object(input)?;
    let told = kit::explain(&modules, data.as_ref(), &input).map_err(refused)?;
    Ok(Checked::Decided(policy, Box::new(told)))
}

fn raw(json: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(json.to_owned()).ok()
}

fn seen(seen: &[Seen]) -> BTreeMap<&str, Option<Box<RawValue>>> {
    let seen = seen.iter();
    seen.map(|seen| (seen.name.as_str(), seen.value.as_deref().and_then(raw)))
        .collect()
}

fn report<'e>(policy: &'e Policy, told: &'e Explanation) -> Report<'e> {
    let (decision, why) = match &told.decision {
        Decision::Allow => ("allow", None),
        Decision::Deny(why) => ("deny", Some(why.to_string())),
    };
    Report {
        decision,
        why,
        definitions: told.definitions.iter().map(definition).collect(),
        rules: seen(&told.rules),
        reads: reads(policy),
    }
}

fn definition(of: &Definition) -> DefinitionLine<'_> {
    let mut line = DefinitionLine {
        file: &of.file,
        line: of.line,
        outcome: "",
        value: None,
        ends_at: None,
        why: None,
    };
    line.outcome = match &of.outcome {
        Outcome::Holds(value) => {
            line.value = raw(value);
            "holds"
        }
        Outcome::Default(value) => {
            line.value = raw(value);
            "default"
        }
        Outcome::Ends {
            line: at,
            statement,
            seen: looked_at,
        } => {
            line.ends_at = Some(EndLine {
                line: *at,
                statement,
                seen: seen(looked_at),
            });
            "ends"
        }
        Outcome::NotReached => "not reached",
        Outcome::Unknown(why) => {
            line.why = Some(why);
            "unknown"
        }
    };
    line
}

fn reads(policy: &Policy) -> ReadsLine<'_> {
    let Reads {
        claims,
        metadata,
        method,
        body,
        certificate,
        streams,
        other,
        ambient,
    } = policy.reads();
    let members = |members: &Members| match members {
        Members::All => Value::from("all"),
        Members::Named(names) => names.iter().cloned().collect(),
    };
    ReadsLine {
        claims: members(claims),
        metadata: members(metadata),
        method: *method,
        body: *body,
        client_certificate: *certificate,
        streams: *streams,
        everything: *other,
        clock: *ambient,
        always: policy.constant().map(|decision| match decision {
            Decision::Allow => "allow",
            Decision::Deny(_) => "deny",
        }),
    }
}

/// What a policy looks at, in a sentence.
fn looks_at(policy: &Policy) -> String {
    if let Some(decision) = policy.constant() {
        return match decision {
            Decision::Allow => "It looks at nothing and always allows.".to_owned(),
            Decision::Deny(why) => format!("It looks at nothing and always denies: {why}."),
        };
    }
    let reads = policy.reads();
    let mut parts = Vec::new();
    for (name, members) in [("claims", &reads.claims), ("metadata", &reads.metadata)] {
        match members {
            Members::All => parts.push(format!("all {name}")),
            Members::Named(names) if names.is_empty() => {}
            Members::Named(names) => {
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                parts.push(format!("the {name} {}", names.join(", ")));
            }
        }
    }
    for (is_read, what) in [
        (reads.method, "the method"),
        (reads.body, "the body"),
        (reads.certificate, "the client's certificate"),
        (reads.streams, "whether it is a stream"),
        (reads.ambient, "the time of day"),
        (
            reads.other,
            "and the input in a way that the source does not tell",
        ),
    ] {
        if is_read {
            parts.push(what.to_owned());
        }
    }
    format!("It looks at {}.", parts.join(", "))
}

fn print(
    policy: &Policy,
    told: &Explanation,
    paint: Paint,
    output: &mut Output,
) -> Result<(), Failure> {
    match &told.decision {
        Decision::Allow => output.line(&paint.green("allowed"))?,
        Decision::Deny(why) => output.line(&format!("{}: {why}", paint.red("denied")))?,
    }
    output.line("")?;
    for definition in &told.definitions {
        let (file, line) = (text::plain(&definition.file), definition.line);
        let place = format!("{file}:{line} allow");
        match &definition.outcome {
            Outcome::Holds(value) => {
                output.line(&format!("{place} {} {}", paint.green("holds:"), cut(value)))?;
            }
            Outcome::Default(value) => {
                output.line(&format!("{place} is {} by default", cut(value)))?;
            }
            Outcome::NotReached => output.line(&format!("{place} is not reached"))?,
            Outcome::Unknown(why) => {
                output.line(&format!("{place} cannot be told: {}", text::plain(why)))?;
            }
            Outcome::Ends {
                line,
                statement,
                seen,
            } => {
                let statement = statement.lines().next().unwrap_or_default();
                output.line(&format!(
                    "{place} {} line {line}: {}",
                    paint.red("ends at"),
                    cut(statement)
                ))?;
                rows(seen, output)?;
            }
        }
    }
    if !told.rules.is_empty() {
        output.line("")?;
        output.line("Other rules:")?;
        rows(&told.rules, output)?;
    }
    output.line("")?;
    output.line(&looks_at(policy))
}

fn rows(seen: &[Seen], output: &mut Output) -> Result<(), Failure> {
    let width = seen.iter().map(|seen| seen.name.len()).max().unwrap_or(0);
    for Seen { name, value } in seen {
        let value = value.as_deref().map_or("undefined".to_owned(), cut);
        output.line(&format!("    {:<width$} = {value}", text::plain(name)))?;
    }
    Ok(())
}

fn cut(value: &str) -> String {
    text::cut(&text::plain(value), SHOWN)
}
