//! Opening the database: what it must be, making the tables or bringing them up to date, and the
//! settings that the acknowledgement of a write rests on.
//!
//! Changes of the tables take as long as they take, however long a statement may run otherwise, and are
//! made by one process at a time. Whoever comes second asks again and again instead of waiting within the
//! server: a statement that waits there keeps an index from being built concurrently.

use std::time::Duration;

use stategate_model::{Lanes, LogId};
use tokio::time::{Instant, sleep};
use tokio_postgres::types::{ToSql, Type};

use crate::{Error, ErrorKind, Identity, Result};

use super::{
    config::PostgresConfig,
    durability::{self, Found},
    failure::{corrupt, is_held, refused},
    pool::{Lease, Pool, Purpose, Transaction, Unanswered},
    rows::Columns,
};

/// What leads from each format to the next; the first makes format 1. Each is carried out in one transaction,
/// so that what it locks is kept from writers until it is through: an index on a table that exists is made
/// by [`set_gin`]'s way instead, and a table that exists is not written anew.
const MIGRATIONS: &[&str] = &[include_str!("migrations/0001.sql")];
/// The oldest server, as `server_version_num` gives it.
const OLDEST: i32 = 130_000;
/// How long a migration waits for a table that others use. Whoever comes after it has to wait for as long, so
/// it lets go soon and comes again.
const TABLE_WAIT: Duration = Duration::from_millis(250);
/// Pause before what another process keeps from being done is tried again.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How often the log is told of such a wait.
const TELL: Duration = Duration::from_secs(10);

/// Checks the server, makes the tables, under `identity` if there is one, or migrates them, and reads
/// what was fixed when they were made.
pub(super) async fn initialise(
    pool: &Pool,
    config: &PostgresConfig,
    identity: Option<Identity>,
) -> Result<(Identity, Found)> {
    let asked = config.asked_lanes()?;
    let mut lease = pool.lease("open", Purpose::Schema).await?;
    let found = check_server(&mut lease, &config.schema).await?;
    let ready = match read_meta(&mut lease, config).await? {
        Some((format, meta)) if format == newest(MIGRATIONS) => Some(meta),
        Some((format, _)) if format > newest(MIGRATIONS) => return Err(too_new(format)),
        Some(_) | None => None,
    };
    let meta = match ready {
        Some(meta) => meta,
        None => {
            let new = identity.unwrap_or_else(|| Identity {
                log_id: LogId::random(),
                lanes: asked.unwrap_or(Lanes::ONE),
            });
            migrate(&mut lease, config, new, MIGRATIONS).await?
        }
    };
    drop(lease);
    set_gin(pool, config).await?;
    match asked {
        Some(asked) if asked != meta.lanes => Err(refused(format!(
            "`lanes` is {}, but the log was initialised with {} lanes, which cannot be changed; \
             set it to {} or leave it out",
            asked.get(),
            meta.lanes.get(),
            meta.lanes.get()
        ))),
        _ => Ok((meta, found)),
    }
}

/// What becomes of the index on documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Index {
    Absent,
    /// Being built, or left behind by a build that did not end.
    Unfinished,
    Ready,
}

/// Makes or drops the index on documents, if it is not as the settings have it, while others write.
async fn set_gin(pool: &Pool, config: &PostgresConfig) -> Result<()> {
    let schema = &config.schema;
    loop {
        let mut lease = pool.lease("open", Purpose::Schema).await?;
        if is_settled(&mut lease, config).await? {
            return Ok(());
        }
        begin_alone(&mut lease, schema).await?;
        if config.pooler {
            // Nothing can be set for a statement outside of a transaction there, and the limits of the role
            // are for other statements.
            let change = match config.gin {
                true => format!(
                    "DROP INDEX IF EXISTS {schema}.entities_doc; \
                     CREATE INDEX entities_doc ON {schema}.entities USING gin (doc jsonb_path_ops)"
                ),
                false => format!("DROP INDEX IF EXISTS {schema}.entities_doc"),
            };
            if !is_settled(&mut lease, config).await? {
                tracing::warn!(
                    "making or dropping the index `gin`; behind a pooler, writes wait for it"
                );
                match lease.run(&change).await {
                    Err(Unanswered::Sql(error)) if is_held(&error) => {
                        lease.roll_back().await.map_err(unready)?;
                        sleep(ASK_AGAIN).await;
                        continue;
                    }
                    changed => changed.map_err(unready)?,
                }
            }
            lease.commit().await.map_err(unready)?;
            continue;
        }
        // In a session of its own, since it cannot be done in a transaction; the other one, idle, keeps
        // everybody else from it meanwhile.
        let mut session = pool.lease("open", Purpose::Schema).await?;
        session.close_afterwards();
        let limits = "SET statement_timeout = 0; SET lock_timeout = 0";
        run(&mut session, limits).await?;
        // A build whose process is gone may still go on. It holds this lock until it ends.
        let wait =
            format!("BEGIN; LOCK TABLE {schema}.entities IN SHARE UPDATE EXCLUSIVE MODE; COMMIT");
        run(&mut session, &wait).await?;
        let change = match (index(&mut session, schema).await?, config.gin) {
            (Index::Ready, true) | (Index::Absent, false) => continue,
            (Index::Absent, true) => format!(
                "CREATE INDEX CONCURRENTLY entities_doc ON {schema}.entities USING gin (doc jsonb_path_ops)"
            ),
            (Index::Unfinished, true) | (Index::Unfinished | Index::Ready, false) => {
                format!("DROP INDEX CONCURRENTLY IF EXISTS {schema}.entities_doc")
            }
        };
        tracing::info!(%schema, gin = config.gin, "making or dropping the index `gin`; this may take minutes");
        run(&mut session, &change).await?;
    }
}

/// Whether the index on documents is as the settings have it.
async fn is_settled(lease: &mut Lease, config: &PostgresConfig) -> Result<bool> {
    let wanted = match config.gin {
        true => Index::Ready,
        false => Index::Absent,
    };
    Ok(index(lease, &config.schema).await? == wanted)
}

async fn index(lease: &mut Lease, schema: &str) -> Result<Index> {
    const SQL: &str = "SELECT i.indisvalid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                       JOIN pg_index i ON i.indexrelid = c.oid \
                       WHERE n.nspname = $1 AND c.relname = 'entities_doc'";
    let parameters: &[(&(dyn ToSql + Sync), Type)] = &[(&schema, Type::TEXT)];
    let found = lease.query_once(SQL, parameters).await.map_err(unready)?;
    let Some(row) = found.first() else {
        return Ok(Index::Absent);
    };
    let columns = Columns {
        row,
        operation: "open",
    };
    Ok(match columns.get(0)? {
        true => Index::Ready,
        false => Index::Unfinished,
    })
}

fn newest(migrations: &[&str]) -> i32 {
    i32::try_from(migrations.len()).unwrap_or(i32::MAX)
}

fn too_new(format: i32) -> Error {
    refused(format!(
        "the tables have format {format}, made by a newer version of stategate; this one knows formats up to {}",
        newest(MIGRATIONS)
    ))
}

fn unready(failure: Unanswered) -> Error {
    let error = failure.of_read("open");
    match error.kind() {
        // Tables that are not there or not ours, and statements refused for lack of a right.
        ErrorKind::Corrupt | ErrorKind::Rejected => refused(error.to_string()),
        _ => error,
    }
}

async fn run(lease: &mut Lease, sql: &str) -> Result<()> {
    lease.run(sql).await.map_err(unready)
}

/// What a server has to be. What it says of its settings is judged by [`durability`].
async fn check_server(lease: &mut Lease, schema: &str) -> Result<Found> {
    const SQL: &str = "SELECT current_setting('server_version_num')::int4, \
                       current_setting('server_encoding'), \
                       pg_is_in_recovery()";
    let rows = lease.query_once(SQL, &[]).await.map_err(unready)?;
    let row = rows.first().ok_or_else(|| corrupt("open", "no settings"))?;
    let columns = Columns {
        row,
        operation: "open",
    };
    let version: i32 = columns.get(0)?;
    if version < OLDEST {
        return Err(refused(format!(
            "the server is PostgreSQL {}; {} or later is needed",
            version / 10_000,
            OLDEST / 10_000
        )));
    }
    let encoding: &str = columns.get(1)?;
    if encoding != "UTF8" {
        return Err(refused(format!(
            "the database's encoding is {encoding}; a database made with ENCODING 'UTF8' is needed"
        )));
    }
    if columns.get(2)? {
        return Err(Error::new(ErrorKind::Unavailable, "open")
            .because("the server is a standby; `addr` must lead to the primary"));
    }
    let found = durability::look(lease, schema).await.map_err(unready)?;
    match found
        .weaknesses
        .iter()
        .find(|weakness| weakness.is_refused())
    {
        Some(weakness) => Err(refused(weakness.to_string())),
        None => Ok(found),
    }
}

/// Whether there is a table or index of that name. Read from the catalog's tables: `to_regclass` may answer
/// from a cache that knows nothing yet of what another session made while this one waited.
async fn has_table(lease: &mut Lease, schema: &str, name: &str) -> Result<bool> {
    const SQL: &str = "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                       WHERE n.nspname = $1 AND c.relname = $2";
    let parameters: &[(&(dyn ToSql + Sync), Type)] = &[(&schema, Type::TEXT), (&name, Type::TEXT)];
    let found = lease.query_once(SQL, parameters).await.map_err(unready)?;
    Ok(!found.is_empty())
}

/// The format and what was fixed, if there are tables.
async fn read_meta(lease: &mut Lease, config: &PostgresConfig) -> Result<Option<(i32, Identity)>> {
    let schema = &config.schema;
    if !has_table(lease, schema, "meta").await? {
        return Ok(None);
    }
    let sql = format!("SELECT format, log_id, lanes FROM {schema}.meta");
    let rows = lease.query_once(&sql, &[]).await.map_err(unready)?;
    let Some(row) = rows.first() else {
        return Err(corrupt("open", "the log has no identity"));
    };
    let columns = Columns {
        row,
        operation: "open",
    };
    let lanes = u8::try_from(columns.get::<i16>(2)?)
        .ok()
        .and_then(|lanes| Lanes::new(lanes).ok())
        .ok_or_else(|| corrupt("open", "a number of lanes that cannot be"))?;
    let meta = Identity {
        log_id: LogId(columns.get(1)?),
        lanes,
    };
    Ok(Some((columns.get(0)?, meta)))
}

/// Why a migration did not go through.
enum Stop {
    /// Others use what it has to lock.
    Held,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Makes the tables or brings them up to date, alone: replicas that start at once wait for each other
/// and find it done.
async fn migrate(
    lease: &mut Lease,
    config: &PostgresConfig,
    new: Identity,
    migrations: &[&str],
) -> Result<Identity> {
    let mut waiting = Waiting::new("others use the tables that are to be migrated");
    loop {
        begin_alone(lease, &config.schema).await?;
        match migrate_alone(lease, config, new, migrations).await {
            Ok(meta) => {
                lease.commit().await.map_err(unready)?;
                return Ok(meta);
            }
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Held) => lease.roll_back().await.map_err(unready)?,
        }
        waiting.pause().await;
    }
}

async fn migrate_alone(
    lease: &mut Lease,
    config: &PostgresConfig,
    new: Identity,
    migrations: &[&str],
) -> std::result::Result<Identity, Stop> {
    let schema = &config.schema;
    let found = read_meta(lease, config).await?;
    let (format, newest) = (found.map_or(0, |(format, _)| format), newest(migrations));
    if format > newest {
        return Err(too_new(format).into());
    }
    run(lease, &format!("SET LOCAL search_path TO {schema}")).await?;
    if found.is_none() {
        make_schema(lease, schema).await?;
    }
    let done = usize::try_from(format).unwrap_or(0);
    for (number, migration) in migrations.iter().enumerate().skip(done) {
        if found.is_some() {
            let (from, to) = (number, number + 1);
            tracing::info!(%schema, from, to, "migrating the tables; this may take minutes");
        }
        lease
            .run(migration)
            .await
            .map_err(|failure| match failure {
                Unanswered::Sql(error) if is_held(&error) => Stop::Held,
                failure => Stop::Failed(unready(failure)),
            })?;
    }
    match found {
        Some((_, meta)) => {
            run(lease, &format!("UPDATE meta SET format = {newest}")).await?;
            Ok(meta)
        }
        None => {
            let parameters: &[(&(dyn ToSql + Sync), Type)] = &[
                (&newest, Type::INT4),
                (&new.log_id.0, Type::UUID),
                (&i16::from(new.lanes.get()), Type::INT2),
            ];
            let sql = "WITH made AS ( \
                         INSERT INTO meta (format, log_id, lanes) VALUES ($1, $2, $3) \
                       ) INSERT INTO lanes (lane) SELECT generate_series(0, $3 - 1)";
            lease.query_once(sql, parameters).await.map_err(unready)?;
            Ok(new)
        }
    }
}

/// Begins a transaction beside which nobody else changes the tables, and which may take as long as it takes.
async fn begin_alone(lease: &mut Lease, schema: &str) -> Result<()> {
    let limits = format!(
        "SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN \
           ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout'); \
         SET LOCAL lock_timeout = {}",
        TABLE_WAIT.as_millis()
    );
    let lock =
        format!("SELECT pg_try_advisory_xact_lock(hashtextextended('stategate.{schema}', 0))");
    let mut waiting = Waiting::new("another process makes or migrates the tables");
    loop {
        lease.begin(Transaction::Change).await.map_err(unready)?;
        let rows = lease.query_once(&lock, &[]).await.map_err(unready)?;
        let row = rows
            .first()
            .ok_or_else(|| corrupt("open", "no answer about a lock"))?;
        let columns = Columns {
            row,
            operation: "open",
        };
        if columns.get(0)? {
            // The last statement before a wait is one of the simple protocol: what others leave behind in
            // a transaction holds a snapshot, and an index that is built concurrently would wait for it.
            return run(lease, &limits).await;
        }
        lease.roll_back().await.map_err(unready)?;
        waiting.pause().await;
    }
}

/// A wait for other processes, of which the log is told now and then. It has no end of its own: what is
/// waited for ends with the session that does it.
struct Waiting {
    what: &'static str,
    begun: Instant,
    told: Option<Instant>,
}

impl Waiting {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            begun: Instant::now(),
            told: None,
        }
    }

    async fn pause(&mut self) {
        if self.told.is_none_or(|told| told.elapsed() >= TELL) {
            self.told = Some(Instant::now());
            tracing::info!(
                seconds = self.begun.elapsed().as_secs(),
                "waiting: {}",
                self.what
            );
        }
        sleep(ASK_AGAIN).await;
    }
}

/// Asks for the right to make schemas only if there is something to make.
async fn make_schema(lease: &mut Lease, schema: &str) -> Result<()> {
    let parameters: &[(&(dyn ToSql + Sync), Type)] = &[(&schema, Type::TEXT)];
    let found = lease
        .query_once("SELECT FROM pg_namespace WHERE nspname = $1", parameters)
        .await
        .map_err(unready)?;
    if !found.is_empty() {
        return Ok(());
    }
    run(lease, &format!("CREATE SCHEMA {schema}")).await
}
