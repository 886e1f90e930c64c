//! The wire: the generated code of `proto/stategate`, the codec under it, and the way between messages
//! and headers on one side and typed calls on the other.
//!
//! Nothing here decides; it parses at the edge into the model's types and prints them again.

pub mod answers;
pub mod codec;
pub mod compression;
pub mod context;
pub mod convert;
pub mod documents;
pub mod event;
pub mod frames;
mod framing;
pub mod headers;
mod json;
pub mod requests;
pub mod status;
mod structs;

pub use self::{
    event::{Encoded, EventPage, Transacted, decode_event, encode_event},
    status::status,
    structs::Struct,
};

/// Messages and clients of package `stategate`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/messages/stategate.rs"));
}

/// Server traits of package `stategate`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
pub mod server {
    include!(concat!(env!("OUT_DIR"), "/servers/stategate.rs"));
}

/// The descriptors of everything above with their comments and HTTP annotations, encoded as a
/// `FileDescriptorSet`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
