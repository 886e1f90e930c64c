//! The wire: what published v0.7 clients send and read, byte by byte, and what an ingress and an
//! operator ask (contract §§2, 8).

use std::collections::BTreeMap;

use prost::Message as _;
use prost_types::{FileDescriptorSet, field_descriptor_proto::Type};
use stategate_protocol::DESCRIPTORS;
use stategate_tests::{
    Ask, Form, Gateway, Options, Role,
    ask::{Ingress, etag, refused, values, values_of},
};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::in_every_form;

const SET: &str = "/stategate.EntityService/Set";
const EDIT: &str = "/stategate.EntityService/Edit";
const REVERT: &str = "/stategate.EntityService/Revert";
const DEL: &str = "/stategate.EntityService/Del";
const GET: &str = "/stategate.EntityService/Get";
const SEARCH: &str = "/stategate.EntityService/Search";
const GET_EVENT: &str = "/stategate.EventService/Get";
const SEARCH_EVENTS: &str = "/stategate.EventService/Search";
const STREAM: &str = "/stategate.EventService/Stream";

// Assembled by hand, by the numbers of the published schema and by nothing of this project.

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
    out
}

fn bytes(number: u64, value: &[u8]) -> Vec<u8> {
    let length = u64::try_from(value.len()).unwrap();
    [varint(number << 3 | 2), varint(length), value.to_vec()].concat()
}

fn text(number: u64, value: &str) -> Vec<u8> {
    bytes(number, value.as_bytes())
}

fn integer(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

/// A `google.protobuf.Struct` with one string.
fn structure(key: &str, value: &str) -> Vec<u8> {
    bytes(1, &[text(1, key), bytes(2, &text(3, value))].concat())
}

fn name() -> Vec<u8> {
    [text(1, "acme"), text(2, "user"), text(3, "ada")].concat()
}

fn entity(key: &str, value: &str) -> Vec<u8> {
    [name(), bytes(4, &structure(key, value))].concat()
}

/// A field as it was read.
#[derive(Debug, Clone, PartialEq)]
enum Field {
    Integer(u64),
    Bytes(Vec<u8>),
}

/// The fields of a message by their numbers, in the order of their arrival.
fn fields(mut message: &[u8]) -> BTreeMap<u64, Vec<Field>> {
    let mut fields = BTreeMap::<u64, Vec<Field>>::new();
    let number = |message: &mut &[u8]| {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = message[0];
            *message = &message[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
        }
        panic!("no number");
    };
    while !message.is_empty() {
        let tag = number(&mut message);
        let field = match tag & 7 {
            0 => Field::Integer(number(&mut message)),
            2 => {
                let length = usize::try_from(number(&mut message)).unwrap();
                let (value, rest) = message.split_at(length);
                message = rest;
                Field::Bytes(value.to_vec())
            }
            other => panic!("wire type {other}"),
        };
        fields.entry(tag >> 3).or_default().push(field);
    }
    fields
}

fn only(fields: &BTreeMap<u64, Vec<Field>>, number: u64) -> Vec<u8> {
    match fields.get(&number).map(Vec::as_slice) {
        Some([Field::Bytes(value)]) => value.clone(),
        other => panic!("field {number} is {other:?}"),
    }
}

fn number(fields: &BTreeMap<u64, Vec<Field>>, number: u64) -> u64 {
    match fields.get(&number).map(Vec::as_slice) {
        Some([Field::Integer(value)]) => *value,
        other => panic!("field {number} is {other:?}"),
    }
}

fn numbers(fields: &BTreeMap<u64, Vec<Field>>) -> Vec<u64> {
    fields.keys().copied().collect()
}

/// Fails unless these are the bytes of an event as published clients read it. Answers its id.
fn event(bytes: &[u8], method: &str, key: &str, value: &str) -> Vec<u8> {
    let event = fields(bytes);
    let of_published: Vec<u64> = numbers(&event).into_iter().filter(|n| *n < 10).collect();
    assert_eq!(
        of_published,
        [1, 2, 3, 4, 5],
        "claims are there though empty"
    );
    assert_eq!(only(&event, 1).len(), 36);
    assert_eq!(only(&event, 2), entity(key, value));
    assert_eq!(only(&event, 3), b"");
    assert!(number(&event, 4) > 1_600_000_000_000_000_000);
    assert_eq!(only(&event, 5), method.as_bytes());
    assert!(number(&event, 10) >= 1 && number(&event, 12) >= 1);
    only(&event, 1)
}

#[tokio::test]
async fn published_clients_are_understood_byte_by_byte() {
    in_every_form(async |ask| {
        let subscription = [text(1, "acme"), text(2, "user")].concat();
        let stream = ask.raw_stream(STREAM, &subscription).await.unwrap();
        assert!(stream.metadata().get("stategate-position").is_some());
        let mut stream = stream.into_inner();

        let answer = ask.raw(SET, &entity("name", "Ada")).await.unwrap();
        assert!(answer.get_ref().is_empty(), "google.protobuf.Empty");
        let streamed = stream.next().await.unwrap().unwrap();
        let id = event(&streamed, SET, "name", "Ada");

        let answer = ask.raw(EDIT, &entity("name", "Eda")).await.unwrap();
        assert_eq!(
            *answer.get_ref(),
            entity("name", "Eda"),
            "just what they expect"
        );
        let streamed = stream.next().await.unwrap().unwrap();
        event(&streamed, EDIT, "name", "Eda");

        let got = ask.raw(GET, &name()).await.unwrap().into_inner();
        assert_eq!(got, [entity("name", "Eda"), integer(10, 2)].concat());

        let reference = [name(), bytes(4, &id)].concat();
        let answer = ask.raw(GET_EVENT, &reference).await.unwrap().into_inner();
        event(&answer, SET, "name", "Ada");
        let answer = ask.raw(REVERT, &reference).await.unwrap().into_inner();
        assert_eq!(answer, entity("name", "Ada"));
        let streamed = stream.next().await.unwrap().unwrap();
        event(&streamed, REVERT, "name", "Ada");

        // SearchEntityOpts: query_string 3, limit 4, offset 5, sort 9 {field 1, reverse 2}.
        let sort = bytes(9, &[text(1, "name"), integer(2, 1)].concat());
        let of_kind = [text(1, "acme"), text(2, "user")].concat();
        let filter = r#"{"name":"Ada"}"#;
        let opts = [of_kind.clone(), text(3, filter), integer(4, 5), sort].concat();
        let found = ask.raw(SEARCH, &opts).await.unwrap().into_inner();
        let found = fields(&found);
        assert_eq!(numbers(&found), [1]);
        assert_eq!(
            only(&found, 1),
            [entity("name", "Ada"), integer(10, 3)].concat()
        );
        let opts = [of_kind.clone(), text(3, filter), integer(5, 1)].concat();
        let found = ask.raw(SEARCH, &opts).await.unwrap().into_inner();
        assert!(found.is_empty(), "an offset leaves it out");

        // SearchEventOpts: query_string 4, min 5, max 6, limit 7, offset 8, sort 9.
        let sort = bytes(9, &[text(1, "time"), integer(2, 1)].concat());
        let filter = r#"{"entity.values.name":"Ada"}"#;
        let opts = [
            of_kind.clone(),
            text(4, filter),
            integer(5, 1),
            integer(6, u64::try_from(i64::MAX).unwrap()),
            integer(7, 1),
            integer(8, 1),
            sort,
        ];
        let found = ask
            .raw(SEARCH_EVENTS, &opts.concat())
            .await
            .unwrap()
            .into_inner();
        let found = fields(&found);
        assert_eq!(numbers(&found), [1]);
        assert_eq!(
            event(&only(&found, 1), SET, "name", "Ada"),
            id,
            "the older of two"
        );
        let opts = [of_kind.clone(), integer(6, 1)].concat();
        let found = ask.raw(SEARCH_EVENTS, &opts).await.unwrap().into_inner();
        assert!(found.is_empty(), "all of it is later");

        let answer = ask.raw(DEL, &name()).await.unwrap();
        assert!(answer.get_ref().is_empty());
        let streamed = stream.next().await.unwrap().unwrap();
        event(&streamed, DEL, "name", "Ada");
        refused(
            ask.raw(GET, &name()).await,
            Code::NotFound,
            "ENTITY_NOT_FOUND",
        );

        // StreamOpts: consumer_group 3.
        let group = [of_kind, text(3, "x")].concat();
        let answer = ask.raw_stream(STREAM, &group).await.map(drop);
        refused(answer, Code::Unimplemented, "UNSUPPORTED");
    })
    .await;
}

#[tokio::test]
async fn our_additions_have_their_numbers() {
    in_every_form(async |ask| {
        // Fields that nobody knows are passed over, as proto3 has it.
        let unknown = [integer(99, 7), text(100, "x"), bytes(101, &integer(1, 1))].concat();
        let set = [entity("n", "1"), integer(10, 99), unknown].concat();
        ask.raw(SET, &set).await.unwrap();
        ask.raw(EDIT, &entity("n", "2")).await.unwrap();

        // EntityRef: at_version 10, at_time 11.
        let got = ask
            .raw(GET, &[name(), integer(10, 1)].concat())
            .await
            .unwrap();
        assert_eq!(*got.get_ref(), [entity("n", "1"), integer(10, 1)].concat());
        let time = u64::try_from(i64::MAX).unwrap();
        let got = ask
            .raw(GET, &[name(), integer(11, time)].concat())
            .await
            .unwrap();
        assert_eq!(*got.get_ref(), [entity("n", "2"), integer(10, 2)].concat());

        // Entities, Events: next_page_token 10, which goes back as page_token 10.
        let of_kind = [text(1, "acme"), text(2, "user")].concat();
        let opts = [of_kind.clone(), integer(7, 1)].concat();
        let page = ask.raw(SEARCH_EVENTS, &opts).await.unwrap().into_inner();
        let page = fields(&page);
        assert_eq!(numbers(&page), [1, 10]);
        let opts = [opts, bytes(10, &only(&page, 10))].concat();
        let page = ask.raw(SEARCH_EVENTS, &opts).await.unwrap().into_inner();
        event(&only(&fields(&page), 1), EDIT, "n", "2");

        // StreamOpts: key 10, query_string 11, methods 12, from_beginning 13, after 14, since 15.
        let selected = [
            of_kind,
            text(10, "a*"),
            text(11, r#"{"version":2}"#),
            text(12, EDIT),
        ]
        .concat();
        let token = ask.get("acme/user/ada").await.unwrap();
        let token = token.metadata().get("stategate-position").unwrap();
        let zero = format!("{}:0", token.to_str().unwrap().rsplit_once(':').unwrap().0);
        for start in [integer(13, 1), text(14, &zero), integer(15, 1)] {
            let opts = [selected.clone(), start].concat();
            let mut stream = ask.raw_stream(STREAM, &opts).await.unwrap().into_inner();
            let streamed = stream.next().await.unwrap().unwrap();
            event(&streamed, EDIT, "n", "2");
        }

        // TransactRequest: domain 1, operations 2 {set 1, edit 2, revert 3, del 4, if_version 10, if_absent 11}.
        let of_ada = [text(2, "user"), text(3, "ada")].concat();
        let of_bob = [text(2, "user"), text(3, "bob")].concat();
        let values = bytes(4, &structure("n", "3"));
        let operations = [
            [bytes(1, &[of_bob, values.clone()].concat()), integer(11, 1)].concat(),
            [bytes(2, &[of_ada.clone(), values].concat()), integer(10, 2)].concat(),
            bytes(4, &of_ada),
        ];
        let operations = operations.map(|operation| bytes(2, &operation)).concat();
        let request = [text(1, "acme"), operations].concat();
        let path = "/stategate.EntityService/Transact";
        let answer = ask.raw(path, &request).await.unwrap().into_inner();
        let answer = fields(&answer);
        assert_eq!(numbers(&answer), [1]);
        assert_eq!(answer[&1].len(), 3);
        let Field::Bytes(last) = &answer[&1][2] else {
            panic!("no event");
        };
        event(last, DEL, "n", "3");
        let last = fields(last);
        assert_eq!((number(&last, 10), number(&last, 12)), (4, 5));
    })
    .await;
}

/// A field: its name, number and type.
type Row = (&'static str, i32, Type);

#[test]
fn names_and_numbers_are_the_published_ones() {
    use Type::{Bool, Int32, Int64, Message, String};
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let mut messages = BTreeMap::new();
    let mut methods = BTreeMap::new();
    for file in files.iter().filter(|file| file.package() == "stategate") {
        for message in &file.message_type {
            messages.insert(message.name(), message);
        }
        for service in &file.service {
            for method in &service.method {
                let path = format!("/stategate.{}/{}", service.name(), method.name());
                let shape = (method.input_type(), method.output_type());
                methods.insert(path, (shape, method.server_streaming()));
            }
        }
    }
    let table: &[(&str, &[Row])] = &[
        (
            "Entity",
            &[
                ("domain", 1, String),
                ("type", 2, String),
                ("key", 3, String),
                ("values", 4, Message),
                ("version", 10, Int64),
            ],
        ),
        (
            "EntityRef",
            &[
                ("domain", 1, String),
                ("type", 2, String),
                ("key", 3, String),
                ("at_version", 10, Int64),
                ("at_time", 11, Int64),
            ],
        ),
        (
            "EventRef",
            &[
                ("domain", 1, String),
                ("type", 2, String),
                ("key", 3, String),
                ("id", 4, String),
            ],
        ),
        (
            "Entities",
            &[("entities", 1, Message), ("next_page_token", 10, String)],
        ),
        (
            "Events",
            &[("events", 1, Message), ("next_page_token", 10, String)],
        ),
        (
            "Event",
            &[
                ("id", 1, String),
                ("entity", 2, Message),
                ("claims", 3, Message),
                ("time", 4, Int64),
                ("method", 5, String),
                ("version", 10, Int64),
                ("lane", 11, Int32),
                ("position", 12, Int64),
                ("trace_parent", 13, String),
            ],
        ),
        ("Sort", &[("field", 1, String), ("reverse", 2, Bool)]),
        (
            "SearchEntityOpts",
            &[
                ("domain", 1, String),
                ("type", 2, String),
                ("query_string", 3, String),
                ("limit", 4, Int32),
                ("offset", 5, Int32),
                ("sort", 9, Message),
                ("page_token", 10, String),
                ("text", 11, String),
                ("facets", 12, String),
                ("highlight", 13, Bool),
                ("key", 14, String),
            ],
        ),
        (
            "SearchEventOpts",
            &[
                ("domain", 1, String),
                ("type", 2, String),
                ("query_string", 4, String),
                ("min", 5, Int64),
                ("max", 6, Int64),
                ("limit", 7, Int32),
                ("offset", 8, Int32),
                ("sort", 9, Message),
                ("page_token", 10, String),
                ("key", 11, String),
            ],
        ),
        (
            "StreamOpts",
            &[
                ("domain", 1, String),
                ("type", 2, String),
                ("consumer_group", 3, String),
                ("key", 10, String),
                ("query_string", 11, String),
                ("methods", 12, String),
                ("from_beginning", 13, Bool),
                ("after", 14, String),
                ("since", 15, Int64),
                ("progress", 16, Bool),
            ],
        ),
        (
            "TransactRequest",
            &[("domain", 1, String), ("operations", 2, Message)],
        ),
        (
            "Operation",
            &[
                ("set", 1, Message),
                ("edit", 2, Message),
                ("revert", 3, Message),
                ("del", 4, Message),
                ("if_version", 10, Int64),
                ("if_absent", 11, Bool),
                ("name", 12, String),
                ("data", 13, Message),
            ],
        ),
        ("TransactResponse", &[("events", 1, Message)]),
    ];
    assert_eq!(messages.len(), table.len());
    for (message, expected) in table {
        let fields = messages[message].field.iter();
        let mut fields: Vec<_> = fields.map(|f| (f.name(), f.number(), f.r#type())).collect();
        fields.sort_by_key(|(_, number, _)| *number);
        assert_eq!(fields, *expected, "{message}");
    }
    let expected = [
        (
            "EntityService/Del",
            "EntityRef",
            ".google.protobuf.Empty",
            false,
        ),
        ("EntityService/Edit", "Entity", "Entity", false),
        ("EntityService/Get", "EntityRef", "Entity", false),
        ("EntityService/Revert", "EventRef", "Entity", false),
        (
            "EntityService/Search",
            "SearchEntityOpts",
            "Entities",
            false,
        ),
        (
            "EntityService/Set",
            "Entity",
            ".google.protobuf.Empty",
            false,
        ),
        (
            "EntityService/Transact",
            "TransactRequest",
            "TransactResponse",
            false,
        ),
        ("EventService/Get", "EventRef", "Event", false),
        ("EventService/Search", "SearchEventOpts", "Events", false),
        ("EventService/Stream", "StreamOpts", "Event", true),
    ];
    assert_eq!(methods.len(), expected.len());
    let full = |name: &str| match name.starts_with('.') {
        true => name.to_owned(),
        false => format!(".stategate.{name}"),
    };
    for (path, input, output, streams) in expected {
        let ((has_input, has_output), has_stream) = methods[&format!("/stategate.{path}")];
        assert_eq!(
            (has_input, has_output, has_stream),
            (&*full(input), &*full(output), streams)
        );
    }
}

#[tokio::test]
async fn a_method_asked_of_the_wrong_service_names_the_right_one() {
    let mut gateway = Gateway::start(Options::new(Form::Three)).await;
    let roles = [
        (Role::Command, "command"),
        (Role::Query, "query"),
        (Role::Stream, "stream"),
    ];
    let methods = [
        (SET, "command"),
        (EDIT, "command"),
        (REVERT, "command"),
        (DEL, "command"),
        ("/stategate.EntityService/Transact", "command"),
        (GET, "query"),
        (SEARCH, "query"),
        (GET_EVENT, "query"),
        (SEARCH_EVENTS, "query"),
        (STREAM, "stream"),
    ];
    let mut refusals = 0;
    for (role, here) in roles {
        let ask = Ask::through(Ingress::only(&mut gateway, role));
        for (path, service) in methods {
            // Empty messages: whoever serves it has something to say about them.
            let answer = match path {
                STREAM => ask.raw_stream(path, b"").await.map(drop),
                _ => ask.raw(path, b"").await.map(drop),
            };
            if service == here {
                refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT");
                continue;
            }
            let (status, info) = refused(answer, Code::Unimplemented, "OTHER_SERVICE");
            assert_eq!(status.metadata().get("service").unwrap(), service);
            assert_eq!(info.metadata["service"], service);
            let short = path.trim_start_matches("/stategate.");
            assert!(status.message().contains(short), "{status}");
            // Nor is it looked at what the request is: it is for the other service to judge.
            let garbage = match path {
                STREAM => ask.raw_stream(path, b"\xff\xff").await.map(drop),
                _ => ask.raw(path, b"\xff\xff").await.map(drop),
            };
            let (status, _) = refused(garbage, Code::Unimplemented, "OTHER_SERVICE");
            assert_eq!(status.metadata().get("service").unwrap(), service);
            refusals += 1;
        }
    }
    assert_eq!(refusals, 20);
    gateway.assert_no_errors();
}

#[tokio::test]
async fn unknown_methods_are_unimplemented() {
    in_every_form(async |ask| {
        for path in [
            "/stategate.EntityService/Sett",
            "/stategate.EntityService/set",
            "/stategate.EntityService/",
            "/stategate.EventService/Set",
            "/stategate.EntityServices/Set",
            "/other.Service/Method",
            "/x",
            "/",
        ] {
            let (status, _) = refused(ask.raw(path, b"").await, Code::Unimplemented, "UNSUPPORTED");
            assert!(status.metadata().get("service").is_none(), "{status:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn health_says_serving() {
    for form in [Form::One, Form::Three] {
        let mut gateway = Gateway::start(Options::new(form)).await;
        for role in [Role::Command, Role::Query, Role::Stream] {
            let mut health = HealthClient::new(Ingress::only(&mut gateway, role));
            for name in ["", "stategate.EntityService", "stategate.EventService"] {
                let service = name.to_owned();
                let request = HealthCheckRequest { service };
                let answer = health.check(request).await.unwrap().into_inner();
                assert_eq!(answer.status(), ServingStatus::Serving, "{role:?} {name:?}");
            }
            let service = "nothing".to_owned();
            let answer: Result<_, Status> = health.check(HealthCheckRequest { service }).await;
            assert_eq!(answer.unwrap_err().code(), Code::NotFound);
            let watched = HealthCheckRequest::default();
            let mut watch = health.watch(watched).await.unwrap().into_inner();
            let first = watch.message().await.unwrap().unwrap();
            assert_eq!(first.status(), ServingStatus::Serving);
        }
    }
}

#[tokio::test]
async fn reflection_describes_everything() {
    for form in [Form::One, Form::Three] {
        let mut gateway = Gateway::start(Options::new(form)).await;
        for role in [Role::Command, Role::Query, Role::Stream] {
            let ingress = Ingress::only(&mut gateway, role);
            let mut reflection = ServerReflectionClient::new(ingress);
            let questions = [
                MessageRequest::ListServices(String::new()),
                MessageRequest::FileContainingSymbol("stategate.EntityService".into()),
                MessageRequest::FileContainingSymbol("stategate.Event".into()),
                MessageRequest::FileByFilename("google/api/annotations.proto".into()),
            ];
            let questions = questions.map(|question| ServerReflectionRequest {
                host: String::new(),
                message_request: Some(question),
            });
            let asked = tokio_stream::iter(questions);
            let answers = reflection.server_reflection_info(asked).await.unwrap();
            let answers: Vec<_> = answers.into_inner().collect().await;
            let answers: Vec<_> = answers
                .into_iter()
                .map(|answer| answer.unwrap().message_response.unwrap())
                .collect();
            let MessageResponse::ListServicesResponse(services) = &answers[0] else {
                panic!("{:?}", answers[0]);
            };
            let names: Vec<&str> = services.service.iter().map(|s| s.name.as_str()).collect();
            for name in [
                "stategate.EntityService",
                "stategate.EventService",
                "grpc.health.v1.Health",
            ] {
                assert!(names.contains(&name), "{names:?}");
            }
            for answer in &answers[1..] {
                let MessageResponse::FileDescriptorResponse(files) = answer else {
                    panic!("{answer:?}");
                };
                assert!(!files.file_descriptor_proto.is_empty());
            }
        }
    }
}

/// Reads and writes as a client that knows JSON only by its own library.
#[tokio::test]
async fn bytes_and_messages_are_one_thing() {
    in_every_form(async |ask| {
        ask.raw(SET, &entity("name", "Ada")).await.unwrap();
        let got = ask.get("acme/user/ada").await.unwrap();
        assert_eq!(
            (etag(&got), &*values(got.get_ref())),
            (Some(1), r#"{"name":"Ada"}"#)
        );
        let event = &ask.history_of("acme/user/ada").await[0];
        assert_eq!(values_of(event), r#"{"name":"Ada"}"#);
    })
    .await;
}
