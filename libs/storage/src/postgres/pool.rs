//! Connections: as many as are allowed, made when they are needed, made again when they are lost.
//!
//! A connection whose statement was not waited for to its end is never handed to anybody else: the
//! statement is cancelled and the connection closed.

use std::{fmt, sync::Arc, time::Duration};

use deadpool_postgres::{
    Client, Manager, ManagerConfig, Object, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_postgres::{
    Error as Sql, Row,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{Error, Kind, Result};

use super::{
    config::{PostgresConfig, refused},
    failure::{closed, failure, spoils, unreachable},
    tls,
};

/// How long a call waits for a connection that others use, or for a new one.
const WAIT: Duration = Duration::from_secs(5);
/// How long after its own limit a statement may go unanswered before its connection counts as lost.
const SILENCE: Duration = Duration::from_secs(2);
/// Leases there can be at once, whatever the number of connections.
const LEASES: u32 = 1 << 16;

/// A statement with the types of its parameters, so that no round trip is spent on asking for them.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) types: Vec<Type>,
}

impl Statement {
    pub(super) fn new(sql: impl Into<String>, types: &[Type]) -> Self {
        Self {
            sql: sql.into(),
            types: types.to_vec(),
        }
    }
}

/// Parameters of a statement.
pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// The connections of one process.
pub(super) struct Pool {
    pool: deadpool_postgres::Pool,
    connector: MakeRustlsConnect,
    /// Whether a connection remembers statements.
    prepares: bool,
    patience: Duration,
    /// Taken by every lease, and by the one who waits for their end.
    leases: Arc<Semaphore>,
}

impl Pool {
    pub(super) fn new(config: &PostgresConfig) -> Result<Self> {
        let parsed = config.parse()?;
        let connector = tls::connector(parsed.check, config.ca_file.as_deref())?;
        let manager = Manager::from_config(
            parsed.config,
            connector.clone(),
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(usize::from(config.connections))
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(WAIT))
            .build()
            .map_err(|error| refused(error.to_string()))?;
        Ok(Self {
            pool,
            connector,
            prepares: !config.pooler,
            patience: config.statement_timeout() + SILENCE,
            leases: Arc::new(Semaphore::new(LEASES as usize)),
        })
    }

    /// A connection for one call.
    pub(super) async fn lease(&self, operation: &'static str) -> Result<Lease> {
        let permit = Arc::clone(&self.leases).try_acquire_owned();
        let permit = permit.map_err(|_| closed(operation))?;
        let client = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => unreachable(operation, &error),
            PoolError::Closed => closed(operation),
            PoolError::Timeout(TimeoutType::Wait) => Error::new(Kind::Unavailable, operation)
                .because("every connection is in use; see `connections`"),
            error => Error::new(Kind::Unavailable, operation).because(error),
        })?;
        Ok(Lease {
            client: Some(client),
            under_way: false,
            in_transaction: false,
            connector: self.connector.clone(),
            prepares: self.prepares,
            patience: self.patience,
            operation,
            _permit: permit,
        })
    }

    /// Lets the calls that are under way end, and closes every connection.
    pub(super) async fn close(&self) {
        self.pool.close();
        if let Ok(all) = self.leases.acquire_many(LEASES).await {
            all.forget();
        }
        self.leases.close();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("status", &self.pool.status())
            .finish_non_exhaustive()
    }
}

/// Why a statement has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not sent.
    Unsent(Error),
    /// The server's word, or the connection's end.
    Sql(Sql),
    /// Silence for longer than the statement may run.
    Silence,
}

impl Failure {
    /// What a read, or anything else that is surely undone, answers.
    pub(super) fn of_read(self, operation: &'static str) -> Error {
        match self {
            Self::Unsent(error) => error,
            Self::Sql(error) => failure(operation)(error),
            Self::Silence => Error::new(Kind::Unavailable, operation)
                .because("the database did not answer in time"),
        }
    }
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Transaction {
    /// Reads that all see the log as it is at the first of them.
    Snapshot,
    /// Changes of the schema.
    Write,
}

/// A connection for one call; back in the pool afterwards if nothing is left on it.
pub(super) struct Lease {
    client: Option<Client>,
    /// A statement was sent and not answered to its end, or in a way that spoils the connection.
    under_way: bool,
    in_transaction: bool,
    connector: MakeRustlsConnect,
    prepares: bool,
    patience: Duration,
    operation: &'static str,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Runs a statement that is used again and again, and is prepared where connections remember it.
    pub(super) async fn query(
        &mut self,
        statement: &Statement,
        parameters: Parameters<'_>,
    ) -> std::result::Result<Vec<Row>, Failure> {
        if !self.prepares {
            let typed = parameters
                .iter()
                .copied()
                .zip(statement.types.iter().cloned());
            return self
                .query_once(&statement.sql, &typed.collect::<Vec<_>>())
                .await;
        }
        let (patience, client) = (self.patience, self.start()?);
        let preparing = client.prepare_typed_cached(&statement.sql, &statement.types);
        let prepared = timeout(patience, preparing).await;
        // Preparing is not carrying out: whatever became of it, nothing was written.
        let prepared = self
            .finish(prepared)
            .map_err(|failure| Failure::Unsent(failure.of_read(self.operation)))?;
        let (patience, client) = (self.patience, self.start()?);
        let answer = timeout(patience, client.query(&prepared, parameters)).await;
        self.finish(answer)
    }

    /// Runs a statement that is made for this call, planned for its parameters.
    pub(super) async fn query_once(
        &mut self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> std::result::Result<Vec<Row>, Failure> {
        let (patience, client) = (self.patience, self.start()?);
        let answer = timeout(patience, client.query_typed(sql, parameters)).await;
        self.finish(answer)
    }

    /// Runs statements without parameters.
    pub(super) async fn run(&mut self, sql: &str) -> std::result::Result<(), Failure> {
        let (patience, client) = (self.patience, self.start()?);
        let answer = timeout(patience, client.batch_execute(sql)).await;
        self.finish(answer)
    }

    /// Begins a transaction. A connection that is let go of before [`Lease::commit`] is closed, and
    /// nothing of it is there.
    pub(super) async fn begin(
        &mut self,
        transaction: Transaction,
    ) -> std::result::Result<(), Failure> {
        self.in_transaction = true;
        self.run(match transaction {
            Transaction::Snapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Transaction::Write => "BEGIN",
        })
        .await
    }

    /// Ends the transaction.
    pub(super) async fn commit(&mut self) -> std::result::Result<(), Failure> {
        self.run("COMMIT").await?;
        self.in_transaction = false;
        Ok(())
    }

    fn client(&self) -> std::result::Result<&Client, Failure> {
        self.client
            .as_ref()
            .ok_or_else(|| Failure::Unsent(closed(self.operation)))
    }

    fn start(&mut self) -> std::result::Result<&Client, Failure> {
        self.under_way = true;
        self.client()
    }

    fn finish<T>(
        &mut self,
        answer: std::result::Result<std::result::Result<T, Sql>, tokio::time::error::Elapsed>,
    ) -> std::result::Result<T, Failure> {
        match answer {
            Ok(Ok(answer)) => {
                self.under_way = false;
                Ok(answer)
            }
            Ok(Err(error)) => {
                self.settle(&error);
                Err(Failure::Sql(error))
            }
            Err(_) => Err(Failure::Silence),
        }
    }

    /// After an error: whether the connection is of further use.
    fn settle(&mut self, error: &Sql) {
        self.under_way = spoils(error);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else {
            return;
        };
        if !self.under_way && !self.in_transaction {
            return;
        }
        // Out of the pool, and closed as it is dropped.
        let client = Object::take(client);
        // A pooler ends the statement's own connection with this one, and may pass a request to cancel it on
        // to the caller that comes next.
        if client.is_closed() || !self.prepares {
            return;
        }
        let cancel = client.cancel_token();
        let connector = self.connector.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // The statement ends at its limit if this does not reach the server.
                let _ = timeout(WAIT, cancel.cancel_query(connector)).await;
            });
        }
    }
}
