//! The frame of a gRPC message: a flag, a length, and the message.

use bytes::Buf as _;

/// Bytes of the flag and the length before each message.
pub(crate) const HEADER_BYTES: usize = 5;

/// The messages of a piece of a body, each with its header; `None` if it is not made of whole ones.
pub(crate) fn whole_messages(mut data: &[u8]) -> Option<Vec<&[u8]>> {
    let mut messages = Vec::new();
    while !data.is_empty() {
        let (header, _) = data.split_at_checked(HEADER_BYTES)?;
        let length = usize::try_from((&header[1..]).get_u32()).ok()?;
        let (message, rest) = data.split_at_checked(HEADER_BYTES.checked_add(length)?)?;
        messages.push(message);
        data = rest;
    }
    Some(messages)
}
