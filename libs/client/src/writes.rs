//! Writes: each with an idempotency key, so that it can be tried again without writing twice.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use stategate_model::{At, EntityRef, EventId, Object, Token, Version, json};
use stategate_protocol::{Struct, headers, pb};
use tokio::time::{Instant, sleep};
use tonic::{
    Response,
    metadata::{Ascii, MetadataMap, MetadataValue},
};
use uuid::Uuid;

use crate::{Client, Error, ErrorKind, client::token_of, error::Effect, reads};

/// What must hold of an entity for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// Nothing.
    #[default]
    Always,
    /// It exists.
    Exists,
    /// It does not exist.
    Absent,
    /// It exists at this version.
    Version(Version),
}

/// On what terms a write is made: the condition it needs, and the idempotency key it has.
///
/// A key of the caller's own makes the write one with every other that has the same key in the same
/// domain, for as long as the log is kept; without one, the tries of a single call are one write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    condition: Condition,
    key: Option<String>,
}

impl Terms {
    /// No condition, and a key of the call's own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if a condition holds.
    #[must_use]
    pub fn condition(mut self, condition: Condition) -> Self {
        self.condition = condition;
        self
    }

    /// With this idempotency key: 1 to 128 visible ASCII characters.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }
}

impl From<Condition> for Terms {
    fn from(condition: Condition) -> Self {
        Self::new().condition(condition)
    }
}

/// What a write came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The entity's version after it.
    pub version: Version,
    /// Its place in the log.
    pub token: Token,
    /// Whether an earlier request with its idempotency key had done it: an earlier try of the same call,
    /// or another call.
    pub replayed: bool,
}

/// What a write came to that answers the whole entity.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// Which entity.
    pub entity: EntityRef,
    /// Its values after it: a JSON object.
    pub values: Value,
    /// The entity's version after it.
    pub version: Version,
    /// Its place in the log.
    pub token: Token,
    /// Whether an earlier try had done it.
    pub replayed: bool,
}

/// Values that are encoded already, so that sending them later or again costs nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Payload(Struct);

impl Payload {
    /// Encodes anything that serialises to a JSON object.
    pub fn new(values: &impl Serialize) -> Result<Self, Error> {
        encode(values).map(Self)
    }

    /// What they were made of.
    pub fn into_object(self) -> Object {
        self.0.into_object()
    }
}

impl From<&Object> for Payload {
    fn from(object: &Object) -> Self {
        Self(Struct::from_object(object))
    }
}

/// Values as they are sent.
pub(crate) fn encode(values: &impl Serialize) -> Result<Struct, Error> {
    let invalid = |problem: String| {
        Error::new(
            ErrorKind::Invalid(vec![("values".to_owned(), problem.clone())]),
            format!("values: {problem}"),
        )
    };
    let text = serde_json::to_string(values).map_err(|error| invalid(error.to_string()))?;
    let object = json::parse_object(&text).map_err(invalid)?;
    Ok(Struct::from_object(&object))
}

fn message(entity: &EntityRef, values: Struct) -> pb::Entity {
    pb::Entity {
        domain: entity.domain().to_owned(),
        r#type: entity.kind().to_owned(),
        key: entity.key().to_owned(),
        values: Some(values),
        version: 0,
    }
}

/// A key for one write, whatever the number of its tries.
pub(crate) struct OneWrite {
    key: MetadataValue<Ascii>,
    condition: Condition,
}

impl OneWrite {
    pub(crate) fn new(terms: Terms) -> Result<Self, Error> {
        let key = terms.key.unwrap_or_else(|| Uuid::new_v4().to_string());
        let key = key.parse().map_err(|_| {
            let problem = "must be 1 to 128 visible ASCII characters";
            Error::new(
                ErrorKind::Invalid(vec![("idempotency-key".to_owned(), problem.to_owned())]),
                format!("idempotency-key: {problem}"),
            )
        })?;
        Ok(Self {
            key,
            condition: terms.condition,
        })
    }

    pub(crate) fn prepare(&self, metadata: &mut MetadataMap) {
        metadata.insert(headers::IDEMPOTENCY_KEY, self.key.clone());
        match self.condition {
            Condition::Always => {}
            Condition::Exists => {
                metadata.insert(headers::IF_MATCH, MetadataValue::from_static("*"));
            }
            Condition::Absent => {
                metadata.insert(headers::IF_NONE_MATCH, MetadataValue::from_static("*"));
            }
            Condition::Version(version) => {
                // Digits and quotes are ASCII.
                if let Ok(tag) = format!("\"{version}\"").parse() {
                    metadata.insert(headers::IF_MATCH, tag);
                }
            }
        }
    }
}

fn changed(response: Response<pb::Entity>) -> Result<Changed, Error> {
    let Written {
        version,
        token,
        replayed,
    } = written(&response)?;
    let entity = reads::entity(response.into_inner(), Some(version));
    let entity = entity.map_err(Error::though_written)?;
    Ok(Changed {
        entity: entity.entity,
        values: entity.values,
        version,
        token,
        replayed,
    })
}

fn written<T>(response: &Response<T>) -> Result<Written, Error> {
    let metadata = response.metadata();
    let version = metadata
        .get(headers::ETAG)
        .and_then(|tag| tag.to_str().ok()?.trim_matches('"').parse().ok());
    match (version, token_of(metadata)) {
        (Some(version), Some(token)) => Ok(Written {
            version: Version::new(version),
            token,
            replayed: metadata.get(headers::REPLAYED).is_some(),
        }),
        _ => Err(Error::new(
            ErrorKind::Other,
            "the answer does not say where; is a proxy dropping headers?",
        )
        .though_written()),
    }
}

impl Client {
    /// Replaces an entity's values, creating it if it is absent.
    ///
    /// `values` is anything that serialises to a JSON object.
    pub async fn set(&self, entity: &EntityRef, values: impl Serialize) -> Result<Written, Error> {
        self.set_if(Condition::Always, entity, values).await
    }

    /// [`Client::set`], if a condition holds; otherwise [`ErrorKind::VersionMismatch`].
    pub async fn set_if(
        &self,
        terms: impl Into<Terms>,
        entity: &EntityRef,
        values: impl Serialize,
    ) -> Result<Written, Error> {
        self.set_payload(terms, entity, Payload::new(&values)?)
            .await
    }

    /// [`Client::set_if`] with values that are encoded already.
    pub async fn set_payload(
        &self,
        terms: impl Into<Terms>,
        entity: &EntityRef,
        values: Payload,
    ) -> Result<Written, Error> {
        let message = message(entity, values.0);
        self.set_message(terms.into(), message, self.deadline())
            .await
    }

    async fn set_message(
        &self,
        terms: Terms,
        message: pb::Entity,
        until: Instant,
    ) -> Result<Written, Error> {
        let write = OneWrite::new(terms)?;
        let call = |request| {
            let mut entities = self.writes();
            async move { entities.set(request).await }
        };
        written(
            &self
                .attempt(
                    message,
                    Effect::Write,
                    |metadata| write.prepare(metadata),
                    call,
                    until,
                )
                .await?,
        )
    }

    /// Overwrites the top-level values given and answers the whole entity. [`ErrorKind::NotFound`] if it is
    /// absent.
    pub async fn edit(&self, entity: &EntityRef, values: impl Serialize) -> Result<Changed, Error> {
        self.edit_if(Condition::Always, entity, values).await
    }

    /// [`Client::edit`], if a condition holds; otherwise [`ErrorKind::VersionMismatch`].
    pub async fn edit_if(
        &self,
        terms: impl Into<Terms>,
        entity: &EntityRef,
        values: impl Serialize,
    ) -> Result<Changed, Error> {
        let message = message(entity, encode(&values)?);
        let write = OneWrite::new(terms.into())?;
        let call = |request| {
            let mut entities = self.writes();
            async move { entities.edit(request).await }
        };
        let response = self
            .attempt(
                message,
                Effect::Write,
                |metadata| write.prepare(metadata),
                call,
                self.deadline(),
            )
            .await?;
        changed(response)
    }

    /// Sets an entity to the values in one of its events, also after it was deleted.
    pub async fn revert(&self, entity: &EntityRef, event: EventId) -> Result<Changed, Error> {
        self.revert_if(Condition::Always, entity, event).await
    }

    /// [`Client::revert`], if a condition holds; otherwise [`ErrorKind::VersionMismatch`].
    pub async fn revert_if(
        &self,
        terms: impl Into<Terms>,
        entity: &EntityRef,
        event: EventId,
    ) -> Result<Changed, Error> {
        let message = pb::EventRef {
            domain: entity.domain().to_owned(),
            r#type: entity.kind().to_owned(),
            key: entity.key().to_owned(),
            id: event.to_string(),
        };
        let write = OneWrite::new(terms.into())?;
        let call = |request| {
            let mut entities = self.writes();
            async move { entities.revert(request).await }
        };
        let response = self
            .attempt(
                message,
                Effect::Write,
                |metadata| write.prepare(metadata),
                call,
                self.deadline(),
            )
            .await?;
        changed(response)
    }

    /// Sets an entity to what it was at a version or time: the values come back, as a new version.
    /// [`ErrorKind::NotFound`] if it did not exist then.
    pub async fn revert_to(&self, entity: &EntityRef, at: At) -> Result<Changed, Error> {
        self.revert_to_if(Condition::Always, entity, at).await
    }

    /// [`Client::revert_to`], if a condition holds; otherwise [`ErrorKind::VersionMismatch`].
    pub async fn revert_to_if(
        &self,
        terms: impl Into<Terms>,
        entity: &EntityRef,
        at: At,
    ) -> Result<Changed, Error> {
        let then = self.get_at(entity, at).await?;
        let event = self.event_of_version(entity, then.version).await?;
        self.revert_if(terms, entity, event.id).await
    }

    /// Removes an entity from the current state; its history stays. [`ErrorKind::NotFound`] if it is absent.
    pub async fn del(&self, entity: &EntityRef) -> Result<Written, Error> {
        self.del_if(Condition::Always, entity).await
    }

    /// [`Client::del`], if a condition holds; otherwise [`ErrorKind::VersionMismatch`].
    pub async fn del_if(
        &self,
        terms: impl Into<Terms>,
        entity: &EntityRef,
    ) -> Result<Written, Error> {
        let message = reads::entity_ref(entity, None);
        let write = OneWrite::new(terms.into())?;
        let call = |request| {
            let mut entities = self.writes();
            async move { entities.del(request).await }
        };
        written(
            &self
                .attempt(
                    message,
                    Effect::Write,
                    |metadata| write.prepare(metadata),
                    call,
                    self.deadline(),
                )
                .await?,
        )
    }

    /// Reads an entity, has `change` change its values, and writes them if nobody else wrote in
    /// between; otherwise does it again, until it works or the time is up.
    ///
    /// An entity that does not exist begins as an empty object. `change` may run several times. Updates
    /// of one entity through one client (and its clones) take turns. If the log was replaced after it was
    /// read, [`ErrorKind::LogChanged`] says so, and [`Error::outcome`] whether the change was written.
    pub async fn update(
        &self,
        entity: &EntityRef,
        mut change: impl FnMut(&mut Value),
    ) -> Result<Written, Error> {
        let until = self.deadline();
        let turn = self.turns().of(entity);
        let Ok(mut pace) = tokio::time::timeout_at(until, turn.lock()).await else {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "other updates of this entity took too long",
            ));
        };
        let (mut tries, mut enters) = (0, true);
        loop {
            let wait = if enters { pace.wait() } else { Duration::ZERO };
            // The timer takes a millisecond for no time.
            if !wait.is_zero() {
                sleep(wait).await;
            }
            tries += 1;
            let begun = Instant::now();
            let read = self.get_placed(reads::entity_ref(entity, None)).await;
            let (mut values, condition, place) = match read {
                Ok((found, place)) => (found.values, Condition::Version(found.version), place),
                Err(error) if error.is_not_found() => (
                    Value::Object(serde_json::Map::new()),
                    Condition::Absent,
                    None,
                ),
                Err(error) => return Err(error),
            };
            change(&mut values);
            let error = match self
                .set_message(condition.into(), message(entity, encode(&values)?), until)
                .await
            {
                Ok(written) => {
                    pace.won(tries, begun.elapsed());
                    // A version of another log that happens to have the same number.
                    return match place {
                        Some(place) if place.log_id != written.token.log_id => {
                            Err(self.crossed(&written.token))
                        }
                        _ => Ok(written),
                    };
                }
                Err(error) => error,
            };
            // Whoever was faster made progress, so there is no end to this but that of the time.
            if !matches!(error.kind(), ErrorKind::VersionMismatch { .. }) || Instant::now() >= until
            {
                return Err(error);
            }
            enters = !pace.lost(tries, begun.elapsed());
        }
    }
}
