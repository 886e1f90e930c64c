//! How long a call's client waits.

use tokio::time::Instant;

/// When it stops waiting, among the request's extensions. The call itself is ended then, so this is for
/// those who would rather stop a little earlier, or not begin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(pub(crate) Instant);
