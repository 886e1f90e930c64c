//! Names of the metadata that the contract gives a meaning; HTTP headers of the same names.

pub use stategate_api::problem::{ACCEPT_ENCODING, ACCEPTED_ENCODINGS, SERVICE};

/// A token: where a write was put, a read was made, a stream began.
pub const POSITION: &str = "stategate-position";
/// The version of the entity answered, in quotes.
pub const ETAG: &str = "etag";
/// Versions that an entity must be at.
pub const IF_MATCH: &str = "if-match";
/// `*`: the entity must not exist.
pub const IF_NONE_MATCH: &str = "if-none-match";
/// Makes a retried request recognisable.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// `true` when the answer is that of an earlier copy of the request.
pub const REPLAYED: &str = "stategate-replayed";
/// A token that a read must be at least as new as.
pub const MIN_POSITION: &str = "stategate-min-position";
/// The W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// How the messages of a request or an answer are compressed.
pub const ENCODING: &str = "grpc-encoding";
