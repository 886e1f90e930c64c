//! What the acknowledgement of a write rests on beside what each commit asks for itself: settings that a
//! reload of the server may change under a gateway that runs. They are looked at when it starts, where some
//! keep it from starting, and again from time to time, where they are told to whoever operates it.

use std::{
    collections::BTreeSet,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{task::JoinSet, time::sleep};
use tokio_postgres::types::{ToSql, Type};

use crate::ended::Ended;

use super::{
    pool::{Lease, Pool, Purpose, Unanswered},
    rows::Columns,
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);
/// How often the log is reminded of what stays.
const REMIND: Duration = Duration::from_secs(60);

/// What weakens an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weakness {
    /// Nothing is synced.
    Fsync,
    /// A page that was being written when the machine failed is not made whole.
    FullPageWrites,
    /// A sync that failed is tried again, though the system may have dropped what it was for.
    DataSyncRetry,
    /// Tables are emptied after a crash.
    Unlogged,
    /// Standbys were waited for when the gateway started, and are not any more.
    NoStandbys,
}

/// All of them.
const ALL: [Weakness; 5] = [
    Weakness::Fsync,
    Weakness::FullPageWrites,
    Weakness::DataSyncRetry,
    Weakness::Unlogged,
    Weakness::NoStandbys,
];

impl Weakness {
    /// Whether a gateway does not start with it.
    pub(super) fn is_refused(self) -> bool {
        match self {
            Self::Fsync | Self::FullPageWrites | Self::Unlogged => true,
            Self::DataSyncRetry | Self::NoStandbys => false,
        }
    }

    /// Its name among the metrics.
    fn label(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::FullPageWrites => "full_page_writes",
            Self::DataSyncRetry => "data_sync_retry",
            Self::Unlogged => "unlogged_tables",
            Self::NoStandbys => "synchronous_standby_names",
        }
    }
}

/// What it is, and what to do.
impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fsync => "the server runs with fsync=off, so a crash would lose acknowledged writes; set fsync=on",
            Self::FullPageWrites => {
                "the server runs with full_page_writes=off, so a crash would lose acknowledged writes; set \
                 full_page_writes=on"
            }
            Self::DataSyncRetry => {
                "the server runs with data_sync_retry=on, so a failing disk may lose acknowledged writes; set \
                 data_sync_retry=off"
            }
            Self::Unlogged => {
                "tables of the log are unlogged, so a crash would empty them; ALTER TABLE … SET LOGGED"
            }
            Self::NoStandbys => {
                "synchronous_standby_names is empty and was not at the start, so an acknowledged write may be on no \
                 standby; set it again"
            }
        })
    }
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Found {
    pub(super) weaknesses: BTreeSet<Weakness>,
    has_standbys: bool,
}

/// Looks at the server.
pub(super) async fn look(lease: &mut Lease, schema: &str) -> Result<Found, Unanswered> {
    const SQL: &str = "SELECT current_setting('fsync') = 'off', \
                       current_setting('full_page_writes') = 'off', \
                       coalesce(current_setting('data_sync_retry', true), 'off') = 'on', \
                       EXISTS ( \
                         SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                         WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relpersistence = 'u' \
                           AND c.relname IN ('meta', 'lanes', 'events', 'entities', 'idempotency') \
                       ), \
                       current_setting('synchronous_standby_names') <> ''";
    let parameters: &[(&(dyn ToSql + Sync), Type)] = &[(&schema, Type::TEXT)];
    let rows = lease.query_once(SQL, parameters).await?;
    let mut found = Found::default();
    if let Some(row) = rows.first() {
        let columns = Columns {
            row,
            operation: "open",
        };
        let is = |column| columns.get::<bool>(column).map_err(Unanswered::Unsent);
        for (column, weakness) in [
            Weakness::Fsync,
            Weakness::FullPageWrites,
            Weakness::DataSyncRetry,
            Weakness::Unlogged,
        ]
        .into_iter()
        .enumerate()
        {
            if is(column)? {
                found.weaknesses.insert(weakness);
            }
        }
        found.has_standbys = is(4)?;
    }
    Ok(found)
}

/// Looks again from time to time.
pub(super) struct Watch {
    seen: Arc<Mutex<BTreeSet<Weakness>>>,
    task: Mutex<JoinSet<()>>,
}

impl Watch {
    pub(super) fn start(pool: &Arc<Pool>, schema: &str, at_start: Found, ended: &Ended) -> Self {
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let mut task = JoinSet::new();
        let watching = watch(
            Arc::clone(pool),
            schema.to_owned(),
            at_start,
            Arc::clone(&seen),
        );
        let watched = ended.watch("watch of the server's settings");
        task.spawn(async move {
            let _watched = watched;
            watching.await;
        });
        Self {
            seen,
            task: Mutex::new(task),
        }
    }

    /// What the last look found.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().iter().map(ToString::to_string).collect()
    }

    pub(super) async fn close(&self) {
        let mut task = std::mem::take(&mut *self.task.lock());
        task.shutdown().await;
    }
}

async fn watch(
    pool: Arc<Pool>,
    schema: String,
    at_start: Found,
    seen: Arc<Mutex<BTreeSet<Weakness>>>,
) {
    let mut had_standbys = at_start.has_standbys;
    let mut found = Some(at_start);
    let mut told: Option<Instant> = None;
    loop {
        if let Some(mut found) = found.take() {
            had_standbys |= found.has_standbys;
            if had_standbys && !found.has_standbys {
                found.weaknesses.insert(Weakness::NoStandbys);
            }
            let before = std::mem::replace(&mut *seen.lock(), found.weaknesses.clone());
            let remind = told.is_none_or(|told| told.elapsed() >= REMIND);
            for weakness in ALL {
                let (is, was) = (
                    found.weaknesses.contains(&weakness),
                    before.contains(&weakness),
                );
                stategate_metrics::STORAGE_WEAKENED
                    .with([weakness.label()])
                    .set(f64::from(u8::from(is)));
                if is && (!was || remind) {
                    told = Some(Instant::now());
                    tracing::error!("{weakness}");
                }
                if was && !is {
                    tracing::info!(
                        setting = weakness.label(),
                        "acknowledged writes are as safe as before"
                    );
                }
            }
        }
        sleep(EVERY).await;
        #[cfg(feature = "faults")]
        stategate_faults::pass("postgres-watch");
        // While the server is away others say so.
        if let Ok(mut lease) = pool.lease("look", Purpose::Read).await {
            found = look(&mut lease, &schema).await.ok();
        }
    }
}
