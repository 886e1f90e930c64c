//! The part of the corpus that is about events.

use super::{Case, keys, refused};
use crate::{
    Claims, EntityRef, Event, EventId, Invalid, Lane, Limits, Method, Object, Position, Timestamp,
    Values, Version, json,
};

/// The events, each with the name it is expected by. Fails only if this file is wrong.
pub fn events() -> Result<Vec<(&'static str, Event)>, Invalid> {
    let object = |text| -> Result<Object, Invalid> {
        json::parse_object(text).map_err(|problem| Invalid::new("values", problem))
    };
    let event = |id, [domain, kind, key]: [&str; 3], values, claims| {
        Ok(Event {
            id: EventId::parse(id)?,
            entity: EntityRef::new(domain, kind, key)?,
            values: Values::new(object(values)?, &Limits::default())?,
            version: Version::new(1),
            lane: Lane(0),
            position: Position::new(1),
            time: Timestamp(1_000),
            method: Method::Set,
            claims: Claims::new(object(claims)?)?,
            trace_parent: None,
        })
    };
    Ok(vec![
        (
            "e0",
            event(
                "00000000-0000-4000-8000-000000000000",
                ["d", "user", "alice"],
                r#"{"name":"Alice","n":1}"#,
                "{}",
            )?,
        ),
        (
            "e1",
            Event {
                version: Version::new(9_007_199_254_740_992),
                position: Position::new(2),
                time: Timestamp(1_700_000_000_000_000_000),
                method: Method::Edit,
                ..event(
                    "00000000-0000-4000-8000-000000000001",
                    ["d", "user", "bob"],
                    r#"{"name":"Bob","tags":["x","y"]}"#,
                    r#"{"sub":"u1","roles":["admin","dev"]}"#,
                )?
            },
        ),
        (
            "e2",
            Event {
                version: Version::new(9_007_199_254_740_993),
                position: Position::new(3),
                time: Timestamp(1_700_000_000_000_000_001),
                method: Method::Del,
                ..event(
                    "00000000-0000-4000-8000-000000000002",
                    ["d", "user", "bob"],
                    "{}",
                    r#"{"sub":"u2"}"#,
                )?
            },
        ),
        (
            "e3",
            Event {
                version: Version::new(2),
                lane: Lane(63),
                position: Position::new(u64::MAX),
                time: Timestamp(i64::MAX),
                method: Method::Revert,
                ..event(
                    "0000000a-0000-4000-8000-000000000003",
                    ["d", "order", "a.b"],
                    r#"{"$x":{"y":2}}"#,
                    r#"{"sub":"u1","a.b":null}"#,
                )?
            },
        ),
    ])
}

/// The filters over [`events`].
pub fn event_cases() -> Vec<Case> {
    vec![
        // Names, method and id are strings.
        keys(r#"{}"#, &["e0", "e1", "e2", "e3"]),
        keys(r#"{"entity.domain":"d"}"#, &["e0", "e1", "e2", "e3"]),
        keys(r#"{"entity.type":"order"}"#, &["e3"]),
        keys(r#"{"entity.key":"bob"}"#, &["e1", "e2"]),
        keys(r#"{"entity.key":"a.b"}"#, &["e3"]),
        keys(r#"{"entity.key":5}"#, &[]),
        keys(r#"{"entity.key":{"$prefix":"a"}}"#, &["e0", "e3"]),
        keys(r#"{"entity.key":{"$gt":"alice"}}"#, &["e1", "e2"]),
        keys(r#"{"entity.key":{"$ne":"bob"}}"#, &["e0", "e3"]),
        keys(
            r#"{"entity.key":{"$in":["alice","a.b",null]}}"#,
            &["e0", "e3"],
        ),
        keys(r#"{"entity.key":{"$exists":false}}"#, &[]),
        keys(r#"{"method":"/stategate.EntityService/Set"}"#, &["e0"]),
        keys(r#"{"method":"Set"}"#, &[]),
        keys(r#"{"method":{"$contains":"/Del"}}"#, &["e2"]),
        keys(
            r#"{"method":{"$in":["/stategate.EntityService/Edit","/stategate.EntityService/Revert"]}}"#,
            &["e1", "e3"],
        ),
        keys(r#"{"id":"00000000-0000-4000-8000-000000000002"}"#, &["e2"]),
        keys(r#"{"id":"0000000a-0000-4000-8000-000000000003"}"#, &["e3"]),
        keys(r#"{"id":"0000000A-0000-4000-8000-000000000003"}"#, &[]),
        // Values and claims, with a path below or as a whole.
        keys(r#"{"entity.values.name":"Bob"}"#, &["e1"]),
        keys(r#"{"entity.values.n":1}"#, &["e0"]),
        keys(r#"{"entity.values.tags":"y"}"#, &["e1"]),
        keys(r#"{"entity.values.name":{"$exists":false}}"#, &["e2", "e3"]),
        keys(r#"{"entity.values.$x.y":2}"#, &["e3"]),
        keys(r#"{"entity.values.\\$x.y":2}"#, &["e3"]),
        keys(r#"{"entity.values":{}}"#, &["e2"]),
        keys(r#"{"entity.values":{"n":1,"name":"Alice"}}"#, &["e0"]),
        keys(
            r#"{"entity.values":{"$in":[{},{"$x":{"y":2}}]}}"#,
            &["e2", "e3"],
        ),
        keys(
            r#"{"entity.values":{"$exists":true}}"#,
            &["e0", "e1", "e2", "e3"],
        ),
        keys(r#"{"entity.values.version":1}"#, &[]),
        keys(r#"{"claims":{}}"#, &["e0"]),
        keys(r#"{"claims":{"sub":"u2"}}"#, &["e2"]),
        keys(r#"{"claims":{"$ne":{}}}"#, &["e1", "e2", "e3"]),
        keys(r#"{"claims":{"$gt":1}}"#, &[]),
        keys(r#"{"claims.sub":"u1"}"#, &["e1", "e3"]),
        keys(r#"{"claims.sub":{"$ne":"u1"}}"#, &["e0", "e2"]),
        keys(r#"{"claims.roles":"dev"}"#, &["e1"]),
        keys(r#"{"claims.roles":["admin","dev"]}"#, &["e1"]),
        keys(r#"{"claims.a\\.b":null}"#, &["e3"]),
        // The int64 fields are exact beyond what doubles tell apart.
        keys(r#"{"version":1}"#, &["e0"]),
        keys(r#"{"version":"1"}"#, &["e0"]),
        keys(r#"{"version":9007199254740993}"#, &["e2"]),
        keys(r#"{"version":"9007199254740993"}"#, &["e2"]),
        keys(r#"{"version":9007199254740992}"#, &["e1"]),
        keys(r#"{"version":{"$gt":9007199254740992}}"#, &["e2"]),
        keys(r#"{"version":{"$gte":"9007199254740992"}}"#, &["e1", "e2"]),
        keys(
            r#"{"version":{"$lt":"9007199254740993"}}"#,
            &["e0", "e1", "e3"],
        ),
        keys(r#"{"version":{"$in":[1,"2"]}}"#, &["e0", "e3"]),
        keys(
            r#"{"version":{"$nin":[1,"9007199254740993"]}}"#,
            &["e1", "e3"],
        ),
        keys(
            r#"{"version":{"$ne":9007199254740993}}"#,
            &["e0", "e1", "e3"],
        ),
        keys(r#"{"version":{"$exists":true}}"#, &["e0", "e1", "e2", "e3"]),
        keys(r#"{"version":{"$exists":false}}"#, &[]),
        keys(r#"{"version":{"$not":{"$gt":1}}}"#, &["e0"]),
        keys(r#"{"time":1700000000000000001}"#, &["e2"]),
        keys(r#"{"time":1700000000000000000}"#, &["e1"]),
        keys(r#"{"time":{"$lte":"1700000000000000000"}}"#, &["e0", "e1"]),
        keys(r#"{"time":{"$gt":1700000000000000000}}"#, &["e2", "e3"]),
        keys(r#"{"position":9223372036854775807}"#, &["e3"]),
        keys(r#"{"position":"9223372036854775806"}"#, &[]),
        keys(r#"{"position":{"$lt":3}}"#, &["e0", "e1"]),
        keys(r#"{"position":{"$gt":-1}}"#, &["e0", "e1", "e2", "e3"]),
        keys(
            r#"{"position":{"$gt":"-9223372036854775808"}}"#,
            &["e0", "e1", "e2", "e3"],
        ),
        keys(r#"{"position":{"$gte":2,"$lt":"4"}}"#, &["e1", "e2"]),
        keys(r#"{"lane":63}"#, &["e3"]),
        keys(r#"{"lane":{"$not":{"$eq":0}}}"#, &["e3"]),
        // Joined.
        keys(r#"{"$or":[{"version":1},{"lane":63}]}"#, &["e0", "e3"]),
        keys(r#"{"$not":{"position":{"$gte":2}}}"#, &["e0"]),
        keys(r#"{"entity.key":"bob","claims.sub":"u2"}"#, &["e2"]),
        // Of an empty list nothing is one, and everything is none.
        keys(r#"{"entity.key":{"$in":[]}}"#, &[]),
        keys(r#"{"entity.key":{"$nin":[]}}"#, &["e0", "e1", "e2", "e3"]),
        keys(r#"{"entity.domain":{"$in":[]}}"#, &[]),
        keys(
            r#"{"entity.domain":{"$nin":[]}}"#,
            &["e0", "e1", "e2", "e3"],
        ),
        keys(r#"{"entity.type":{"$in":[]}}"#, &[]),
        keys(r#"{"entity.type":{"$nin":[]}}"#, &["e0", "e1", "e2", "e3"]),
        keys(r#"{"entity.values":{"$in":[]}}"#, &[]),
        keys(
            r#"{"entity.values":{"$nin":[]}}"#,
            &["e0", "e1", "e2", "e3"],
        ),
        keys(r#"{"entity.values.n":{"$in":[]}}"#, &[]),
        keys(
            r#"{"entity.values.n":{"$nin":[]}}"#,
            &["e0", "e1", "e2", "e3"],
        ),
        keys(r#"{"claims.sub":{"$in":[]}}"#, &[]),
        keys(r#"{"claims.sub":{"$nin":[]}}"#, &["e0", "e1", "e2", "e3"]),
        keys(r#"{"method":{"$in":[]}}"#, &[]),
        keys(r#"{"method":{"$nin":[]}}"#, &["e0", "e1", "e2", "e3"]),
        keys(r#"{"id":{"$in":[]}}"#, &[]),
        keys(r#"{"id":{"$nin":[]}}"#, &["e0", "e1", "e2", "e3"]),
        keys(r#"{"time":{"$in":[]}}"#, &[]),
        keys(r#"{"time":{"$nin":[]}}"#, &["e0", "e1", "e2", "e3"]),
        keys(r#"{"version":{"$in":[]}}"#, &[]),
        keys(r#"{"version":{"$nin":[]}}"#, &["e0", "e1", "e2", "e3"]),
        keys(r#"{"position":{"$in":[]}}"#, &[]),
        keys(r#"{"position":{"$nin":[]}}"#, &["e0", "e1", "e2", "e3"]),
        keys(r#"{"lane":{"$in":[]}}"#, &[]),
        keys(r#"{"lane":{"$nin":[]}}"#, &["e0", "e1", "e2", "e3"]),
        keys(
            r#"{"version":{"$not":{"$in":[]}}}"#,
            &["e0", "e1", "e2", "e3"],
        ),
        keys(r#"{"version":{"$not":{"$nin":[]}}}"#, &[]),
        keys(r#"{"version":1,"entity.key":{"$nin":[]}}"#, &["e0"]),
        keys(r#"{"version":1,"entity.key":{"$in":[]}}"#, &[]),
        keys(
            r#"{"$or":[{"version":1},{"entity.key":{"$in":[]}}]}"#,
            &["e0"],
        ),
        // Refused: what no event has.
        refused(
            r#"{"name":"x"}"#,
            r#"`name`: a path at an event starts with"#,
        ),
        refused(r#"{"":1}"#, r#"a path at an event starts with"#),
        refused(
            r#"{"values.name":"x"}"#,
            r#"a path at an event starts with"#,
        ),
        refused(
            r#"{"trace_parent":"x"}"#,
            r#"a path at an event starts with"#,
        ),
        refused(
            r#"{"entity\\.key":"x"}"#,
            r#"a path at an event starts with"#,
        ),
        refused(r#"{"entity":{}}"#, r#"an event has `entity.domain`"#),
        refused(r#"{"entity.version":1}"#, r#"an event has `entity.domain`"#),
        refused(r#"{"entity.key.x":1}"#, r#"nothing lies below"#),
        refused(r#"{"version.x":1}"#, r#"nothing lies below"#),
        refused(r#"{"method.":1}"#, r#"nothing lies below"#),
        refused(r#"{"$where":"1"}"#, r#"unknown operator `$where`"#),
        // Refused: what is no int64.
        refused(
            r#"{"version":1.5}"#,
            r#"`version` with something other than an int64"#,
        ),
        refused(r#"{"version":1.0}"#, r#"other than an int64"#),
        refused(r#"{"version":1e3}"#, r#"other than an int64"#),
        refused(r#"{"version":"1.0"}"#, r#"other than an int64"#),
        refused(r#"{"version":"+1"}"#, r#"other than an int64"#),
        refused(r#"{"version":" 1"}"#, r#"other than an int64"#),
        refused(r#"{"version":""}"#, r#"other than an int64"#),
        refused(r#"{"version":"-"}"#, r#"other than an int64"#),
        refused(r#"{"version":null}"#, r#"other than an int64"#),
        refused(r#"{"version":true}"#, r#"other than an int64"#),
        refused(r#"{"version":[1]}"#, r#"other than an int64"#),
        refused(r#"{"version":{}}"#, r#"other than an int64"#),
        refused(
            r#"{"version":9223372036854775808}"#,
            r#"other than an int64"#,
        ),
        refused(
            r#"{"version":"9223372036854775808"}"#,
            r#"other than an int64"#,
        ),
        refused(
            r#"{"version":18446744073709551615}"#,
            r#"a double cannot hold"#,
        ),
        refused(r#"{"version":{"$in":[1,null]}}"#, r#"other than an int64"#),
        refused(r#"{"version":{"$in":1}}"#, r#"takes an array"#),
        refused(
            r#"{"name":{"$in":[]}}"#,
            r#"a path at an event starts with"#,
        ),
        refused(r#"{"time":{"$gt":true}}"#, r#"other than an int64"#),
        refused(r#"{"version":{"$prefix":"1"}}"#, r#"int64 field"#),
        refused(r#"{"lane":{"$contains":1}}"#, r#"int64 field"#),
        refused(
            r#"{"entity.values.n":9007199254740993}"#,
            r#"a double cannot hold"#,
        ),
    ]
}
