//! PostgreSQL: a server of the run's own, and the floors by tokio-postgres. Statements are prepared, and a
//! transaction is one round trip.

mod inserts;
mod rows;
mod schema;
mod server;

pub(super) use self::{schema::Schema, server::Server};

pub(super) const PLAIN_CLIENTS: &str = "a connection each; each waits its turn for the head's row";

pub(super) const DURABILITY: &str = "fsync, full_page_writes and synchronous_commit are on, and a Set took longer than the quickest \
    sync of the disk (checked with set-one); every acknowledged event was there at the end, without a hole";
