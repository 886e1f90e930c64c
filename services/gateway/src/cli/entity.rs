//! Commands about one entity: get, set, edit, revert; and what every command about one shares.

use std::io::{self, Read as _};

use serde::Serialize;
use serde_json::{Map, Value};
use stategate_client::{
    At, Client, Condition, EntityRef, Error, EventId, Payload, Terms, Timestamp, Token, Version,
};
use stategate_model::{json as strict, limits::MESSAGE_BYTES};

use super::{
    failure::{Exit, Failure},
    json, near,
    output::{Form, Output, Screen},
    text,
    when::When,
};

/// Names an entity.
#[derive(Debug, clap::Args)]
pub(crate) struct RefArgs {
    /// Business domain or tenant, such as `faa`
    domain: String,
    /// Kind of entity, such as `airport`
    #[arg(value_name = "TYPE")]
    kind: String,
    /// The entity's name within its kind, such as `JFK`
    key: String,
}

impl RefArgs {
    /// The entity.
    pub(crate) fn entity(&self) -> Result<EntityRef, Failure> {
        let named = EntityRef::new(&self.domain, &self.kind, &self.key);
        Ok(named.map_err(Error::from)?)
    }
}

/// On what terms a write is made.
#[derive(Debug, clap::Args)]
pub(crate) struct TermsArgs {
    /// Only if the entity is at this version
    #[arg(long, value_name = "N", conflicts_with = "if_absent")]
    if_version: Option<u64>,
    /// Only if the entity does not exist
    #[arg(long)]
    if_absent: bool,
    /// Makes the write one with every other that has this key: it happens once, however often it is sent
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl TermsArgs {
    /// Whether none were named.
    pub(crate) fn is_empty(&self) -> bool {
        self.if_version.is_none() && !self.if_absent && self.idempotency_key.is_none()
    }

    /// The terms.
    pub(crate) fn terms(&self) -> Terms {
        let terms = Terms::new().condition(match self.if_version {
            Some(version) => Condition::Version(Version::new(version)),
            None if self.if_absent => Condition::Absent,
            None => Condition::Always,
        });
        match &self.idempotency_key {
            Some(key) => terms.key(key),
            None => terms,
        }
    }
}

/// What `get` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  stategate get faa airport JFK
  stategate get faa airport JFK --version 1
  stategate get faa airport JFK --at 2h
  stategate get faa airport JFK --at '2026-01-31 15:47:44'
  stategate get faa airport JFK --at 2026-01-31T08:00:00Z --json")]
pub(crate) struct GetArgs {
    #[command(flatten)]
    entity: RefArgs,
    /// As it was at this version
    #[arg(long, value_name = "N", conflicts_with = "at")]
    version: Option<u64>,
    /// As it was at the end of this time, as commands show times: 2026-01-31 15:47:44, 2026-01-31,
    /// 2026-01-31T15:47:44Z, nanoseconds, or how long ago (10m, 2h, 1d)
    #[arg(long, value_name = "TIME")]
    at: Option<When>,
}

/// What `set` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  stategate set acme user ada '{\"name\": \"Ada\", \"logins\": 1}'
  stategate set acme user ada '{\"name\": \"Ada\"}' --if-absent
  jq '.logins = 2' ada.json | stategate set acme user ada - --if-version 1")]
pub(crate) struct SetArgs {
    #[command(flatten)]
    entity: RefArgs,
    /// A JSON object, such as '{"alt": 13}'; - reads it from stdin
    values: String,
    #[command(flatten)]
    terms: TermsArgs,
}

/// What `edit` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  stategate edit faa airport JFK '{\"alt\": 14}'
  stategate edit faa airport JFK '{\"alt\": 14}' --if-version 1
  stategate edit acme user ada '{\"logins\": 2}' --idempotency-key login-7f3a")]
pub(crate) struct EditArgs {
    #[command(flatten)]
    entity: RefArgs,
    /// A JSON object with the values to overwrite; - reads it from stdin
    values: String,
    #[command(flatten)]
    terms: TermsArgs,
}

/// What `revert` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The values come back as a new version; nothing of the history goes. It works after `del` too.

Examples:
  stategate revert faa airport JFK --version 1
  stategate revert faa airport JFK --at 1h
  stategate revert faa airport JFK --to 1b4e28ba-2fa1-4d2b-883f-0016d3cca427")]
pub(crate) struct RevertArgs {
    #[command(flatten)]
    entity: RefArgs,
    #[command(flatten)]
    to: Target,
    #[command(flatten)]
    terms: TermsArgs,
}

/// What an entity is taken back to.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// To the values in this event, as `history` and `watch` name it (for a `del`: those before it)
    #[arg(long = "to", value_name = "EVENT_ID")]
    event: Option<String>,
    /// To what it was at this version
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// To what it was at the end of this time, as commands show times: 2026-01-31 15:47:44, 2026-01-31,
    /// 2026-01-31T15:47:44Z, nanoseconds, or how long ago (10m, 2h, 1d)
    #[arg(long, value_name = "TIME")]
    at: Option<When>,
}

/// Prints an entity.
pub(crate) async fn get(
    client: &Client,
    args: GetArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let entity = args.entity.entity()?;
    let found = match (args.version, &args.at) {
        (Some(version), _) => {
            client
                .get_at(&entity, At::Version(Version::new(version)))
                .await
        }
        (None, Some(when)) => client.get_at(&entity, at(when)).await,
        (None, None) => client.get(&entity).await,
    };
    let found = near::found(client, &entity, found).await;
    let found = json::Entity::from(found.map_err(|failure| dated(failure, args.at.as_ref()))?);
    match output.form().clone() {
        Form::Json => output.json(&found),
        Form::Text(screen) => print_entity(&found, output, &screen),
    }
}

/// Replaces an entity's values.
pub(crate) async fn set(
    client: &Client,
    args: SetArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let values = values(args.values)?;
    let entity = args.entity.entity()?;
    let written = client
        .set_payload(args.terms.terms(), &entity, values)
        .await?;
    Done::new(&entity, written.version, &written.token, written.replayed).print("set", output)
}

/// Overwrites some of an entity's values.
pub(crate) async fn edit(
    client: &Client,
    args: EditArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let values = values(args.values)?;
    let entity = args.entity.entity()?;
    let changed = client
        .edit_if(args.terms.terms(), &entity, values.into_object())
        .await;
    let changed = near::found(client, &entity, changed).await?;
    Done::new(&entity, changed.version, &changed.token, changed.replayed)
        .with(changed.values)
        .print("edited", output)
}

/// Sets an entity to what it was.
pub(crate) async fn revert(
    client: &Client,
    args: RevertArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let entity = args.entity.entity()?;
    let terms = args.terms.terms();
    let changed = match (args.to.event, args.to.version, &args.to.at) {
        (Some(id), _, _) => {
            let id = EventId::parse(&id).map_err(Error::from)?;
            client.revert_if(terms, &entity, id).await
        }
        (None, Some(version), _) => {
            let version = At::Version(Version::new(version));
            client.revert_to_if(terms, &entity, version).await
        }
        (None, None, when) => {
            let when = when.as_ref().map_or(At::Time(Timestamp(0)), at);
            client.revert_to_if(terms, &entity, when).await
        }
    };
    let changed = near::found(client, &entity, changed).await;
    let changed = changed.map_err(|failure| dated(failure, args.to.at.as_ref()))?;
    Done::new(&entity, changed.version, &changed.token, changed.replayed)
        .with(changed.values)
        .print("reverted", output)
}

/// The gateway names times by their nanoseconds; people do not.
fn dated(failure: Failure, when: Option<&When>) -> Failure {
    match (failure.message(), when) {
        (Some(message), Some(when)) => {
            let number = format!("time {}", when.last());
            Failure::new(failure.exit(), message.replace(&number, &when.to_string()))
        }
        _ => failure,
    }
}

/// At the end of it: what happened in the second that is named, had happened.
pub(crate) fn at(when: &When) -> At {
    At::Time(Timestamp(when.last()))
}

fn values(text: String) -> Result<Payload, Failure> {
    let text = if text == "-" { from_stdin()? } else { text };
    // The gateway would see rounded numbers; what was written is only known here.
    let values = strict::parse_object(text.trim())
        .map_err(|problem| Failure::new(Exit::Refused, format!("values: {problem}")))?;
    Ok(Payload::from(&values))
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let most = u64::try_from(MESSAGE_BYTES).unwrap_or(u64::MAX);
    // One byte more than is allowed, so that what is too long is refused rather than cut.
    io::stdin()
        .lock()
        .take(most.saturating_add(1))
        .read_to_string(&mut text)
        .map_err(|error| Failure::failed(format!("cannot read stdin: {error}")))?;
    Ok(text)
}

fn print_entity(
    entity: &json::Entity,
    output: &mut Output,
    screen: &Screen,
) -> Result<(), Failure> {
    output.line(&format!(
        "{}  {}",
        screen.paint.bold(&text::plain(&entity.name())),
        screen.paint.faint(&format!("version {}", entity.version))
    ))?;
    print_values(&entity.values, output, screen)
}

/// The widest that names of values stand before their values.
const NAMES: usize = 32;

fn print_values(
    values: &Map<String, Value>,
    output: &mut Output,
    screen: &Screen,
) -> Result<(), Failure> {
    let names: Vec<_> = values.keys().map(|name| text::plain(name)).collect();
    let widest = names.iter().map(|name| text::width(name)).max();
    let column = widest.unwrap_or(0).min(NAMES);
    for (name, value) in names.iter().zip(values.values()) {
        let padding = " ".repeat(column.saturating_sub(text::width(name)));
        // The one entity asked for is shown whole, however long its values are.
        output.line(&format!(
            "  {}{padding}  {}",
            screen.paint.faint(name),
            text::value(value)
        ))?;
    }
    Ok(())
}

/// What a write did.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    domain: String,
    #[serde(rename = "type")]
    kind: String,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Map<String, Value>>,
    version: String,
    position: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
}

impl Done {
    pub(crate) fn new(entity: &EntityRef, version: Version, token: &Token, replayed: bool) -> Self {
        Self {
            domain: entity.domain().to_owned(),
            kind: entity.kind().to_owned(),
            key: entity.key().to_owned(),
            values: None,
            version: version.to_string(),
            position: token.to_string(),
            replayed,
        }
    }

    fn with(self, values: Value) -> Self {
        Self {
            values: Some(json::members(values)),
            ..self
        }
    }

    pub(crate) fn print(self, done: &str, output: &mut Output) -> Result<(), Failure> {
        let Form::Text(screen) = output.form().clone() else {
            return output.json(&self);
        };
        let name = text::plain(&format!("{}/{}/{}", self.domain, self.kind, self.key));
        let again = if self.replayed {
            ", by an earlier request with this idempotency key"
        } else {
            ""
        };
        output.line(&format!(
            "{done} {}  {}",
            screen.paint.bold(&name),
            screen
                .paint
                .faint(&format!("version {}{again}", self.version))
        ))?;
        match &self.values {
            Some(values) => print_values(values, output, &screen),
            None => Ok(()),
        }
    }
}
