//! The requests that callers send.

use stategate_protocol::pb::{self, entity_service_client::EntityServiceClient, operation};
use tonic::Status;

use crate::scenario;

use super::{
    connections::{Connection, Connections},
    dataset::{DOMAIN, EntityGenerator, PRODUCTS},
};

/// Operations in each Transact that writes products.
const PRODUCTS_PER_TRANSACT: u32 = 1_000;

/// Sends one request at a time.
pub(crate) trait Caller: Send + 'static {
    /// Sends a request and answers how many units of work it did: events written, entities or pages read.
    fn call(&mut self) -> impl Future<Output = Result<u64, Status>> + Send;
}

/// Sets orders.
pub(crate) struct Set {
    pub(crate) client: EntityServiceClient<Connection>,
    pub(crate) generator: EntityGenerator,
}

impl Set {
    /// A caller of Set.
    pub(crate) fn new(client: EntityServiceClient<Connection>, generator: EntityGenerator) -> Self {
        Self { client, generator }
    }
}

impl Caller for Set {
    async fn call(&mut self) -> Result<u64, Status> {
        self.client.set(self.generator.order()).await?;
        Ok(1)
    }
}

/// Gets products.
pub(crate) struct Get {
    client: EntityServiceClient<Connection>,
    generator: EntityGenerator,
}

impl Get {
    /// A caller of Get.
    pub(crate) fn new(client: EntityServiceClient<Connection>, generator: EntityGenerator) -> Self {
        Self { client, generator }
    }
}

impl Caller for Get {
    async fn call(&mut self) -> Result<u64, Status> {
        let request = self.generator.product_ref();
        let entity = self.client.get(request).await?.into_inner();
        match entity.values {
            Some(_) => Ok(1),
            None => Err(Status::data_loss("an entity without values")),
        }
    }
}

/// Searches for products, page after page.
pub(crate) struct Search {
    client: EntityServiceClient<Connection>,
    /// Of the next page; empty for the first.
    page_token: String,
}

impl Search {
    /// A caller of Search.
    pub(crate) fn new(client: EntityServiceClient<Connection>) -> Self {
        Self {
            client,
            page_token: String::new(),
        }
    }
}

impl Caller for Search {
    async fn call(&mut self) -> Result<u64, Status> {
        let page = self
            .client
            .search(pb::SearchEntityOpts {
                domain: DOMAIN.to_owned(),
                r#type: PRODUCTS.to_owned(),
                limit: scenario::PAGE_SIZE.cast_signed(),
                page_token: std::mem::take(&mut self.page_token),
                ..pb::SearchEntityOpts::default()
            })
            .await?
            .into_inner();
        if page.entities.len() != scenario::PAGE_SIZE as usize {
            return Err(Status::data_loss("a page that is not full"));
        }
        self.page_token = page.next_page_token;
        Ok(1)
    }
}

/// Sets orders, many in one transaction.
pub(crate) struct Transact {
    client: EntityServiceClient<Connection>,
    generator: EntityGenerator,
}

impl Transact {
    /// A caller of Transact.
    pub(crate) fn new(client: EntityServiceClient<Connection>, generator: EntityGenerator) -> Self {
        Self { client, generator }
    }
}

impl Caller for Transact {
    async fn call(&mut self) -> Result<u64, Status> {
        let operations = (0..scenario::OPERATIONS)
            .map(|_| set(self.generator.order()))
            .collect();
        transact(&mut self.client, operations).await
    }
}

fn set(entity: pb::Entity) -> pb::Operation {
    pb::Operation {
        operation: Some(operation::Operation::Set(entity)),
        ..pb::Operation::default()
    }
}

async fn transact(
    client: &mut EntityServiceClient<Connection>,
    operations: Vec<pb::Operation>,
) -> Result<u64, Status> {
    let count = operations.len();
    let request = pb::TransactRequest {
        domain: DOMAIN.to_owned(),
        operations,
    };
    let events = client.transact(request).await?.into_inner().events.len();
    if events != count {
        return Err(Status::data_loss("a transaction without all of its events"));
    }
    Ok(events as u64)
}

/// Writes every product once; answers how many events were written.
pub(crate) async fn write_products(
    connections: &Connections,
    generator: &EntityGenerator,
) -> anyhow::Result<u64> {
    let mut client = EntityServiceClient::new(connections.get(0));
    let mut generator = generator.clone();
    let mut written = 0;
    for first in (0..scenario::PRODUCT_COUNT).step_by(PRODUCTS_PER_TRANSACT as usize) {
        let end = (first + PRODUCTS_PER_TRANSACT).min(scenario::PRODUCT_COUNT);
        let operations = (first..end).map(|n| set(generator.product(n))).collect();
        written += transact(&mut client, operations).await?;
    }
    Ok(written)
}
