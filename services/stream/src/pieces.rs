//! Large events are sent in pieces, each a copy, so that for a client that does not read a piece is held and not
//! the event. The rest stays where it can be dropped and had again: in the tail, or in a page of the storage.

use std::hash::{DefaultHasher, Hasher as _};

use stategate_api::{Delivery, answer::Pass};
use stategate_model::Position;

/// Events of more bytes are sent in pieces.
pub(crate) const LARGE: usize = 64 << 10;

/// An event of which a piece was sent, and not all.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    /// What lets the rest of it follow.
    pub(crate) pass: Pass,
    length: usize,
    digest: Option<u64>,
    sent: usize,
}

impl Begun {
    /// An event of which nothing was sent yet; `None` for what is none. `digest` is needed where its encoding is
    /// not this process's own.
    pub(crate) fn new(delivery: &Delivery, digest: Option<u64>) -> Option<Self> {
        Some(Self {
            pass: delivery.pass()?,
            length: delivery.encoded().len(),
            digest,
            sent: 0,
        })
    }

    /// The next piece, of `most` bytes at most.
    pub(crate) fn piece(&mut self, delivery: &Delivery, most: usize) -> Delivery {
        let piece = delivery.piece(self.sent, most);
        let rest = self.length.saturating_sub(self.sent);
        self.sent += rest.min(most);
        piece
    }

    /// From now on the rest comes from an encoding of this process's own, which was compared once.
    pub(crate) fn verified(&mut self) {
        self.digest = None;
    }

    /// Whether the last piece was taken.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent >= self.length
    }

    /// Whether these are the bytes of which some were sent.
    pub(crate) fn goes_on_with(&self, delivery: &Delivery) -> bool {
        let id = delivery.pass().map(|pass| pass.id());
        let encoded = delivery.encoded();
        id == Some(self.pass.id())
            && encoded.len() == self.length
            && self
                .digest
                .is_none_or(|expected| expected == digest(encoded))
    }
}

/// Tells encodings of one event apart.
pub(crate) fn digest(encoded: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(encoded);
    hasher.finish()
}

/// The position before this one.
pub(crate) fn before(position: Position) -> Position {
    Position::new(position.get().saturating_sub(1))
}
