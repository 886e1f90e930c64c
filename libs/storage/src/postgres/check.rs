//! Whether the database can do its work at the moment.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Appended, Error, Kind, Result, Trouble, Work};

use super::{
    pool::{Pool, Purpose, Statement},
    rows::Columns,
};

const OPERATION: &str = "check";

/// What is asked, and what is known from appends.
#[derive(Debug)]
pub(super) struct Check {
    /// Reads a table of the log, and whether the server takes writes.
    look: Statement,
    /// Writes what is there already.
    attempt: String,
    /// Whether the last append found no room: the server takes writes then, until it has to store them.
    is_full: AtomicBool,
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
            attempt: format!("UPDATE {schema}.meta SET format = format"),
            is_full: AtomicBool::new(false),
        }
    }

    /// Takes in what became of an append.
    pub(super) fn note(&self, appended: &Result<Appended>) {
        let is_full = match appended {
            Ok(_) => false,
            Err(error) if error.trouble() == Some(Trouble::Full) => true,
            Err(_) => return,
        };
        self.is_full.store(is_full, Ordering::Relaxed);
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
            return Err(Error::new(Kind::Unavailable, OPERATION)
                .with_trouble(Some(Trouble::ReadOnly))
                .because("the server takes no writes: it is a standby, or default_transaction_read_only is on"));
        }
        if self.is_full.load(Ordering::Relaxed) {
            lease
                .run(&self.attempt)
                .await
                .map_err(|failure| failure.of_read(OPERATION))?;
            self.is_full.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}
