//! Arbitrary requests: whatever arrives, the answer is a named one, and the process goes on.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use stategate_model::{Object, Value};
use stategate_protocol::{
    Struct,
    pb::{
        self, Operation, Sort,
        entity_ref::At,
        operation::{Operation as Wire, Precondition},
        stream_opts::Start,
    },
};
use stategate_tests::{Ask, Form, Gateway, Options, scale};
use tokio::{runtime::Runtime, time::timeout};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::call::{Call, send};

const PATHS: [&str; 10] = [
    "/stategate.EntityService/Set",
    "/stategate.EntityService/Edit",
    "/stategate.EntityService/Revert",
    "/stategate.EntityService/Del",
    "/stategate.EntityService/Transact",
    "/stategate.EntityService/Get",
    "/stategate.EntityService/Search",
    "/stategate.EventService/Get",
    "/stategate.EventService/Search",
    "/stategate.EventService/Stream",
];

/// Headers that mean something, and some that do not.
const HEADERS: [&str; 8] = [
    "if-match",
    "if-none-match",
    "idempotency-key",
    "stategate-min-position",
    "traceparent",
    "authorization",
    "x-anything",
    "user-agent",
];

/// Mostly what is almost right, so that most requests get beyond the first check.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[abc]",
        2 => "[a-z*?{},\\[\\]\\\\!.]{0,6}",
        1 => any::<String>(),
        1 => Just(String::new()),
        1 => (250..300usize).prop_map(|n| "x".repeat(n)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<f64>().prop_map(Value::Number),
        (-9..9i32).prop_map(|n| Value::Number(n.into())),
        any::<String>().prop_map(Value::String),
    ];
    leaf.prop_recursive(30, 60, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map("[a-c.$\\\\\0]{0,3}", inner, 0..4).prop_map(Value::Object),
        ]
    })
}

fn object() -> impl Strategy<Value = Object> {
    prop::collection::btree_map(prop_oneof!["[a-d]", any::<String>()], value(), 0..5)
}

fn entity() -> BoxedStrategy<pb::Entity> {
    let values = prop::option::weighted(0.95, object());
    (name(), name(), name(), values, any::<i64>())
        .prop_map(|(domain, r#type, key, values, version)| pb::Entity {
            domain,
            r#type,
            key,
            values: values.map(|values| Struct::from_object(&values)),
            version,
        })
        .boxed()
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![-2..10i64, any::<i64>(), Just(i64::MAX), Just(i64::MIN)]
}

fn small() -> impl Strategy<Value = i32> {
    prop_oneof![4 => -1..12i32, 1 => any::<i32>()]
}

fn entity_ref() -> impl Strategy<Value = pb::EntityRef> {
    let at = prop_oneof![
        2 => Just(None),
        1 => number().prop_map(|version| Some(At::AtVersion(version))),
        1 => number().prop_map(|time| Some(At::AtTime(time))),
    ];
    (name(), name(), name(), at).prop_map(|(domain, r#type, key, at)| pb::EntityRef {
        domain,
        r#type,
        key,
        at,
    })
}

fn event_ref() -> impl Strategy<Value = pb::EventRef> {
    let id = prop_oneof![
        "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
        any::<String>(),
    ];
    (name(), name(), name(), id).prop_map(|(domain, r#type, key, id)| pb::EventRef {
        domain,
        r#type,
        key,
        id,
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    let wire = prop_oneof![
        entity().prop_map(Wire::Set),
        entity().prop_map(Wire::Edit),
        event_ref().prop_map(Wire::Revert),
        entity_ref().prop_map(Wire::Del),
    ];
    let precondition = prop_oneof![
        number().prop_map(Precondition::IfVersion),
        any::<bool>().prop_map(Precondition::IfAbsent),
    ];
    let wire = prop::option::weighted(0.95, wire);
    let precondition = prop::option::weighted(0.3, precondition);
    (wire, precondition).prop_map(|(operation, precondition)| Operation {
        operation,
        precondition,
        ..Operation::default()
    })
}

fn transaction() -> impl Strategy<Value = pb::TransactRequest> {
    let operations = prop::collection::vec(operation(), 0..6);
    (name(), operations, any::<bool>()).prop_map(|(domain, mut operations, alike)| {
        // Half of them with the domains that would be right.
        for operation in operations.iter_mut().filter(|_| alike) {
            match &mut operation.operation {
                Some(Wire::Set(entity) | Wire::Edit(entity)) => entity.domain.clone_from(&domain),
                Some(Wire::Revert(event)) => event.domain.clone_from(&domain),
                Some(Wire::Del(entity)) => entity.domain.clear(),
                None => {}
            }
        }
        pb::TransactRequest { domain, operations }
    })
}

fn filter() -> impl Strategy<Value = String> {
    let path = "(entity\\.values\\.)?[a-d](\\.[a-d])?|version|time|claims\\.sub|\\$[a-z]{1,4}";
    let operator = "\\$(eq|ne|gt|gte|lt|lte|in|nin|exists|prefix|contains|not|and|or|where)";
    let text = |value: &Value| stategate_model::json::canonical_value(value);
    prop_oneof![
        2 => Just(String::new()),
        2 => (path, value()).prop_map(move |(path, value)| format!("{{\"{path}\":{}}}", text(&value))),
        4 => (path, operator, value())
            .prop_map(move |(path, operator, value)| format!("{{\"{path}\":{{\"{operator}\":{}}}}}", text(&value))),
        1 => (operator, path, value())
            .prop_map(move |(operator, path, value)| format!("{{\"{operator}\":[{{\"{path}\":{}}}]}}", text(&value))),
        1 => any::<String>(),
    ]
}

fn sort() -> impl Strategy<Value = Option<Sort>> {
    let field = prop_oneof![
        "[a-d]|version|entity\\.(key|values\\.[a-d])",
        any::<String>()
    ];
    prop::option::of((field, any::<bool>()).prop_map(|(field, reverse)| Sort { field, reverse }))
}

fn page_token() -> impl Strategy<Value = String> {
    prop_oneof![8 => Just(String::new()), 1 => "[A-Za-z0-9_-]{0,60}", 1 => any::<String>()]
}

fn search() -> impl Strategy<Value = pb::SearchEntityOpts> {
    let text = prop_oneof![9 => Just(String::new()), 1 => any::<String>()];
    let paging = (small(), small(), sort(), page_token());
    (name(), name(), filter(), paging, text).prop_map(
        |(domain, r#type, query_string, paging, text)| {
            let (limit, offset, sort, page_token) = paging;
            pb::SearchEntityOpts {
                domain,
                r#type,
                query_string,
                limit,
                offset,
                sort,
                page_token,
                text,
                ..pb::SearchEntityOpts::default()
            }
        },
    )
}

fn history() -> impl Strategy<Value = pb::SearchEventOpts> {
    let paging = (small(), small(), sort(), page_token());
    (name(), name(), filter(), number(), number(), paging).prop_map(
        |(domain, r#type, query_string, min, max, paging)| {
            let (limit, offset, sort, page_token) = paging;
            pb::SearchEventOpts {
                domain,
                r#type,
                query_string,
                min,
                max,
                limit,
                offset,
                sort,
                page_token,
                ..pb::SearchEventOpts::default()
            }
        },
    )
}

fn stream() -> impl Strategy<Value = pb::StreamOpts> {
    let start = prop_oneof![
        any::<bool>().prop_map(Start::FromBeginning),
        token().prop_map(Start::After),
        number().prop_map(Start::Since),
    ];
    let start = prop::option::of(start);
    let method = prop_oneof![
        4 => Just("/stategate.EntityService/Set".to_owned()),
        1 => any::<String>(),
    ];
    let methods = prop::collection::vec(method, 0..3);
    let group = prop_oneof![9 => Just(String::new()), 1 => any::<String>()];
    let names = (name(), name(), name());
    (names, filter(), methods, group, start, any::<bool>()).prop_map(
        |((domain, r#type, key), query_string, methods, consumer_group, start, progress)| {
            pb::StreamOpts {
                domain,
                r#type,
                consumer_group,
                key,
                query_string,
                methods,
                progress,
                start,
            }
        },
    )
}

fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}/[0-9]{1,2}:[0-9]{1,20}(,[0-9]:[0-9])?",
        any::<String>(),
    ]
}

/// Boxed one by one: all of them together are too large for a test's stack.
fn call() -> BoxedStrategy<Call> {
    prop_oneof![
        entity().prop_map(Call::Set).boxed(),
        entity().prop_map(Call::Edit).boxed(),
        event_ref().prop_map(Call::Revert).boxed(),
        entity_ref().prop_map(Call::Del).boxed(),
        transaction().prop_map(Call::Transact).boxed(),
        entity_ref().prop_map(Call::Get).boxed(),
        search().prop_map(Call::Search).boxed(),
        event_ref().prop_map(Call::Event).boxed(),
        history().prop_map(Call::History).boxed(),
        stream().prop_map(Call::Stream).boxed(),
    ]
    .boxed()
}

/// Values of headers: bytes that HTTP lets through.
fn header() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let sensible = prop_oneof![
        Just("*".to_owned()),
        "\"[1-9]\"(,\"[1-9]\")?",
        "[a-c]",
        "\"?[0-9]{0,3}\"?",
        token().prop_filter("visible", |token| token
            .bytes()
            .all(|b| (0x20..0x7f).contains(&b))),
    ];
    let bytes = prop::collection::vec(prop_oneof![0x20..0x7fu8, 0x80..=0xffu8], 0..200);
    let value = prop_oneof![sensible.prop_map(String::into_bytes), bytes];
    let condition = "\"[1-4]\"".prop_map(String::into_bytes);
    prop_oneof![
        2 => (Just(0), condition),
        1 => (Just(1), Just(b"*".to_vec())),
        4 => (0..HEADERS.len(), value),
    ]
}

/// Bytes for a method.
#[derive(Debug, Clone)]
struct Request {
    path: &'static str,
    message: Vec<u8>,
    headers: Vec<(usize, Vec<u8>)>,
}

fn request() -> impl Strategy<Value = Request> {
    let whole = call().prop_map(|call| (call.path(), call.encoded()));
    // What was a message before something happened to it.
    let damaged = (call(), any::<prop::sample::Index>(), any::<u8>(), 0..4u8).prop_map(
        |(call, at, byte, how)| {
            let mut message = call.encoded();
            if !message.is_empty() {
                let at = at.index(message.len());
                match how {
                    0 => message[at] = byte,
                    1 => message.insert(at, byte),
                    2 => message.truncate(at),
                    _ => drop(message.remove(at)),
                }
            }
            (call.path(), message)
        },
    );
    // The message of another method.
    let strange =
        (call(), prop::sample::select(&PATHS[..])).prop_map(|(call, path)| (path, call.encoded()));
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    let bytes = (prop::sample::select(&PATHS[..]), bytes);
    let sent = prop_oneof![6 => whole, 2 => damaged, 1 => strange, 1 => bytes];
    let headers = prop_oneof![
        1 => Just(Vec::new()),
        1 => prop::collection::vec(header(), 1..3),
    ];
    (sent, headers).prop_map(|((path, message), headers)| Request {
        path,
        message,
        headers,
    })
}

/// What became of requests.
#[derive(Debug, Default)]
struct Tally {
    outcomes: BTreeMap<String, usize>,
    by_path: BTreeMap<&'static str, usize>,
}

async fn ask(ask: &Ask, request: &Request) -> Result<(), Status> {
    let mut with = ask.clone();
    for (name, value) in &request.headers {
        with = with.with(HEADERS[*name], value);
    }
    let call = send(&with, request.path, &request.message);
    let answer = timeout(Duration::from_secs(19), call).await;
    answer.unwrap_or_else(|_| panic!("no answer to {request:?}"))
}

/// Fails unless an answer is one that the contract has.
fn judge(answer: &Result<(), Status>) -> Result<String, TestCaseError> {
    let Err(status) = answer else {
        return Ok("OK".to_owned());
    };
    let known = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::Aborted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
    );
    prop_assert!(known, "{status:?}");
    let info = status.get_details_error_info();
    prop_assert!(info.is_some(), "no ErrorInfo: {status:?}");
    let info = info.unwrap();
    prop_assert_eq!(info.domain, "stategate");
    if status.code() == Code::InvalidArgument {
        let bad = status.get_details_bad_request();
        let violations = bad.map(|bad| bad.field_violations).unwrap_or_default();
        prop_assert!(
            violations.len() == 1 && !violations[0].field.is_empty(),
            "{status:?}"
        );
    }
    prop_assert!(status.message().len() < 4_096, "a long message: {status:?}");
    for leak in ["SELECT", "sqlite", "/tmp", "panicked", "libs/", ".rs:"] {
        prop_assert!(!status.message().contains(leak), "leaks {leak}: {status:?}");
    }
    Ok(info.reason)
}

#[test]
fn arbitrary_requests_are_answered_by_name() {
    for form in [Form::One, Form::Three] {
        let cases = scale(2_000, 50_000);
        let runtime = Runtime::new().unwrap();
        let mut gateway = runtime.block_on(Gateway::start(Options::new(form).lanes(4)));
        let client = runtime.block_on(async { Ask::new(&mut gateway) });
        let tally = Mutex::new(Tally::default());
        let mut runner = TestRunner::new(Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        });
        let run = runner.run(&request(), |request| {
            let answer = runtime.block_on(ask(&client, &request));
            let outcome = judge(&answer)?;
            let mut tally = tally.lock().unwrap();
            *tally.outcomes.entry(outcome).or_default() += 1;
            *tally.by_path.entry(request.path).or_default() += 1;
            Ok(())
        });
        gateway.assert_no_errors();
        if let Err(failure) = run {
            panic!("in {form}: {failure}");
        }
        for role in [
            stategate_tests::Role::Command,
            stategate_tests::Role::Query,
            stategate_tests::Role::Stream,
        ] {
            assert!(gateway.process(role).is_running());
        }
        // And it serves as before.
        runtime.block_on(async {
            client.set("d/t/after", "{}").await.unwrap();
            client.get("d/t/after").await.unwrap();
        });
        let tally = tally.into_inner().unwrap();
        println!("{cases} arbitrary requests in {form}: {tally:#?}");
        let total: usize = tally.outcomes.values().sum();
        assert!(
            total >= usize::try_from(cases).unwrap(),
            "only {total} were sent"
        );
        assert_eq!(tally.by_path.len(), PATHS.len());
        assert!(
            tally.by_path.values().all(|count| *count >= 50),
            "each method has some"
        );
        // Not all of one kind, which would prove little of what lies behind the first check.
        for outcome in [
            "OK",
            "INVALID_ARGUMENT",
            "ENTITY_NOT_FOUND",
            "VERSION_MISMATCH",
        ] {
            let count = tally.outcomes.get(outcome).copied().unwrap_or_default();
            assert!(count >= 10, "{outcome} came {count} times");
        }
    }
}
