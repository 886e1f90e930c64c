//! Connections: as many as are allowed, made when they are needed, made again when they are lost.
//!
//! A connection whose statement was not waited for to its end is never handed to anybody else: it is
//! closed. If the statement changes nothing it is cancelled too. One that does never is: a commit that waits
//! for a standby is done on this server as soon as its wait is cancelled, and on no other.

use std::{
    fmt,
    future::poll_fn,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use deadpool_postgres::{
    Client, Connect, Manager, ManagerConfig, Object, PoolError, RecyclingMethod, Runtime,
    TimeoutType,
};
use stategate_model::times;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_postgres::{
    AsyncMessage, Error as Sql, Row,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{Error, ErrorKind, Result};

use super::{
    config::{PostgresConfig, servers},
    failure::{closed, failure, is_cut_short, late, refused, spoils, unreachable},
    passfile, tls,
};

/// How long a connection that others use is waited for at most, and a statement's end is asked for.
const WAIT: Duration = Duration::from_secs(5);
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

/// Selected by a transaction that commits something, so that its commit answers once the server's log is
/// synced, and where there are standbys to be waited for, once they have it. What the server, the database
/// or the role is set to may ask for more, and never makes it less; a pooler needs nothing for it. The
/// warning of a wait that was cut short must not be held back either.
pub(super) const DURABLY: &str = "set_config('synchronous_commit', \
       CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true), \
     set_config('client_min_messages', 'warning', true)";

/// Parameters of a statement.
pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// The connections of one process.
pub(super) struct Pool {
    pool: deadpool_postgres::Pool,
    connector: MakeRustlsConnect,
    /// Whether a connection remembers statements.
    prepares: bool,
    patience: Duration,
    /// How long a connection may take to be made, at whichever host.
    connect: Duration,
    /// Where they lead to, for people.
    servers: String,
    /// How many commits are known to have been cut short as they waited for a standby.
    cut_short: Arc<AtomicU64>,
    /// Taken by every lease, and by the one who waits for their end.
    leases: Arc<Semaphore>,
}

/// What a connection is used for: how long an answer is waited for, and what becomes of a statement whose
/// answer nobody waits for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Reading a few rows: cancelled with its caller, and given up before callers are gone.
    Read,
    /// Searching, or reading the log: for as long as a statement may run, and cancelled with its caller.
    Search,
    /// Reading what callers wait for who write.
    Load,
    /// Appending: silence is found out about by appending again. Never cancelled.
    Append,
    /// A commit that changes nothing, asked for its wait alone: cancelled once nobody waits for it, or each
    /// would keep a connection of the server for as long as its standby is away.
    Confirm,
    /// Making and migrating tables: for as long as it takes. Never cancelled.
    Schema,
}

/// Makes connections, and hears what a server says of commits that it no longer waits for.
struct Connector {
    tls: MakeRustlsConnect,
    /// Read again for each connection, as libpq does: a password that is changed is changed there too.
    passfile: Option<PathBuf>,
    cut_short: Arc<AtomicU64>,
}

type Connecting<'a> = Pin<
    Box<
        dyn Future<Output = std::result::Result<(tokio_postgres::Client, JoinHandle<()>), Sql>>
            + Send
            + 'a,
    >,
>;

impl Connect for Connector {
    fn connect(&self, config: &tokio_postgres::Config) -> Connecting<'_> {
        let (mut config, tls) = (config.clone(), self.tls.clone());
        if let Some(path) = &self.passfile
            && let Err(error) = passfile::look_up(path, &mut config)
        {
            // With the password that was there at the start: the server says whether it still is the one.
            tracing::warn!(%error, "the file with the password cannot be used");
        }
        let cut_short = Arc::clone(&self.cut_short);
        Box::pin(async move {
            let (client, mut connection) = config.connect(tls).await?;
            let driver = tokio::spawn(async move {
                loop {
                    match poll_fn(|cx| connection.poll_message(cx)).await {
                        // Counted before the answer that it goes ahead of is passed on.
                        Some(Ok(AsyncMessage::Notice(notice))) if is_cut_short(&notice) => {
                            cut_short.fetch_add(1, Ordering::SeqCst);
                            tracing::warn!(%notice, "PostgreSQL no longer waits for a standby");
                        }
                        Some(Ok(_)) => {}
                        Some(Err(error)) => {
                            tracing::debug!(%error, "a connection to PostgreSQL ended");
                            return;
                        }
                        None => return,
                    }
                }
            });
            Ok((client, driver))
        })
    }
}

impl Pool {
    pub(super) fn new(config: &PostgresConfig) -> Result<Self> {
        let mut parsed = config.parse()?;
        let connector = tls::connector(&parsed.tls)?;
        if let Some(path) = &parsed.passfile {
            passfile::look_up(path, &mut parsed.config)?;
        }
        let servers = servers(&parsed.config);
        let cut_short = Arc::<AtomicU64>::default();
        let manager = Manager::from_connect(
            parsed.config,
            Connector {
                tls: connector.clone(),
                passfile: parsed.passfile,
                cut_short: Arc::clone(&cut_short),
            },
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(usize::from(config.connections))
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(parsed.connect))
            .build()
            .map_err(|error| refused(error.to_string()))?;
        Ok(Self {
            pool,
            connector,
            prepares: !config.pooler,
            patience: config.statement_timeout() + times::STATEMENT_SILENCE,
            connect: parsed.connect,
            servers,
            cut_short,
            leases: Arc::new(Semaphore::new(LEASES as usize)),
        })
    }

    /// A connection for one call.
    pub(super) async fn lease(&self, operation: &'static str, purpose: Purpose) -> Result<Lease> {
        let permit = Arc::clone(&self.leases).try_acquire_owned();
        let permit = permit.map_err(|_| closed(operation))?;
        let begun = Instant::now();
        // How long a connection is waited for, and after that each answer.
        let (most, patience) = match purpose {
            Purpose::Read => (times::CONNECTION, Some(self.patience)),
            Purpose::Search => (times::STATEMENT_CONNECTION, Some(self.patience)),
            Purpose::Load => (times::CONNECTION, Some(self.patience.min(times::WRITE))),
            Purpose::Append | Purpose::Confirm => (times::CONNECTION, Some(times::SILENCE)),
            Purpose::Schema => (WAIT + self.connect, None),
        };
        // When a call that only reads ends, whatever it waits for.
        let until = match purpose {
            Purpose::Read => Some(begun + times::READ),
            Purpose::Search => Some(begun + times::STATEMENT_CONNECTION + self.patience),
            Purpose::Load | Purpose::Append | Purpose::Confirm | Purpose::Schema => None,
        };
        let Ok(got) = timeout(most, self.pool.get()).await else {
            return Err(late(operation, &self.servers));
        };
        let client = got.map_err(|error| match error {
            PoolError::Backend(error) => unreachable(operation, &self.servers, &error),
            PoolError::Closed => closed(operation),
            PoolError::Timeout(TimeoutType::Create) => late(operation, &self.servers),
            PoolError::Timeout(TimeoutType::Wait) => Error::new(ErrorKind::Unavailable, operation)
                .because("every connection is in use; see `connections`"),
            error => Error::new(ErrorKind::Unavailable, operation).because(error),
        })?;
        Ok(Lease {
            client: Some(client),
            under_way: false,
            in_transaction: false,
            spent: false,
            connector: self.connector.clone(),
            prepares: self.prepares,
            purpose,
            patience,
            until,
            operation,
            _permit: permit,
        })
    }

    /// How many commits are known to have been cut short as they waited for a standby: done on this server,
    /// and perhaps on no other. Whoever finds it the same before and after a commit of his own knows that
    /// it was not that one.
    pub(super) fn cut_short(&self) -> u64 {
        self.cut_short.load(Ordering::SeqCst)
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
pub(super) enum Unanswered {
    /// It was not sent.
    Unsent(Error),
    /// The server's word, or the connection's end.
    Sql(Sql),
    /// Silence for longer than the statement may run.
    Silence,
}

impl Unanswered {
    /// What a read, or anything else that is surely undone, answers.
    pub(super) fn of_read(self, operation: &'static str) -> Error {
        match self {
            Self::Unsent(error) => error,
            Self::Sql(error) => failure(operation)(error),
            Self::Silence => Error::new(ErrorKind::Unavailable, operation)
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
    Change,
}

/// A connection for one call; back in the pool afterwards if nothing is left on it.
pub(super) struct Lease {
    client: Option<Client>,
    /// A statement was sent and not answered to its end, or in a way that spoils the connection.
    under_way: bool,
    in_transaction: bool,
    /// The connection is not for others any more.
    spent: bool,
    connector: MakeRustlsConnect,
    prepares: bool,
    purpose: Purpose,
    /// How long an answer is waited for.
    patience: Option<Duration>,
    /// Until when all answers together are waited for.
    until: Option<Instant>,
    operation: &'static str,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Runs a statement that is used again and again, and is prepared where connections remember it.
    pub(super) async fn query(
        &mut self,
        statement: &Statement,
        parameters: Parameters<'_>,
    ) -> std::result::Result<Vec<Row>, Unanswered> {
        if !self.prepares {
            let typed = parameters
                .iter()
                .copied()
                .zip(statement.types.iter().cloned());
            return self
                .query_once(&statement.sql, &typed.collect::<Vec<_>>())
                .await;
        }
        let (patience, client) = (self.patience(), self.start()?);
        let preparing = client.prepare_typed_cached(&statement.sql, &statement.types);
        let prepared = answered(patience, preparing).await;
        // Preparing is not carrying out: whatever became of it, nothing was written.
        let prepared = self
            .finish(prepared)
            .map_err(|failure| Unanswered::Unsent(failure.of_read(self.operation)))?;
        let (patience, client) = (self.patience(), self.start()?);
        let answer = answered(patience, client.query(&prepared, parameters)).await;
        self.finish(answer)
    }

    /// Runs a statement that is made for this call, planned for its parameters.
    pub(super) async fn query_once(
        &mut self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> std::result::Result<Vec<Row>, Unanswered> {
        let (patience, client) = (self.patience(), self.start()?);
        let answer = answered(patience, client.query_typed(sql, parameters)).await;
        self.finish(answer)
    }

    /// Runs statements without parameters.
    pub(super) async fn run(&mut self, sql: &str) -> std::result::Result<(), Unanswered> {
        let (patience, client) = (self.patience(), self.start()?);
        let answer = answered(patience, client.batch_execute(sql)).await;
        self.finish(answer)
    }

    /// Begins a transaction. A connection that is let go of before [`Lease::commit`] is closed, and
    /// nothing of it is there.
    pub(super) async fn begin(
        &mut self,
        transaction: Transaction,
    ) -> std::result::Result<(), Unanswered> {
        self.in_transaction = true;
        match transaction {
            Transaction::Snapshot => {
                self.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    .await
            }
            Transaction::Change => self.run(&format!("BEGIN; SELECT {DURABLY}")).await,
        }
    }

    /// Ends the transaction.
    pub(super) async fn commit(&mut self) -> std::result::Result<(), Unanswered> {
        self.run("COMMIT").await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Ends the transaction with nothing of it done.
    pub(super) async fn roll_back(&mut self) -> std::result::Result<(), Unanswered> {
        self.run("ROLLBACK").await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Has the connection closed after this call: what is set for its session is of no use to others.
    pub(super) fn close_afterwards(&mut self) {
        self.spent = true;
    }

    /// How long the next answer is waited for.
    fn patience(&self) -> Option<Duration> {
        let left = self
            .until
            .map(|until| until.saturating_duration_since(Instant::now()));
        match (self.patience, left) {
            (Some(patience), Some(left)) => Some(patience.min(left)),
            (patience, left) => patience.or(left),
        }
    }

    fn client(&self) -> std::result::Result<&Client, Unanswered> {
        self.client
            .as_ref()
            .ok_or_else(|| Unanswered::Unsent(closed(self.operation)))
    }

    fn start(&mut self) -> std::result::Result<&Client, Unanswered> {
        self.under_way = true;
        self.client()
    }

    fn finish<T>(
        &mut self,
        answer: Option<std::result::Result<T, Sql>>,
    ) -> std::result::Result<T, Unanswered> {
        match answer {
            Some(Ok(answer)) => {
                self.under_way = false;
                Ok(answer)
            }
            Some(Err(error)) => {
                self.settle(&error);
                Err(Unanswered::Sql(error))
            }
            None => Err(Unanswered::Silence),
        }
    }

    /// After an error: whether the connection is of further use.
    fn settle(&mut self, error: &Sql) {
        self.under_way = spoils(error);
    }
}

/// The answer to a statement; `None` if there is none in time.
async fn answered<T>(patience: Option<Duration>, answer: impl Future<Output = T>) -> Option<T> {
    match patience {
        Some(patience) => timeout(patience, answer).await.ok(),
        None => Some(answer.await),
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else {
            return;
        };
        if !self.under_way && !self.in_transaction && !self.spent {
            return;
        }
        // Out of the pool, and closed as it is dropped.
        let client = Object::take(client);
        // Whoever appended finds out by appending again. A commit that is cancelled as it waits for a standby
        // would be seen here, and be nowhere else.
        let changes_nothing = match self.purpose {
            Purpose::Read | Purpose::Search | Purpose::Load | Purpose::Confirm => true,
            Purpose::Append | Purpose::Schema => false,
        };
        // A pooler ends the statement's own connection with this one, and may pass a request to cancel it on
        // to the caller that comes next.
        if client.is_closed() || !self.prepares || !changes_nothing {
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
