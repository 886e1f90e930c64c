//! Messages as proto3 JSON, as the REST transport answers them: defaults left out, int64 as strings.

use serde::{Serialize, Serializer};
use stategate_model::Object;
use stategate_protocol::{Struct, pb};

/// An entity.
#[derive(Debug, Serialize)]
pub(crate) struct Entity {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) domain: String,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) values: Option<Object>,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "int64")]
    pub(crate) version: i64,
}

/// An event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entity: Option<Entity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) claims: Option<Object>,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "int64")]
    pub(crate) time: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) method: String,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "int64")]
    pub(crate) version: i64,
    #[serde(skip_serializing_if = "is_zero_lane")]
    pub(crate) lane: i32,
    #[serde(skip_serializing_if = "is_zero", serialize_with = "int64")]
    pub(crate) position: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) trace_parent: String,
}

impl From<pb::Entity> for Entity {
    fn from(message: pb::Entity) -> Self {
        Self {
            domain: message.domain,
            kind: message.r#type,
            key: message.key,
            values: message.values.map(Struct::into_object),
            version: message.version,
        }
    }
}

impl From<pb::Event> for Event {
    fn from(message: pb::Event) -> Self {
        Self {
            id: message.id,
            entity: message.entity.map(Entity::from),
            claims: message.claims.map(Struct::into_object),
            time: message.time,
            method: message.method,
            version: message.version,
            lane: message.lane,
            position: message.position,
            trace_parent: message.trace_parent,
        }
    }
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields over by reference"
)]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields over by reference"
)]
fn is_zero_lane(number: &i32) -> bool {
    *number == 0
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields over by reference"
)]
pub(crate) fn int64<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_print_as_proto3_json() {
        let values = stategate_model::json::parse_object(r#"{"b":1.0,"a":[-0.5,null]}"#).unwrap();
        let entity = pb::Entity {
            domain: "faa".to_owned(),
            r#type: "airport".to_owned(),
            key: "JFK".to_owned(),
            values: Some(Struct::from_object(&values)),
            version: 3,
        };
        assert_eq!(
            serde_json::to_string(&Entity::from(entity.clone())).unwrap(),
            r#"{"domain":"faa","type":"airport","key":"JFK","values":{"a":[-0.5,null],"b":1},"version":"3"}"#
        );
        let event = pb::Event {
            id: "e1".to_owned(),
            entity: Some(pb::Entity {
                version: 0,
                ..entity
            }),
            claims: Some(Struct::default()),
            time: i64::MAX,
            method: "/stategate.EntityService/Set".to_owned(),
            version: 3,
            position: 9,
            ..pb::Event::default()
        };
        assert_eq!(
            serde_json::to_string(&Event::from(event)).unwrap(),
            r#"{"id":"e1","entity":{"domain":"faa","type":"airport","key":"JFK","values":{"a":[-0.5,null],"b":1}},"claims":{},"time":"9223372036854775807","method":"/stategate.EntityService/Set","version":"3","position":"9"}"#
        );
    }
}
