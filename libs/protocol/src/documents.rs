//! Requests as policies see them: the proto3 JSON of the decoded message (contract §7), without the message's
//! `version`, which is ignored on input.
//!
//! Written by hand, member by member, for it is made on nearly every call; a test compares it with what
//! a generic printer of proto3 JSON makes of the same message.

use stategate_model::EventId;
use stategate_policy::{Document, Message, int64, names};

use crate::{Struct, pb};

names! {
    AFTER = "after";
    AT_TIME = "atTime";
    AT_VERSION = "atVersion";
    CONSUMER_GROUP = "consumerGroup";
    DATA = "data";
    DEL = "del";
    DOMAIN = "domain";
    EDIT = "edit";
    FACETS = "facets";
    FIELD = "field";
    FROM_BEGINNING = "fromBeginning";
    HIGHLIGHT = "highlight";
    ID = "id";
    IF_ABSENT = "ifAbsent";
    IF_VERSION = "ifVersion";
    KEY = "key";
    LIMIT = "limit";
    MAX = "max";
    METHODS = "methods";
    MIN = "min";
    NAME = "name";
    OFFSET = "offset";
    OPERATIONS = "operations";
    PAGE_TOKEN = "pageToken";
    PROGRESS = "progress";
    QUERY_STRING = "queryString";
    REVERSE = "reverse";
    REVERT = "revert";
    SET = "set";
    SINCE = "since";
    SORT = "sort";
    TEXT = "text";
    TYPE = "type";
    VALUES = "values";
}

/// The request of a Set.
pub fn set(message: &pb::Entity) -> Document {
    entity(message, &message.domain).done()
}

/// The request of an Edit.
pub fn edit(message: &pb::Entity) -> Document {
    set(message)
}

/// The request of a Revert.
pub fn revert(message: &pb::EventRef) -> Document {
    event_ref(message, &message.domain).done()
}

/// The request of a Del.
pub fn del(message: &pb::EntityRef) -> Document {
    entity_ref(message, &message.domain).done()
}

/// The request of a Transact. Operations without a domain have that of the transaction.
pub fn transact(message: &pb::TransactRequest) -> Document {
    use pb::operation::{Operation as Wire, Precondition};
    let operations = message.operations.iter().map(|operation| {
        let of = Message::new()
            .text(NAME, &operation.name)
            .optional(DATA, operation.data.as_ref().map(values));
        let of = match &operation.precondition {
            None => of,
            Some(Precondition::IfVersion(version)) => of.member(IF_VERSION, int64(*version)),
            Some(Precondition::IfAbsent(absent)) => of.member(IF_ABSENT, *absent),
        };
        let name = match &operation.operation {
            None => return of.done(),
            Some(Wire::Set(_)) => SET,
            Some(Wire::Edit(_)) => EDIT,
            Some(Wire::Revert(_)) => REVERT,
            Some(Wire::Del(_)) => DEL,
        };
        of.member(name, stands_for(operation, &message.domain))
            .done()
    });
    Message::new()
        .text(DOMAIN, &message.domain)
        .list(OPERATIONS, operations)
        .done()
}

/// The operations of a Transact, each as the request of the call that it stands for. One that is none is an empty
/// document; it is refused whatever a policy says.
pub fn operations(message: &pb::TransactRequest) -> Vec<Document> {
    let operations = message.operations.iter();
    operations
        .map(|operation| stands_for(operation, &message.domain).done())
        .collect()
}

fn stands_for(operation: &pb::Operation, domain: &str) -> Message {
    use pb::operation::Operation as Wire;
    let within = |own: &'_ str| match own {
        "" => domain.to_owned(),
        own => own.to_owned(),
    };
    match &operation.operation {
        None => Message::new(),
        Some(Wire::Set(message) | Wire::Edit(message)) => entity(message, &within(&message.domain)),
        Some(Wire::Revert(message)) => event_ref(message, &within(&message.domain)),
        Some(Wire::Del(message)) => entity_ref(message, &within(&message.domain)),
    }
}

/// The request of a Get.
pub fn get(message: &pb::EntityRef) -> Document {
    entity_ref(message, &message.domain).done()
}

/// The request of a search of entities.
pub fn search(message: &pb::SearchEntityOpts) -> Document {
    Message::new()
        .text(DOMAIN, &message.domain)
        .text(TYPE, &message.r#type)
        .text(QUERY_STRING, &message.query_string)
        .int32(LIMIT, message.limit)
        .int32(OFFSET, message.offset)
        .optional(SORT, message.sort.as_ref().map(sort))
        .text(PAGE_TOKEN, &message.page_token)
        .text(TEXT, &message.text)
        .list(FACETS, texts(&message.facets))
        .flag(HIGHLIGHT, message.highlight)
        .text(KEY, &message.key)
        .done()
}

/// The request of a search of events.
pub fn search_events(message: &pb::SearchEventOpts) -> Document {
    Message::new()
        .text(DOMAIN, &message.domain)
        .text(TYPE, &message.r#type)
        .text(QUERY_STRING, &message.query_string)
        .int64(MIN, message.min)
        .int64(MAX, message.max)
        .int32(LIMIT, message.limit)
        .int32(OFFSET, message.offset)
        .optional(SORT, message.sort.as_ref().map(sort))
        .text(PAGE_TOKEN, &message.page_token)
        .text(KEY, &message.key)
        .done()
}

/// The request of a Get of an event.
pub fn get_event(message: &pb::EventRef) -> Document {
    event_ref(message, &message.domain).done()
}

/// The request of a Stream.
pub fn subscribe(message: &pb::StreamOpts) -> Document {
    use pb::stream_opts::Start;
    let of = Message::new()
        .text(DOMAIN, &message.domain)
        .text(TYPE, &message.r#type)
        .text(CONSUMER_GROUP, &message.consumer_group)
        .text(KEY, &message.key)
        .text(QUERY_STRING, &message.query_string)
        .list(METHODS, texts(&message.methods))
        .flag(PROGRESS, message.progress);
    let of = match &message.start {
        None => of,
        Some(Start::FromBeginning(from_beginning)) => of.member(FROM_BEGINNING, *from_beginning),
        Some(Start::After(token)) => of.member(AFTER, token.as_str()),
        Some(Start::Since(time)) => of.member(SINCE, int64(*time)),
    };
    of.done()
}

fn entity(message: &pb::Entity, domain: &str) -> Message {
    Message::new()
        .text(DOMAIN, domain)
        .text(TYPE, &message.r#type)
        .text(KEY, &message.key)
        .optional(VALUES, message.values.as_ref().map(values))
}

fn entity_ref(message: &pb::EntityRef, domain: &str) -> Message {
    use pb::entity_ref::At;
    let of = Message::new()
        .text(DOMAIN, domain)
        .text(TYPE, &message.r#type)
        .text(KEY, &message.key);
    match message.at {
        None => of,
        Some(At::AtVersion(version)) => of.member(AT_VERSION, int64(version)),
        Some(At::AtTime(time)) => of.member(AT_TIME, int64(time)),
    }
}

fn event_ref(message: &pb::EventRef, domain: &str) -> Message {
    Message::new()
        .text(DOMAIN, domain)
        .text(TYPE, &message.r#type)
        .text(KEY, &message.key)
        .text(ID, &id(&message.id))
}

/// An id as it is compared: it is taken in any case.
fn id(text: &str) -> std::borrow::Cow<'_, str> {
    match EventId::parse(text) {
        Ok(id) => id.to_string().into(),
        Err(_) => text.into(),
    }
}

fn sort(message: &pb::Sort) -> Document {
    Message::new()
        .text(FIELD, &message.field)
        .flag(REVERSE, message.reverse)
        .done()
}

fn values(values: &Struct) -> Document {
    match values {
        Struct::Tree(object) => Document::from(object),
        Struct::Wire(_) => Document::from(&values.clone().into_object()),
    }
}

fn texts(texts: &[String]) -> impl ExactSizeIterator<Item = Document> {
    texts.iter().map(|text| Document::from(text.as_str()))
}
