//! Reads of the current state and of the history.

use serde::de::DeserializeOwned;
use serde_json::Value;
use stategate_model::{At, EntityRef, Event, EventId, KindRef, Timestamp, Token, Version, json};
use stategate_protocol::{convert, pb};

use crate::{Client, Error, ErrorKind, client::token_of};

/// An entity as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    /// Which entity.
    pub entity: EntityRef,
    /// Its values: a JSON object.
    pub values: Value,
    /// Its version.
    pub version: Version,
}

impl Entity {
    /// The values as a type of the caller's.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_value(self.values.clone()).map_err(|error| {
            Error::new(
                ErrorKind::Other,
                format!(
                    "the values of {} are not of the type asked for: {error}",
                    self.entity
                ),
            )
        })
    }
}

/// A part of a result.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// Where the next page continues: the `page_token` of the next search. `None` on the last page.
    pub next: Option<String>,
}

/// A search of the current state of a domain and type.
#[derive(Debug, Clone, Default)]
pub struct Search(pb::SearchEntityOpts);

/// A search of the history of a domain and type.
#[derive(Debug, Clone, Default)]
pub struct SearchEvents(pb::SearchEventOpts);

macro_rules! search_options {
    () => {
        /// Only what matches a filter.
        #[must_use]
        pub fn filter(mut self, filter: &Value) -> Self {
            self.0.query_string = filter.to_string();
            self
        }

        /// Only what matches a filter in JSON text, which the gateway parses: it says what is wrong
        /// with it.
        #[must_use]
        pub fn filter_text(mut self, filter: impl Into<String>) -> Self {
            self.0.query_string = filter.into();
            self
        }

        /// Orders by the value at a path, from the least.
        #[must_use]
        pub fn sort_by(mut self, path: impl Into<String>) -> Self {
            self.0.sort = Some(pb::Sort {
                field: path.into(),
                reverse: false,
            });
            self
        }

        /// Orders by the value at a path, from the greatest.
        #[must_use]
        pub fn sort_by_reverse(mut self, path: impl Into<String>) -> Self {
            self.0.sort = Some(pb::Sort {
                field: path.into(),
                reverse: true,
            });
            self
        }

        /// At most this many on a page: 100 unless set, at most 10,000.
        #[must_use]
        pub fn limit(mut self, limit: u16) -> Self {
            self.0.limit = i32::from(limit);
            self
        }

        /// Leaves this many out first. Not beside a page token.
        #[must_use]
        pub fn offset(mut self, offset: u32) -> Self {
            self.0.offset = i32::try_from(offset).unwrap_or(i32::MAX);
            self
        }

        /// Continues after a page.
        #[must_use]
        pub fn page(mut self, token: impl Into<String>) -> Self {
            self.0.page_token = token.into();
            self.0.offset = 0;
            self
        }
    };
}

impl Search {
    /// Every entity of a domain and type, by key.
    pub fn new(of: &KindRef) -> Self {
        let (domain, kind) = (of.domain.to_string(), of.kind.to_string());
        Self(pb::SearchEntityOpts {
            domain,
            r#type: kind,
            ..Default::default()
        })
    }

    search_options!();
}

impl SearchEvents {
    /// Every event of a domain and type, in the order of the log.
    pub fn new(of: &KindRef) -> Self {
        let (domain, kind) = (of.domain.to_string(), of.kind.to_string());
        Self(pb::SearchEventOpts {
            domain,
            r#type: kind,
            ..Default::default()
        })
    }

    search_options!();

    /// Only events at this time or later.
    #[must_use]
    pub fn min(mut self, time: Timestamp) -> Self {
        self.0.min = time.0;
        self
    }

    /// Only events at this time or earlier.
    #[must_use]
    pub fn max(mut self, time: Timestamp) -> Self {
        self.0.max = time.0;
        self
    }
}

pub(crate) fn unreadable(what: &str) -> Error {
    Error::new(
        ErrorKind::Other,
        format!("the gateway answered {what} that cannot be read; is it newer than this client?"),
    )
}

/// An entity as it was answered. `version` where the message does not have it.
pub(crate) fn entity(message: pb::Entity, version: Option<Version>) -> Result<Entity, Error> {
    let entity = EntityRef::new(&message.domain, &message.r#type, &message.key)
        .map_err(|_| unreadable("an entity"))?;
    let version = version
        .or_else(|| Version::from_i64(message.version))
        .ok_or_else(|| unreadable("a version"))?;
    let object = message
        .values
        .map(stategate_protocol::Struct::into_object)
        .unwrap_or_default();
    let values =
        serde_json::from_str(&json::canonical(&object)).map_err(|_| unreadable("values"))?;
    Ok(Entity {
        entity,
        values,
        version,
    })
}

/// An event as it was answered.
pub(crate) fn event(message: pb::Event) -> Result<Event, Error> {
    convert::event(message).ok_or_else(|| unreadable("an event"))
}

pub(crate) fn entity_ref(entity: &EntityRef, at: Option<At>) -> pb::EntityRef {
    pb::EntityRef {
        domain: entity.domain().to_owned(),
        r#type: entity.kind().to_owned(),
        key: entity.key().to_owned(),
        at: at.map(|at| match at {
            At::Version(version) => pb::entity_ref::At::AtVersion(version.as_i64()),
            At::Time(time) => pb::entity_ref::At::AtTime(time.0),
        }),
    }
}

fn page<T>(items: Result<Vec<T>, Error>, token: String) -> Result<Page<T>, Error> {
    Ok(Page {
        items: items?,
        next: (!token.is_empty()).then_some(token),
    })
}

impl Client {
    /// An entity as it is now. [`ErrorKind::NotFound`] if it does not exist.
    pub async fn get(&self, entity: &EntityRef) -> Result<Entity, Error> {
        Ok(self.get_placed(entity_ref(entity, None)).await?.0)
    }

    /// An entity as it was at a version or time. [`ErrorKind::NotFound`] if it did not exist then; the
    /// message says when it was deleted, if it was.
    pub async fn get_at(&self, entity: &EntityRef, at: At) -> Result<Entity, Error> {
        Ok(self.get_placed(entity_ref(entity, Some(at))).await?.0)
    }

    /// An entity, and the place in the log it was read at.
    pub(crate) async fn get_placed(
        &self,
        message: pb::EntityRef,
    ) -> Result<(Entity, Option<Token>), Error> {
        let call = |request| {
            let mut entities = self.entities();
            async move { entities.get(request).await }
        };
        let response = self.read(message, call).await?;
        let place = token_of(response.metadata());
        Ok((entity(response.into_inner(), None)?, place))
    }

    /// A page of the entities that a search finds.
    pub async fn search(&self, search: &Search) -> Result<Page<Entity>, Error> {
        let call = |request| {
            let mut entities = self.entities();
            async move { entities.search(request).await }
        };
        let found = self.read(search.0.clone(), call).await?.into_inner();
        page(
            found
                .entities
                .into_iter()
                .map(|message| entity(message, None))
                .collect(),
            found.next_page_token,
        )
    }

    /// A page of the events that a search finds.
    pub async fn search_events(&self, search: &SearchEvents) -> Result<Page<Event>, Error> {
        let call = |request| {
            let mut events = self.events();
            async move { events.search(request).await }
        };
        let found = self.read(search.0.clone(), call).await?.into_inner();
        page(
            found.events.into_iter().map(event).collect(),
            found.next_page_token,
        )
    }

    /// One event of an entity.
    pub async fn event(&self, entity: &EntityRef, id: EventId) -> Result<Event, Error> {
        let message = pb::EventRef {
            domain: entity.domain().to_owned(),
            r#type: entity.kind().to_owned(),
            key: entity.key().to_owned(),
            id: id.to_string(),
        };
        let call = |request| {
            let mut events = self.events();
            async move { events.get(request).await }
        };
        event(self.read(message, call).await?.into_inner())
    }

    /// The event that made a version of an entity.
    pub async fn event_of_version(
        &self,
        entity: &EntityRef,
        version: Version,
    ) -> Result<Event, Error> {
        let of = KindRef::new(entity.domain(), entity.kind())?;
        let filter =
            serde_json::json!({ "entity.key": entity.key(), "version": version.to_string() });
        let found = self
            .search_events(&SearchEvents::new(&of).filter(&filter).limit(1))
            .await?;
        found.items.into_iter().next().ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("no event made version {version} of {entity}"),
            )
        })
    }
}
