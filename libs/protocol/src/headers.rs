//! Names of the metadata that the contract gives a meaning; HTTP headers of the same names.

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
/// The service that a method lives in, when it was asked of another.
pub const SERVICE: &str = "service";
/// How the messages of a request or an answer are compressed.
pub const ENCODING: &str = "grpc-encoding";
/// What a peer can decompress, separated by commas.
pub const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
/// What requests may be compressed with.
pub const ACCEPTED_ENCODINGS: &str = "identity,gzip,zstd";
