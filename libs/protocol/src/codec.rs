//! The codec under every RPC: prost's, answering bytes that are no message, or nested too deep for
//! the decoder, as the caller's mistake that they are (contract §4).

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use stategate_model::Invalid;
use tonic::{
    Status,
    codec::{DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::status;

/// Encodes `E` and decodes `D`.
#[derive(Debug, Clone)]
pub struct Codec<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for Codec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> tonic::codec::Codec for Codec<E, D>
where
    E: Message + Send + 'static,
    D: Message + Default + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = Half<E>;
    type Decoder = Half<D>;

    fn encoder(&mut self) -> Half<E> {
        Half(PhantomData)
    }

    fn decoder(&mut self) -> Half<D> {
        Half(PhantomData)
    }
}

/// One direction of the codec.
#[derive(Debug, Clone)]
pub struct Half<T>(PhantomData<T>);

impl<T: Message> Encoder for Half<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // The buffer grows as needed, so that encoding cannot run out of room.
        item.encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl<T: Message + Default> Decoder for Half<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        let decoded = T::decode(&mut *buffer);
        decoded.map(Some).map_err(|error| {
            buffer.advance(buffer.remaining());
            // prost names the message and field it stopped at, which is what the caller needs.
            let problem = format!("is not a valid protobuf of this method's request: {error}");
            status(Invalid::new("request", problem).into())
        })
    }
}
