//! A call of any method, as a value.

use prost::Message as _;
use stategate_protocol::pb;
use stategate_tests::Ask;
use tonic::Status;

/// A call and its message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Set(pb::Entity),
    Edit(pb::Entity),
    Revert(pb::EventRef),
    Del(pb::EntityRef),
    Transact(pb::TransactRequest),
    Get(pb::EntityRef),
    Search(pb::SearchEntityOpts),
    Event(pb::EventRef),
    History(pb::SearchEventOpts),
    Stream(pb::StreamOpts),
}

impl Call {
    /// The full name of its method.
    pub(crate) fn path(&self) -> &'static str {
        match self {
            Self::Set(_) => "/stategate.EntityService/Set",
            Self::Edit(_) => "/stategate.EntityService/Edit",
            Self::Revert(_) => "/stategate.EntityService/Revert",
            Self::Del(_) => "/stategate.EntityService/Del",
            Self::Transact(_) => "/stategate.EntityService/Transact",
            Self::Get(_) => "/stategate.EntityService/Get",
            Self::Search(_) => "/stategate.EntityService/Search",
            Self::Event(_) => "/stategate.EventService/Get",
            Self::History(_) => "/stategate.EventService/Search",
            Self::Stream(_) => "/stategate.EventService/Stream",
        }
    }

    /// The name of its message.
    pub(crate) fn message(&self) -> &'static str {
        match self {
            Self::Set(_) | Self::Edit(_) => "Entity",
            Self::Revert(_) | Self::Event(_) => "EventRef",
            Self::Del(_) | Self::Get(_) => "EntityRef",
            Self::Transact(_) => "TransactRequest",
            Self::Search(_) => "SearchEntityOpts",
            Self::History(_) => "SearchEventOpts",
            Self::Stream(_) => "StreamOpts",
        }
    }

    /// The bytes of its message.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        match self {
            Self::Set(message) | Self::Edit(message) => message.encode_to_vec(),
            Self::Revert(message) | Self::Event(message) => message.encode_to_vec(),
            Self::Del(message) | Self::Get(message) => message.encode_to_vec(),
            Self::Transact(message) => message.encode_to_vec(),
            Self::Search(message) => message.encode_to_vec(),
            Self::History(message) => message.encode_to_vec(),
            Self::Stream(message) => message.encode_to_vec(),
        }
    }

    /// Makes the call. A stream is ended as soon as it has begun.
    pub(crate) async fn send(&self, ask: &Ask) -> Result<(), Status> {
        send(ask, self.path(), &self.encoded()).await
    }
}

/// Makes a call with bytes for a message.
pub(crate) async fn send(ask: &Ask, path: &str, message: &[u8]) -> Result<(), Status> {
    match path {
        "/stategate.EventService/Stream" => ask.raw_stream(path, message).await.map(drop),
        _ => ask.raw(path, message).await.map(drop),
    }
}
