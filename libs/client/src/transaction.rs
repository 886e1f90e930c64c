//! Several writes in one domain, all or none.

use serde::Serialize;
use stategate_model::{EntityRef, Event, EventId, Token};
use stategate_protocol::{
    headers,
    pb::{self, operation},
};

use crate::{
    Client, Condition, Error, ErrorKind, Terms,
    client::token_of,
    error::Effect,
    reads,
    writes::{OneWrite, encode},
};

/// Writes to be carried out together. Their entities are of one domain.
///
/// ```no_run
/// # use stategate_client::{Client, Condition, EntityRef, Transaction, json};
/// # async fn run(client: Client) -> Result<(), stategate_client::Error> {
/// let from = EntityRef::new("bank", "account", "ada")?;
/// let to = EntityRef::new("bank", "account", "bob")?;
/// let (a, b) = (client.get(&from).await?, client.get(&to).await?);
/// client.transact(
///     Transaction::new("bank")
///         .edit_if(Condition::Version(a.version), &from, json!({ "balance": 90 }))?
///         .edit_if(Condition::Version(b.version), &to, json!({ "balance": 110 }))?,
/// ).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Transaction {
    request: pb::TransactRequest,
    terms: Terms,
}

/// What a transaction came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Transacted {
    /// One event for each operation, in order.
    pub events: Vec<Event>,
    /// The place in the log of the last of them.
    pub token: Option<Token>,
    /// Whether an earlier try had done it.
    pub replayed: bool,
}

impl Transaction {
    /// An empty transaction in a domain; it needs at least one operation.
    pub fn new(domain: impl Into<String>) -> Self {
        Self {
            request: pb::TransactRequest {
                domain: domain.into(),
                operations: Vec::new(),
            },
            terms: Terms::new(),
        }
    }

    /// Gives it an idempotency key of the caller's own, as [`Terms::key`] does.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.terms = self.terms.key(key);
        self
    }

    /// How many operations it has.
    pub fn len(&self) -> usize {
        self.request.operations.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.request.operations.is_empty()
    }

    /// Replaces an entity's values.
    pub fn set(self, entity: &EntityRef, values: impl Serialize) -> Result<Self, Error> {
        self.set_if(Condition::Always, entity, values)
    }

    /// Replaces an entity's values, if a condition holds.
    pub fn set_if(
        self,
        condition: Condition,
        entity: &EntityRef,
        values: impl Serialize,
    ) -> Result<Self, Error> {
        let message = message(entity, &values)?;
        self.with(condition, operation::Operation::Set(message))
    }

    /// Overwrites the top-level values given.
    pub fn edit(self, entity: &EntityRef, values: impl Serialize) -> Result<Self, Error> {
        self.edit_if(Condition::Always, entity, values)
    }

    /// Overwrites the top-level values given, if a condition holds.
    pub fn edit_if(
        self,
        condition: Condition,
        entity: &EntityRef,
        values: impl Serialize,
    ) -> Result<Self, Error> {
        let message = message(entity, &values)?;
        self.with(condition, operation::Operation::Edit(message))
    }

    /// Sets an entity to the values in one of its events.
    pub fn revert(self, entity: &EntityRef, event: EventId) -> Result<Self, Error> {
        self.revert_if(Condition::Always, entity, event)
    }

    /// Sets an entity to the values in one of its events, if a condition holds.
    pub fn revert_if(
        self,
        condition: Condition,
        entity: &EntityRef,
        event: EventId,
    ) -> Result<Self, Error> {
        let message = pb::EventRef {
            domain: entity.domain().to_owned(),
            r#type: entity.kind().to_owned(),
            key: entity.key().to_owned(),
            id: event.to_string(),
        };
        self.with(condition, operation::Operation::Revert(message))
    }

    /// Removes an entity from the current state.
    pub fn del(self, entity: &EntityRef) -> Result<Self, Error> {
        self.del_if(Condition::Always, entity)
    }

    /// Removes an entity from the current state, if a condition holds.
    pub fn del_if(self, condition: Condition, entity: &EntityRef) -> Result<Self, Error> {
        self.with(
            condition,
            operation::Operation::Del(reads::entity_ref(entity, None)),
        )
    }

    fn with(
        mut self,
        condition: Condition,
        operation: operation::Operation,
    ) -> Result<Self, Error> {
        let precondition = match condition {
            Condition::Always => None,
            Condition::Absent => Some(operation::Precondition::IfAbsent(true)),
            Condition::Version(version) => {
                Some(operation::Precondition::IfVersion(version.as_i64()))
            }
            Condition::Exists => {
                let problem = "an operation of a transaction cannot ask for existence alone; name the version".to_owned();
                return Err(Error::new(
                    ErrorKind::Invalid(vec![("precondition".to_owned(), problem.clone())]),
                    problem,
                ));
            }
        };
        self.request.operations.push(pb::Operation {
            operation: Some(operation),
            precondition,
            ..pb::Operation::default()
        });
        Ok(self)
    }
}

fn message(entity: &EntityRef, values: &impl Serialize) -> Result<pb::Entity, Error> {
    Ok(pb::Entity {
        domain: entity.domain().to_owned(),
        r#type: entity.kind().to_owned(),
        key: entity.key().to_owned(),
        values: Some(encode(values)?),
        version: 0,
    })
}

impl Client {
    /// Carries out a transaction: all of it or none.
    pub async fn transact(&self, transaction: Transaction) -> Result<Transacted, Error> {
        let write = OneWrite::new(transaction.terms)?;
        let call = |request| {
            let mut entities = self.writes();
            async move { entities.transact(request).await }
        };
        let response = self
            .attempt(
                transaction.request,
                Effect::Write,
                |metadata| write.prepare(metadata),
                call,
                self.deadline(),
            )
            .await?;
        let token = token_of(response.metadata());
        let replayed = response.metadata().get(headers::REPLAYED).is_some();
        let events = response
            .into_inner()
            .events
            .into_iter()
            .map(reads::event)
            .collect::<Result<_, _>>()
            .map_err(Error::though_written)?;
        Ok(Transacted {
            events,
            token,
            replayed,
        })
    }
}
