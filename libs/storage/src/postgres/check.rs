//! Whether the database can do its work at the moment.

use std::sync::atomic::{AtomicU64, Ordering};

use stategate_model::limits;

use crate::{Appended, Batch, Error, ErrorKind, Result, Trouble, Work};

use super::{
    pool::{Lease, Pool, Purpose, Statement, Transaction},
    rows::Columns,
};

const OPERATION: &str = "check";

/// What is asked, and what is known from appends.
#[derive(Debug)]
pub(super) struct Check {
    /// Reads a table of the log, and whether the server takes writes.
    look: Statement,
    /// Adds an event that is not left there, of so many times 32 bytes.
    attempt: [String; 2],
    /// 0 while appends go well. Otherwise how many bytes the last one had, which found no room: the server
    /// takes writes then, until it has to store them, and small ones for longer than large ones.
    needs: AtomicU64,
}

impl Check {
    pub(super) fn new(schema: &str) -> Self {
        Self {
            look: Statement::new(
                format!(
                    "SELECT count(*), current_setting('transaction_read_only')::boolean FROM {schema}.meta"
                ),
                &[],
            ),
            // Values of random bytes, which no compression makes smaller.
            attempt: [
                format!(
                    "INSERT INTO {schema}.events \
                       (lane, position, id, domain, type, key, version, time, method, vals) \
                     SELECT -1, (random() * 1e15)::bigint, gen_random_uuid(), '', '', gen_random_uuid()::text, 0, 0, 0, \
                       (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, "
                ),
                "))".to_owned(),
            ],
            needs: AtomicU64::new(0),
        }
    }

    /// Takes in what became of an append.
    pub(super) fn note(&self, batch: &Batch, appended: &Result<Appended>) {
        let needs = match appended {
            Ok(Appended::Done) => 0,
            Err(error) if error.trouble() == Some(Trouble::Full) => {
                let size: usize = batch.events.iter().map(stategate_model::Event::size).sum();
                size.clamp(1, limits::BATCH_BYTES) as u64
            }
            // Nothing was stored, so nothing is known of the room there is.
            Ok(Appended::HeadMoved) | Err(_) => return,
        };
        self.needs.store(needs, Ordering::Relaxed);
    }

    pub(super) async fn ask(&self, pool: &Pool, work: Work) -> Result<()> {
        let mut lease = pool.lease(OPERATION, Purpose::Read).await?;
        let rows = lease.query(&self.look, &[]).await;
        let rows = rows.map_err(|failure| failure.of_read(OPERATION))?;
        if work == Work::Read {
            return Ok(());
        }
        let is_read_only = match rows.first() {
            Some(row) => Columns {
                row,
                operation: OPERATION,
            }
            .get(1)?,
            None => false,
        };
        if is_read_only {
            return Err(Error::new(ErrorKind::Unavailable, OPERATION)
                .with_trouble(Some(Trouble::ReadOnly))
                .because("the server takes no writes: it is a standby, or default_transaction_read_only is on"));
        }
        let needs = self.needs.load(Ordering::Relaxed);
        if needs > 0 {
            self.try_to_store(&mut lease, needs).await?;
            self.needs.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether so many bytes can be stored: as many as an append could not be.
    async fn try_to_store(&self, lease: &mut Lease, bytes: u64) -> Result<()> {
        let [before, after] = &self.attempt;
        let attempt = format!("{before}{}{after}", bytes.div_ceil(32));
        let begun = lease.begin(Transaction::Change).await;
        begun.map_err(|failure| failure.of_read(OPERATION))?;
        let stored = lease.run(&attempt).await;
        let undone = lease.roll_back().await;
        stored
            .and(undone)
            .map_err(|failure| failure.of_read(OPERATION))
    }
}
