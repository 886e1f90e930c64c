//! Writes: each with an idempotency key, so that it can be tried again without writing twice.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use stategate_model::{EntityRef, EventId, Token, Version, json};
use stategate_protocol::{Struct, headers, pb};
use tokio::time::{Instant, sleep};
use tonic::{
    Response,
    metadata::{Ascii, MetadataMap, MetadataValue},
};
use uuid::Uuid;

use crate::{Client, Entity, Error, Kind, client::token_of, reads};

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

/// What a write came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The entity's version after it.
    pub version: Version,
    /// Its place in the log.
    pub token: Token,
    /// Whether an earlier try had done it.
    pub replayed: bool,
}

/// Values as they are sent.
pub(crate) fn encode(values: &impl Serialize) -> Result<Struct, Error> {
    let invalid = |problem: String| {
        Error::new(
            Kind::Invalid(vec![("values".to_owned(), problem.clone())]),
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
    pub(crate) fn new(condition: Condition) -> Result<Self, Error> {
        let key = Uuid::new_v4().to_string().parse();
        let key = key.map_err(|_| Error::new(Kind::Other, "a key could not be made"))?;
        Ok(Self { key, condition })
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
            Kind::Other,
            "the write happened, but the answer does not say where; is a proxy dropping headers?",
        )),
    }
}

impl Client {
    /// Replaces an entity's values, creating it if it is absent.
    ///
    /// `values` is anything that serialises to a JSON object.
    pub async fn set(&self, entity: &EntityRef, values: impl Serialize) -> Result<Written, Error> {
        self.set_if(Condition::Always, entity, values).await
    }

    /// [`Client::set`], if a condition holds; otherwise [`Kind::VersionMismatch`].
    pub async fn set_if(
        &self,
        condition: Condition,
        entity: &EntityRef,
        values: impl Serialize,
    ) -> Result<Written, Error> {
        let message = message(entity, encode(&values)?);
        self.set_message(condition, message, self.deadline()).await
    }

    async fn set_message(
        &self,
        condition: Condition,
        message: pb::Entity,
        until: Instant,
    ) -> Result<Written, Error> {
        let write = OneWrite::new(condition)?;
        let call = |request| {
            let mut entities = self.writes();
            async move { entities.set(request).await }
        };
        written(
            &self
                .attempt(
                    message,
                    true,
                    |metadata| write.prepare(metadata),
                    call,
                    until,
                )
                .await?,
        )
    }

    /// Overwrites the top-level values given and answers the whole entity. [`Kind::NotFound`] if it is
    /// absent.
    pub async fn edit(&self, entity: &EntityRef, values: impl Serialize) -> Result<Entity, Error> {
        self.edit_if(Condition::Always, entity, values).await
    }

    /// [`Client::edit`], if a condition holds; otherwise [`Kind::VersionMismatch`].
    pub async fn edit_if(
        &self,
        condition: Condition,
        entity: &EntityRef,
        values: impl Serialize,
    ) -> Result<Entity, Error> {
        let message = message(entity, encode(&values)?);
        let write = OneWrite::new(condition)?;
        let call = |request| {
            let mut entities = self.writes();
            async move { entities.edit(request).await }
        };
        let response = self
            .attempt(
                message,
                true,
                |metadata| write.prepare(metadata),
                call,
                self.deadline(),
            )
            .await?;
        let version = written(&response)?.version;
        reads::entity(response.into_inner(), Some(version))
    }

    /// Sets an entity to the values in one of its events, also after it was deleted.
    pub async fn revert(&self, entity: &EntityRef, event: EventId) -> Result<Entity, Error> {
        self.revert_if(Condition::Always, entity, event).await
    }

    /// [`Client::revert`], if a condition holds; otherwise [`Kind::VersionMismatch`].
    pub async fn revert_if(
        &self,
        condition: Condition,
        entity: &EntityRef,
        event: EventId,
    ) -> Result<Entity, Error> {
        let message = pb::EventRef {
            domain: entity.domain().to_owned(),
            r#type: entity.kind().to_owned(),
            key: entity.key().to_owned(),
            id: event.to_string(),
        };
        let write = OneWrite::new(condition)?;
        let call = |request| {
            let mut entities = self.writes();
            async move { entities.revert(request).await }
        };
        let response = self
            .attempt(
                message,
                true,
                |metadata| write.prepare(metadata),
                call,
                self.deadline(),
            )
            .await?;
        let version = written(&response)?.version;
        reads::entity(response.into_inner(), Some(version))
    }

    /// Sets an entity to what it was at a version or time: the values come back, as a new version.
    /// [`Kind::NotFound`] if it did not exist then.
    pub async fn revert_to(
        &self,
        entity: &EntityRef,
        at: stategate_model::At,
    ) -> Result<Entity, Error> {
        let then = self.get_at(entity, at).await?;
        let event = self.event_of_version(entity, then.version).await?;
        self.revert(entity, event.id).await
    }

    /// Removes an entity from the current state; its history stays. [`Kind::NotFound`] if it is absent.
    pub async fn del(&self, entity: &EntityRef) -> Result<Written, Error> {
        self.del_if(Condition::Always, entity).await
    }

    /// [`Client::del`], if a condition holds; otherwise [`Kind::VersionMismatch`].
    pub async fn del_if(&self, condition: Condition, entity: &EntityRef) -> Result<Written, Error> {
        let message = reads::entity_ref(entity, None);
        let write = OneWrite::new(condition)?;
        let call = |request| {
            let mut entities = self.writes();
            async move { entities.del(request).await }
        };
        written(
            &self
                .attempt(
                    message,
                    true,
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
    /// of one entity through one client (and its clones) take turns.
    pub async fn update(
        &self,
        entity: &EntityRef,
        mut change: impl FnMut(&mut Value),
    ) -> Result<Written, Error> {
        let until = self.deadline();
        let turn = self.turns().of(entity);
        let Ok(mut pace) = tokio::time::timeout_at(until, turn.lock()).await else {
            return Err(Error::new(
                Kind::Unavailable,
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
            let (mut values, condition) = match self.get(entity).await {
                Ok(found) => (found.values, Condition::Version(found.version)),
                Err(error) if error.is_not_found() => {
                    (Value::Object(serde_json::Map::new()), Condition::Absent)
                }
                Err(error) => return Err(error),
            };
            change(&mut values);
            let error = match self
                .set_message(condition, message(entity, encode(&values)?), until)
                .await
            {
                Ok(written) => {
                    pace.won(tries, begun.elapsed());
                    return Ok(written);
                }
                Err(error) => error,
            };
            // Whoever was faster made progress, so there is no end to this but that of the time.
            if !matches!(error.kind(), Kind::VersionMismatch { .. }) || Instant::now() >= until {
                return Err(error);
            }
            enters = !pace.lost(tries, begun.elapsed());
        }
    }
}
