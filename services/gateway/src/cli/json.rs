//! Answers as proto3 JSON, as the REST transport gives them: defaults left out, int64 as strings.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use stategate_client::{self as client, EntityRef};
use stategate_model::{self as model, Values};

/// An entity.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entity {
    pub(crate) domain: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) key: String,
    pub(crate) values: Map<String, Value>,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "int64")]
    pub(crate) version: u64,
}

/// An event.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) entity: Entity,
    pub(crate) claims: Map<String, Value>,
    #[serde(serialize_with = "int64")]
    pub(crate) time: i64,
    pub(crate) method: &'static str,
    #[serde(serialize_with = "int64")]
    pub(crate) version: u64,
    #[serde(skip_serializing_if = "is_zero_lane")]
    pub(crate) lane: u8,
    #[serde(serialize_with = "int64")]
    pub(crate) position: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) trace_parent: String,
}

/// A place in the log that was reached without anything to tell of.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Progress {
    pub(crate) method: &'static str,
    #[serde(skip_serializing_if = "is_zero_lane")]
    pub(crate) lane: u8,
    #[serde(serialize_with = "int64")]
    pub(crate) position: u64,
}

impl Entity {
    fn new(entity: &EntityRef, values: Map<String, Value>, version: u64) -> Self {
        Self {
            domain: entity.domain().to_owned(),
            kind: entity.kind().to_owned(),
            key: entity.key().to_owned(),
            values,
            version,
        }
    }

    /// `domain/type/key`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}/{}", self.domain, self.kind, self.key)
    }
}

impl From<client::Entity> for Entity {
    fn from(found: client::Entity) -> Self {
        let version = found.version.get();
        Self::new(&found.entity, members(found.values), version)
    }
}

impl From<&client::Event> for Event {
    fn from(event: &client::Event) -> Self {
        Self {
            id: event.id.to_string(),
            entity: Entity::new(&event.entity, object(&event.values), 0),
            claims: object(event.claims.values()),
            time: event.time.0,
            method: event.method.as_str(),
            version: event.version.get(),
            lane: event.lane.0,
            position: event.position.get(),
            trace_parent: event
                .trace_parent
                .as_ref()
                .map_or_else(String::new, |trace| trace.as_str().to_owned()),
        }
    }
}

impl Event {
    /// The values after the event: none after a delete.
    pub(crate) fn state(&self) -> Option<&Map<String, Value>> {
        (self.method != model::Method::Del.as_str()).then_some(&self.entity.values)
    }

    /// Who made it, if authentication tells: as people know them, else as the issuer does.
    pub(crate) fn author(&self) -> Option<&str> {
        // Of a program's own token, some issuers say the client alone.
        ["email", "preferred_username", "sub", "client_id", "iss"]
            .iter()
            .find_map(|claim| self.claims.get(*claim)?.as_str())
            .filter(|author| !author.is_empty())
    }
}

/// Values as a tree to print and compare.
pub(crate) fn object(values: &Values) -> Map<String, Value> {
    // Canonical bytes are an object; the client checked them.
    serde_json::from_str(values.json()).unwrap_or_default()
}

/// The members of an object.
pub(crate) fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields over by reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields over by reference"
)]
fn is_zero_lane(number: &u8) -> bool {
    *number == 0
}

/// An int64 as proto3 JSON has it.
pub(crate) fn int64<N: std::fmt::Display, S: Serializer>(
    number: &N,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

#[cfg(test)]
pub(crate) mod tests {
    use stategate_model::{
        Claims, EventId, Lane, Limits, Method, Position, Timestamp, Version, json,
    };

    use super::*;

    /// Claims of a caller.
    pub(crate) fn claims(json: &str) -> Claims {
        Claims::new(json::parse_object(json).unwrap()).unwrap()
    }

    #[test]
    fn the_author_is_who_people_know() {
        for (claims_of, author) in [
            ("{}", None),
            (r#"{"sub":""}"#, None),
            (
                r#"{"sub":1,"iss":"https://a.example"}"#,
                Some("https://a.example"),
            ),
            (
                r#"{"iss":"https://a.example","client_id":"billing"}"#,
                Some("billing"),
            ),
            (
                r#"{"iss":"https://a.example","sub":"1b4e28ba"}"#,
                Some("1b4e28ba"),
            ),
            (
                r#"{"sub":"1b4e28ba","email":"ada@acme.example"}"#,
                Some("ada@acme.example"),
            ),
        ] {
            let mut event = event(1, Method::Set, "{}");
            event.claims = claims(claims_of);
            let event = Event::from(&event);
            assert_eq!(event.author(), author, "{claims_of}");
            let printed = serde_json::to_value(&event).unwrap();
            let expected: Value = serde_json::from_str(claims_of).unwrap();
            assert_eq!(printed["claims"], expected);
        }
    }

    /// An event of `faa/airport/JFK`.
    pub(crate) fn event(version: u64, method: Method, values: &str) -> client::Event {
        let values = json::parse_object(values).unwrap();
        client::Event {
            id: EventId::parse("1b4e28ba-2fa1-4d2b-883f-0016d3cca427").unwrap(),
            entity: EntityRef::new("faa", "airport", "JFK").unwrap(),
            values: Values::new(values, &Limits::default()).unwrap(),
            version: Version::new(version),
            lane: Lane(0),
            position: Position::new(version + 6),
            time: Timestamp(1_357_020_000_000_000_000),
            method,
            claims: Claims::none(),
            trace_parent: None,
        }
    }

    #[test]
    fn answers_print_as_proto3_json() {
        let values = r#"{"b":1.0,"a":[-0.5,null]}"#;
        let entity = client::Entity {
            entity: EntityRef::new("faa", "airport", "JFK").unwrap(),
            values: serde_json::from_str(r#"{"b":1,"a":[-0.5,null]}"#).unwrap(),
            version: Version::new(3),
        };
        assert_eq!(
            serde_json::to_string(&Entity::from(entity)).unwrap(),
            r#"{"domain":"faa","type":"airport","key":"JFK","values":{"a":[-0.5,null],"b":1},"version":"3"}"#
        );
        let event = event(3, Method::Set, values);
        assert_eq!(
            serde_json::to_string(&Event::from(&event)).unwrap(),
            r#"{"id":"1b4e28ba-2fa1-4d2b-883f-0016d3cca427","entity":{"domain":"faa","type":"airport","key":"JFK","values":{"a":[-0.5,null],"b":1}},"claims":{},"time":"1357020000000000000","method":"/stategate.EntityService/Set","version":"3","position":"9"}"#
        );
    }
}
