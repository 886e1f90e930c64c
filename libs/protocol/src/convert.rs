//! Between messages and the model: requests are parsed into types that cannot be wrong, answers are
//! printed from them. A refusal names the field as the client knows it.

use stategate_model::{
    At, Claims, EntityRef, Event, EventId, Invalid, Lane, Limits, Method, Position, Timestamp,
    TraceParent, Values, Version, value::Corrupt,
};

use crate::{Struct, pb};

/// Parses the names of an entity.
pub fn entity_ref(message: &pb::EntityRef) -> Result<EntityRef, Invalid> {
    EntityRef::new(&message.domain, &message.r#type, &message.key)
}

/// Parses an entity and its values. `version` is ignored, as it is on every input.
pub fn entity(message: pb::Entity, limits: &Limits) -> Result<(EntityRef, Values), Invalid> {
    let entity = EntityRef::new(&message.domain, &message.r#type, &message.key)?;
    let values = message.values.ok_or_else(|| {
        Invalid::new(
            "values",
            "must be given; send an empty object for an entity without values",
        )
    })?;
    Ok((entity, Values::new(values.into_object(), limits)?))
}

/// Parses the names of an event.
pub fn event_ref(message: &pb::EventRef) -> Result<(EntityRef, EventId), Invalid> {
    let entity = EntityRef::new(&message.domain, &message.r#type, &message.key)?;
    Ok((entity, EventId::parse(&message.id)?))
}

/// Parses the point in the past that a Get asks for.
pub fn at(message: &pb::EntityRef) -> Result<Option<At>, Invalid> {
    match message.at {
        None => Ok(None),
        Some(pb::entity_ref::At::AtVersion(version)) => match Version::from_i64(version) {
            Some(version) if version > Version::ZERO => Ok(Some(At::Version(version))),
            _ => Err(Invalid::new(
                "at_version",
                format!("is {version}; versions start at 1"),
            )),
        },
        Some(pb::entity_ref::At::AtTime(time)) if time >= 1 => Ok(Some(At::Time(Timestamp(time)))),
        Some(pb::entity_ref::At::AtTime(time)) => Err(Invalid::new(
            "at_time",
            format!("is {time}; it must be 1 or more nanoseconds since 1970"),
        )),
    }
}

/// An entity as it is answered.
pub fn entity_message(
    entity: &EntityRef,
    values: &Values,
    version: Option<Version>,
) -> Result<pb::Entity, Corrupt> {
    Ok(pb::Entity {
        domain: entity.domain().to_owned(),
        r#type: entity.kind().to_owned(),
        key: entity.key().to_owned(),
        values: Some(Struct::encode(values)?),
        version: version.map_or(0, Version::as_i64),
    })
}

/// An event as it was received; `None` when it is not one that this version makes.
pub fn event(message: pb::Event) -> Option<Event> {
    let entity = message.entity?;
    let trace_parent = match message.trace_parent.as_str() {
        "" => None,
        text => Some(TraceParent::parse(text)?),
    };
    // It was within the limits of whoever wrote it.
    let unlimited = Limits {
        value_bytes: usize::MAX,
    };
    Some(Event {
        id: EventId::parse(&message.id).ok()?,
        entity: EntityRef::new(&entity.domain, &entity.r#type, &entity.key).ok()?,
        values: Values::new(entity.values?.into_object(), &unlimited).ok()?,
        version: Version::from_i64(message.version).filter(|version| *version > Version::ZERO)?,
        lane: Lane(u8::try_from(message.lane).ok()?),
        position: Position::from_i64(message.position)
            .filter(|position| *position > Position::ZERO)?,
        time: Timestamp(message.time),
        method: Method::parse(&message.method)?,
        claims: Claims::new(message.claims?.into_object()).ok()?,
        trace_parent,
    })
}
