//! Opening the database: what it must be, making the tables or bringing them up to date, and the
//! settings that the acknowledgement of a write rests on.

use stategate_model::{Lanes, LogId};
use tokio_postgres::types::{ToSql, Type};

use crate::{Error, Identity, Kind, Result};

use super::{
    config::{PostgresConfig, refused},
    failure::corrupt,
    pool::{Failure, Lease, Pool, Transaction},
    rows::Columns,
};

/// What leads from each format to the next; the first makes format 1.
const MIGRATIONS: &[&str] = &[include_str!("migrations/0001.sql")];
/// The oldest server, as `server_version_num` gives it.
const OLDEST: i32 = 130_000;
/// How long a replica waits for another one that makes or migrates the tables.
const MIGRATION_WAIT: &str = "10min";

/// Checks the server, makes the tables, under `identity` if there is one, or migrates them, and reads
/// what was fixed when they were made.
pub(super) async fn initialise(
    pool: &Pool,
    config: &PostgresConfig,
    identity: Option<Identity>,
) -> Result<Identity> {
    let asked = config.asked_lanes()?;
    let mut lease = pool.lease("open").await?;
    check_server(&mut lease).await?;
    let ready = match read_meta(&mut lease, config).await? {
        Some((format, meta)) if format == newest() => Some(meta),
        Some((format, _)) if format > newest() => return Err(too_new(format)),
        Some(_) | None => None,
    };
    let meta = match ready {
        Some(meta) => meta,
        None => {
            let new = identity.unwrap_or_else(|| Identity {
                log_id: LogId::random(),
                lanes: asked.unwrap_or(Lanes::ONE),
            });
            migrate(&mut lease, config, new).await?
        }
    };
    set_gin(&mut lease, config).await?;
    match asked {
        Some(asked) if asked != meta.lanes => Err(refused(format!(
            "`lanes` is {}, but the log was initialised with {} lanes, which cannot be changed; \
             set it to {} or leave it out",
            asked.get(),
            meta.lanes.get(),
            meta.lanes.get()
        ))),
        _ => Ok(meta),
    }
}

/// Makes or drops the index on documents, if it is not as the settings have it.
async fn set_gin(lease: &mut Lease, config: &PostgresConfig) -> Result<()> {
    let schema = &config.schema;
    if has_table(lease, schema, "entities_doc").await? == config.gin {
        return Ok(());
    }
    let change = if config.gin {
        format!(
            "CREATE INDEX IF NOT EXISTS entities_doc ON {schema}.entities USING gin (doc jsonb_path_ops)"
        )
    } else {
        format!("DROP INDEX IF EXISTS {schema}.entities_doc")
    };
    begin_alone(lease, schema).await?;
    run(lease, &change).await?;
    lease.commit().await.map_err(unready)
}

fn newest() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

fn too_new(format: i32) -> Error {
    refused(format!(
        "the tables have format {format}, made by a newer version of stategate; this one knows formats up to {}",
        newest()
    ))
}

fn unready(failure: Failure) -> Error {
    let error = failure.of_read("open");
    match error.kind() {
        // Tables that are not there or not ours, and statements refused for lack of a right.
        Kind::Corrupt | Kind::Rejected => refused(error.to_string()),
        _ => error,
    }
}

async fn run(lease: &mut Lease, sql: &str) -> Result<()> {
    lease.run(sql).await.map_err(unready)
}

/// An acknowledged write is on stable storage only under these settings.
async fn check_server(lease: &mut Lease) -> Result<()> {
    const SQL: &str = "SELECT current_setting('server_version_num')::int4, \
                       current_setting('server_encoding'), \
                       pg_is_in_recovery(), \
                       current_setting('fsync'), \
                       current_setting('full_page_writes'), \
                       current_setting('synchronous_commit')";
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
        return Err(Error::new(Kind::Unavailable, "open")
            .because("the server is a standby; `addr` must lead to the primary"));
    }
    for (column, setting) in [
        (3, "fsync"),
        (4, "full_page_writes"),
        (5, "synchronous_commit"),
    ] {
        let value: &str = columns.get(column)?;
        if value == "off" {
            return Err(refused(format!(
                "the server runs with {setting}=off, so a crash would lose acknowledged writes; set {setting}=on"
            )));
        }
    }
    Ok(())
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

/// Makes the tables or brings them up to date, alone: replicas that start at once wait for each other
/// and find it done.
async fn migrate(lease: &mut Lease, config: &PostgresConfig, new: Identity) -> Result<Identity> {
    let schema = &config.schema;
    begin_alone(lease, schema).await?;
    let found = read_meta(lease, config).await?;
    let format = found.map_or(0, |(format, _)| format);
    if format > newest() {
        return Err(too_new(format));
    }
    run(lease, &format!("SET LOCAL search_path TO {schema}")).await?;
    if found.is_none() {
        make_schema(lease, schema).await?;
    }
    let done = usize::try_from(format).unwrap_or(0);
    for migration in MIGRATIONS.iter().skip(done) {
        run(lease, migration).await?;
    }
    let meta = match found {
        Some((_, meta)) => {
            run(lease, &format!("UPDATE meta SET format = {}", newest())).await?;
            meta
        }
        None => {
            let parameters: &[(&(dyn ToSql + Sync), Type)] = &[
                (&newest(), Type::INT4),
                (&new.log_id.0, Type::UUID),
                (&i16::from(new.lanes.get()), Type::INT2),
            ];
            let sql = "WITH made AS ( \
                         INSERT INTO meta (format, log_id, lanes) VALUES ($1, $2, $3) \
                       ) INSERT INTO lanes (lane) SELECT generate_series(0, $3 - 1)";
            lease.query_once(sql, parameters).await.map_err(unready)?;
            new
        }
    };
    lease.commit().await.map_err(unready)?;
    Ok(meta)
}

async fn begin_alone(lease: &mut Lease, schema: &str) -> Result<()> {
    lease.begin(Transaction::Write).await.map_err(unready)?;
    run(
        lease,
        &format!(
            "SET LOCAL lock_timeout = '{MIGRATION_WAIT}'; SET LOCAL statement_timeout = '{MIGRATION_WAIT}'; \
             SELECT pg_advisory_xact_lock(hashtextextended('stategate.{schema}', 0))"
        ),
    )
    .await
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
