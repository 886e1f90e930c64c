//! Commands about one entity: get, set, edit, del, revert.

use std::io::{self, Read as _};

use serde::Serialize;
use serde_json::json as document;
use stategate_model::{Object, json as strict, limits::MESSAGE_BYTES};
use stategate_protocol::{Struct, headers, pb};
use tonic::metadata::MetadataMap;

use super::{
    client::Gateway,
    failure::{Exit, Failure, Kind},
    json,
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

/// What `get` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    entity: RefArgs,
    /// As it was at this version
    #[arg(long, value_name = "N", conflicts_with = "at")]
    version: Option<i64>,
    /// As it was at this time: 2013-01-01T05:00:00Z, or how long ago (10m, 2h, 1d)
    #[arg(long, value_name = "TIME")]
    at: Option<When>,
}

/// What `set` and `edit` are asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct ValuesArgs {
    #[command(flatten)]
    entity: RefArgs,
    /// A JSON object, such as '{"alt": 13}'; - reads it from stdin
    values: String,
}

/// What `revert` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct RevertArgs {
    #[command(flatten)]
    entity: RefArgs,
    #[command(flatten)]
    to: Target,
}

/// What an entity is taken back to.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// To the values in this event, as `history` and `watch` name it
    #[arg(long = "to", value_name = "EVENT_ID")]
    event: Option<String>,
    /// To what it was at this version
    #[arg(long, value_name = "N")]
    version: Option<i64>,
    /// To what it was at this time: 2013-01-01T05:00:00Z, or how long ago (10m, 2h, 1d)
    #[arg(long, value_name = "TIME")]
    at: Option<When>,
}

/// Prints an entity.
pub(crate) async fn get(
    gateway: &Gateway,
    args: GetArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    use pb::entity_ref::At;

    let at = match (args.version, args.at) {
        (Some(version), _) => Some(At::AtVersion(version)),
        (None, Some(when)) => Some(At::AtTime(when.nanoseconds())),
        (None, None) => None,
    };
    let request = gateway.request(pb::EntityRef {
        at,
        ..args.entity.into_message()
    });
    let answer = gateway
        .answer(Kind::Read, gateway.entities().get(request))
        .await?;
    let entity = json::Entity::from(answer.into_inner());
    match output.form().clone() {
        Form::Json => output.json(&entity),
        Form::Text(screen) => print_entity(&entity, output, &screen),
    }
}

/// Replaces an entity's values.
pub(crate) async fn set(
    gateway: &Gateway,
    args: ValuesArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let message = args.into_message()?;
    let written = Written::of(&message);
    let call = gateway.request(message);
    let answer = gateway
        .answer(Kind::Write, gateway.entities().set(call))
        .await?;
    written.print("set", None, answer.metadata(), output)
}

/// Overwrites some of an entity's values.
pub(crate) async fn edit(
    gateway: &Gateway,
    args: ValuesArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let message = args.into_message()?;
    let written = Written::of(&message);
    let call = gateway.request(message);
    let answer = gateway
        .answer(Kind::Write, gateway.entities().edit(call))
        .await?;
    let (metadata, entity, _) = answer.into_parts();
    written.print("edited", entity.values, &metadata, output)
}

/// Deletes an entity.
pub(crate) async fn del(
    gateway: &Gateway,
    args: RefArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let message = args.into_message();
    let written = Written {
        domain: message.domain.clone(),
        kind: message.r#type.clone(),
        key: message.key.clone(),
        ..Written::default()
    };
    let call = gateway.request(message);
    let answer = gateway
        .answer(Kind::Write, gateway.entities().del(call))
        .await?;
    written.print("deleted", None, answer.metadata(), output)
}

/// Sets an entity to what it was.
pub(crate) async fn revert(
    gateway: &Gateway,
    args: RevertArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let entity = args.entity.into_message();
    let id = args.to.event(gateway, &entity).await?;
    let pb::EntityRef {
        domain,
        r#type,
        key,
        ..
    } = entity;
    let written = Written {
        domain: domain.clone(),
        kind: r#type.clone(),
        key: key.clone(),
        ..Written::default()
    };
    let call = gateway.request(pb::EventRef {
        domain,
        r#type,
        key,
        id,
    });
    let answer = gateway
        .answer(Kind::Write, gateway.entities().revert(call))
        .await?;
    let (metadata, entity, _) = answer.into_parts();
    written.print("reverted", entity.values, &metadata, output)
}

impl Target {
    /// The id of the event meant. A version or time is looked up, so that a point at which the entity
    /// did not exist is refused with the reason.
    async fn event(self, gateway: &Gateway, entity: &pb::EntityRef) -> Result<String, Failure> {
        use pb::entity_ref::At;

        let at = match (self.event, self.version, self.at) {
            (Some(id), _, _) => return Ok(id),
            (None, Some(version), _) => At::AtVersion(version),
            (None, None, when) => At::AtTime(when.map_or(0, |when| when.nanoseconds())),
        };
        let then = gateway.request(pb::EntityRef {
            at: Some(at),
            ..entity.clone()
        });
        let then = gateway
            .answer(Kind::Read, gateway.entities().get(then))
            .await?;
        let version = then.into_inner().version;
        let query = document!({
            "entity.key": {"$eq": entity.key},
            "version": {"$eq": version.to_string()},
        });
        let found = gateway.request(pb::SearchEventOpts {
            domain: entity.domain.clone(),
            r#type: entity.r#type.clone(),
            query_string: query.to_string(),
            limit: 1,
            ..pb::SearchEventOpts::default()
        });
        let found = gateway
            .answer(Kind::Read, gateway.events().search(found))
            .await?;
        let event = found.into_inner().events.into_iter().next();
        event
            .map(|event| event.id)
            .ok_or_else(|| Failure::new(Exit::NotFound, format!("no event made version {version}")))
    }
}

impl RefArgs {
    fn into_message(self) -> pb::EntityRef {
        pb::EntityRef {
            domain: self.domain,
            r#type: self.kind,
            key: self.key,
            at: None,
        }
    }
}

impl ValuesArgs {
    fn into_message(self) -> Result<pb::Entity, Failure> {
        let values = if self.values == "-" {
            from_stdin()?
        } else {
            self.values
        };
        // The gateway would see rounded numbers; what was written is only known here.
        let values = strict::parse_object(values.trim())
            .map_err(|problem| Failure::new(Exit::Refused, format!("values: {problem}")))?;
        let entity = self.entity.into_message();
        Ok(pb::Entity {
            domain: entity.domain,
            r#type: entity.r#type,
            key: entity.key,
            values: Some(Struct::from_object(&values)),
            version: 0,
        })
    }
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
    let name = name(&entity.domain, &entity.kind, &entity.key);
    output.line(&format!(
        "{}  {}",
        screen.paint.bold(&name),
        screen.paint.faint(&format!("version {}", entity.version))
    ))?;
    print_values(
        entity.values.as_ref().unwrap_or(&Object::new()),
        output,
        screen,
    )
}

/// The widest that names of values stand before their values.
const NAMES: usize = 32;

fn print_values(values: &Object, output: &mut Output, screen: &Screen) -> Result<(), Failure> {
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

fn name(domain: &str, kind: &str, key: &str) -> String {
    text::plain(&format!("{domain}/{kind}/{key}"))
}

/// What a write did.
#[derive(Debug, Default, Serialize)]
struct Written {
    domain: String,
    #[serde(rename = "type")]
    kind: String,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Object>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<String>,
}

impl Written {
    fn of(message: &pb::Entity) -> Self {
        Self {
            domain: message.domain.clone(),
            kind: message.r#type.clone(),
            key: message.key.clone(),
            ..Self::default()
        }
    }

    fn print(
        self,
        done: &str,
        values: Option<Struct>,
        metadata: &MetadataMap,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let text = |name: &str| Some(metadata.get(name)?.to_str().ok()?.to_owned());
        let written = Self {
            values: values.map(Struct::into_object),
            version: text(headers::ETAG).map(|etag| etag.trim_matches('"').to_owned()),
            position: text(headers::POSITION),
            ..self
        };
        match output.form().clone() {
            Form::Json => output.json(&written),
            Form::Text(screen) => {
                let name = name(&written.domain, &written.kind, &written.key);
                let version = written
                    .version
                    .as_ref()
                    .map_or_else(String::new, |version| format!("version {version}"));
                output.line(&format!(
                    "{done} {}  {}",
                    screen.paint.bold(&name),
                    screen.paint.faint(&text::plain(&version))
                ))?;
                match &written.values {
                    Some(values) => print_values(values, output, &screen),
                    None => Ok(()),
                }
            }
        }
    }
}
