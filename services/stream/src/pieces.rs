//! Large events are sent in pieces, each a copy, so that for a client that does not read a piece is held and not
//! the event. The rest stays where it can be dropped and had again: in the tail, or in a page of the storage.

use std::hash::{DefaultHasher, Hasher as _};

use stategate_model::{Lane, Position};
use stategate_protocol::Encoded;
use stategate_server::EventPart;

/// Events of more bytes are sent in pieces.
pub(crate) const LARGE: usize = 64 << 10;

/// An event of which a piece was sent, and not all.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    pub(crate) lane: Lane,
    pub(crate) position: Position,
    length: usize,
    digest: Option<u64>,
    sent: usize,
}

impl Begun {
    /// An event of which nothing was sent yet. `digest` is needed where its encoding is not this process's own.
    pub(crate) fn new(
        lane: Lane,
        position: Position,
        encoded: &Encoded,
        digest: Option<u64>,
    ) -> Self {
        Self {
            lane,
            position,
            length: encoded.0.len(),
            digest,
            sent: 0,
        }
    }

    /// The next piece, of `most` bytes at most.
    pub(crate) fn piece(&mut self, encoded: &Encoded, most: usize) -> EventPart {
        let rest = encoded.0.get(self.sent..).unwrap_or_default();
        let bytes = rest.get(..most).unwrap_or(rest).to_vec();
        let is_first = self.sent == 0;
        self.sent += bytes.len();
        match is_first {
            true => EventPart::First {
                length: self.length,
                bytes: bytes.into(),
            },
            false => EventPart::More(bytes.into()),
        }
    }

    /// Whether the last piece was taken.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent >= self.length
    }

    /// Whether these are the bytes of which some were sent.
    pub(crate) fn goes_on_with(&self, lane: Lane, position: Position, encoded: &Encoded) -> bool {
        (lane, position, encoded.0.len()) == (self.lane, self.position, self.length)
            && self
                .digest
                .is_none_or(|expected| expected == digest(encoded))
    }
}

/// Tells encodings of one event apart.
pub(crate) fn digest(encoded: &Encoded) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(&encoded.0);
    hasher.finish()
}

/// The position before this one.
pub(crate) fn before(position: Position) -> Position {
    Position::new(position.get().saturating_sub(1))
}
