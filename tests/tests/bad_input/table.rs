//! Every field of every request with everything that is wrong with it: the code, the reason and the
//! field that the caller is told.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use stategate_model::{LogId, Object, Value};
use stategate_protocol::{
    DESCRIPTORS, Struct,
    pb::{
        self, Operation, Sort,
        entity_ref::At,
        operation::{Operation as Wire, Precondition},
        stream_opts::Start,
    },
};
use stategate_tests::{
    Ask, Form, Gateway, Options,
    ask::{self, invalid, invalid_for, refused},
    clients::everything,
};
use tonic::Code;

use crate::call::Call;

/// A call that is to be refused.
struct Case {
    /// What is wrong, in words.
    what: String,
    call: Call,
    metadata: Vec<(&'static str, String)>,
    expected: Expected,
}

enum Expected {
    Invalid(String),
    TooLarge(String),
    Reason(Code, &'static str),
}

/// Rows there must at least be.
const LEAST: usize = 700;

/// What no name may be.
fn bad_names() -> Vec<(&'static str, String)> {
    vec![
        ("empty", String::new()),
        ("256 bytes", "x".repeat(256)),
        ("256 bytes, fewer characters", "é".repeat(128)),
        ("a megabyte", "x".repeat(1 << 20)),
        ("a dot", ".".into()),
        ("two dots", "..".into()),
        ("a space", " ".into()),
        ("a space within", "a b".into()),
        ("a space in front", " a".into()),
        ("a space behind", "a ".into()),
        ("a tab", "a\tb".into()),
        ("a line break", "a\nb".into()),
        ("a carriage return", "a\rb".into()),
        ("a vertical tab", "a\u{b}b".into()),
        ("a no-break space", "a\u{a0}b".into()),
        ("an ideographic space", "a\u{3000}b".into()),
        ("a line separator", "a\u{2028}b".into()),
        ("U+0000", "a\0b".into()),
        ("an escape", "a\u{1b}b".into()),
        ("a delete", "a\u{7f}b".into()),
        ("a C1 control", "a\u{85}b".into()),
    ]
}

fn set(name: &str) -> pb::Entity {
    ask::entity(name, r#"{"n":1}"#)
}

fn named(domain: &str, kind: &str, key: &str) -> pb::Entity {
    pb::Entity {
        domain: domain.into(),
        r#type: kind.into(),
        key: key.into(),
        ..set("d/t/k")
    }
}

const SOME: &str = "1b4e28ba-2fa1-4d2b-883f-0016d3cca427";

/// Every call that names an entity.
fn of_entity(domain: &str, kind: &str, key: &str) -> Vec<Call> {
    let entity = named(domain, kind, key);
    let reference = pb::EntityRef {
        domain: domain.into(),
        r#type: kind.into(),
        key: key.into(),
        at: None,
    };
    let event = pb::EventRef {
        domain: domain.into(),
        r#type: kind.into(),
        key: key.into(),
        id: SOME.into(),
    };
    vec![
        Call::Set(entity.clone()),
        Call::Edit(entity),
        Call::Revert(event.clone()),
        Call::Del(reference.clone()),
        Call::Get(reference.clone()),
        Call::Get(pb::EntityRef {
            at: Some(At::AtVersion(1)),
            ..reference
        }),
        Call::Event(event),
    ]
}

/// A transaction of one good operation and this one.
fn transact(operation: Wire, precondition: Option<Precondition>) -> Call {
    let good = Operation {
        operation: Some(Wire::Set(set("d/t/k"))),
        ..Operation::default()
    };
    let operation = Operation {
        operation: Some(operation),
        precondition,
        ..Operation::default()
    };
    Call::Transact(pb::TransactRequest {
        domain: "d".into(),
        operations: vec![good, operation],
    })
}

fn search() -> pb::SearchEntityOpts {
    pb::SearchEntityOpts {
        domain: "d".into(),
        r#type: "t".into(),
        ..pb::SearchEntityOpts::default()
    }
}

fn history() -> pb::SearchEventOpts {
    pb::SearchEventOpts {
        domain: "d".into(),
        r#type: "t".into(),
        ..pb::SearchEventOpts::default()
    }
}

#[derive(Default)]
struct Table(Vec<Case>);

impl Table {
    fn row(&mut self, what: impl Into<String>, call: Call, expected: Expected) {
        self.0.push(Case {
            what: what.into(),
            call,
            metadata: Vec::new(),
            expected,
        });
    }

    fn invalid(&mut self, what: impl Into<String>, call: Call, field: impl Into<String>) {
        self.row(what, call, Expected::Invalid(field.into()));
    }

    fn header(&mut self, name: &'static str, value: &str, call: Call, expected: Expected) {
        self.0.push(Case {
            what: format!("{name}: {value:.40}"),
            call,
            metadata: vec![(name, value.to_owned())],
            expected,
        });
    }

    fn names(&mut self) {
        for (what, bad) in bad_names() {
            for call in of_entity(&bad, "t", "k") {
                self.invalid(what, call, "domain");
            }
            for call in of_entity("d", &bad, "k") {
                self.invalid(what, call, "type");
            }
            for call in of_entity("d", "t", &bad) {
                self.invalid(what, call, "key");
            }
            let of_domain = pb::SearchEntityOpts {
                domain: bad.clone(),
                ..search()
            };
            self.invalid(what, Call::Search(of_domain), "domain");
            let of_kind = pb::SearchEntityOpts {
                r#type: bad.clone(),
                ..search()
            };
            self.invalid(what, Call::Search(of_kind), "type");
            let of_domain = pb::SearchEventOpts {
                domain: bad.clone(),
                ..history()
            };
            self.invalid(what, Call::History(of_domain), "domain");
            let of_kind = pb::SearchEventOpts {
                r#type: bad.clone(),
                ..history()
            };
            self.invalid(what, Call::History(of_kind), "type");
            let transaction = pb::TransactRequest {
                domain: bad.clone(),
                operations: vec![Operation {
                    operation: Some(Wire::Set(named("", "t", "k"))),
                    ..Operation::default()
                }],
            };
            self.invalid(what, Call::Transact(transaction), "domain");
            for (kind, key, field) in [(&*bad, "k", "type"), ("t", &*bad, "key")] {
                let mut operation = |name: &str, wire: Wire| {
                    let field = format!("operations[1].{name}.{field}");
                    self.invalid(what, transact(wire, None), field);
                };
                let entity = named("d", kind, key);
                operation("set", Wire::Set(entity.clone()));
                operation("edit", Wire::Edit(entity));
                let event = pb::EventRef {
                    domain: "d".into(),
                    r#type: kind.into(),
                    key: key.into(),
                    id: SOME.into(),
                };
                operation("revert", Wire::Revert(event));
                let reference = pb::EntityRef {
                    domain: "d".into(),
                    r#type: kind.into(),
                    key: key.into(),
                    at: None,
                };
                operation("del", Wire::Del(reference));
            }
        }
    }

    fn ids(&mut self) {
        let simple = SOME.replace('-', "");
        let long = "0".repeat(10_000);
        for bad in [
            "",
            "x",
            " ",
            &simple,
            &format!("{{{SOME}}}"),
            &format!("urn:uuid:{SOME}"),
            &format!("{SOME} "),
            &SOME[1..],
            // Not of version 4.
            "1b4e28ba-2fa1-1d2b-883f-0016d3cca427",
            "00000000-0000-0000-0000-000000000000",
            "gb4e28ba-2fa1-4d2b-883f-0016d3cca427",
            "\0",
            &long,
        ] {
            let what = format!("id {bad:.40?}");
            self.invalid(&what, Call::Revert(ask::event_ref("d/t/k", bad)), "id");
            self.invalid(&what, Call::Event(ask::event_ref("d/t/k", bad)), "id");
            let revert = Wire::Revert(ask::event_ref("d/t/k", bad));
            self.invalid(&what, transact(revert, None), "operations[1].revert.id");
        }
    }

    /// Values that are refused in a write, and where.
    fn values(&mut self) {
        let nested = |value: Value| Object::from([("x".to_owned(), Value::Array(vec![value]))]);
        let deep = |levels: usize, array: bool| {
            let mut value = Value::Null;
            for _ in 1..levels {
                value = match array {
                    true => Value::Array(vec![value]),
                    false => Value::Object(Object::from([("a".to_owned(), value)])),
                };
            }
            Object::from([("a".to_owned(), value)])
        };
        let key = Object::from([("a\0".to_owned(), Value::Null)]);
        let text =
            |bytes: usize| Object::from([("a".to_owned(), Value::String("x".repeat(bytes)))]);
        let arrays = format!("values.a{}", "[0]".repeat(23));
        let objects = format!("values{}", ".a".repeat(24));
        let cases = [
            ("NaN", nested(f64::NAN.into()), "values.x[0]", false),
            (
                "infinity",
                nested(f64::INFINITY.into()),
                "values.x[0]",
                false,
            ),
            (
                "-infinity",
                nested(f64::NEG_INFINITY.into()),
                "values.x[0]",
                false,
            ),
            (
                "U+0000 in a string",
                nested("a\0b".into()),
                "values.x[0]",
                false,
            ),
            (
                "U+0000 in a key",
                nested(Value::Object(key)),
                "values.x[0].a",
                false,
            ),
            ("25 arrays deep", deep(25, true), &arrays, false),
            ("25 objects deep", deep(25, false), &objects, false),
            ("over a mebibyte", text((1 << 20) - 7), "values", true),
            ("three mebibytes", text(3 << 20), "values", true),
        ];
        for (what, values, field, is_large) in cases {
            let entity = pb::Entity {
                values: Some(Struct::from_object(&values)),
                ..set("d/t/k")
            };
            let expected = |field: String| match is_large {
                true => Expected::TooLarge(field),
                false => Expected::Invalid(field),
            };
            self.row(what, Call::Set(entity.clone()), expected(field.into()));
            self.row(what, Call::Edit(entity.clone()), expected(field.into()));
            let of = |kind: &str| expected(format!("operations[1].{kind}.{field}"));
            self.row(what, transact(Wire::Set(entity.clone()), None), of("set"));
            self.row(what, transact(Wire::Edit(entity), None), of("edit"));
        }
        let entity = pb::Entity {
            values: None,
            ..set("d/t/k")
        };
        self.invalid("no values", Call::Set(entity.clone()), "values");
        self.invalid("no values", Call::Edit(entity.clone()), "values");
        let field = "operations[1].set.values";
        self.invalid(
            "no values",
            transact(Wire::Set(entity.clone()), None),
            field,
        );
        let field = "operations[1].edit.values";
        self.invalid("no values", transact(Wire::Edit(entity), None), field);
        // Deeper than a decoder goes: no values any more, but no protobuf.
        for levels in [60, 100, 5_000] {
            let entity = pb::Entity {
                values: Some(Struct::from_object(&deep(levels, true))),
                ..set("d/t/k")
            };
            let what = format!("{levels} levels deep");
            self.invalid(&what, Call::Set(entity.clone()), "request");
            self.invalid(&what, transact(Wire::Set(entity), None), "request");
        }
    }

    fn times(&mut self) {
        for bad in [0, -1, i64::MIN] {
            for (at, field) in [
                (At::AtVersion(bad), "at_version"),
                (At::AtTime(bad), "at_time"),
            ] {
                let reference = pb::EntityRef {
                    at: Some(at),
                    ..ask::entity_ref("d/t/k")
                };
                self.invalid(format!("{field} {bad}"), Call::Get(reference), field);
            }
        }
        for at in [At::AtVersion(1), At::AtTime(1), At::AtVersion(0)] {
            let reference = pb::EntityRef {
                at: Some(at),
                ..ask::entity_ref("d/t/k")
            };
            self.invalid("a Del of the past", Call::Del(reference.clone()), "at");
            let del = Wire::Del(reference);
            self.invalid(
                "a Del of the past",
                transact(del, None),
                "operations[1].del.at",
            );
        }
        for bad in [-1, i64::MIN] {
            let min = pb::SearchEventOpts {
                min: bad,
                ..history()
            };
            self.invalid(format!("min {bad}"), Call::History(min), "min");
            let max = pb::SearchEventOpts {
                max: bad,
                ..history()
            };
            self.invalid(format!("max {bad}"), Call::History(max), "max");
        }
    }

    fn pages(&mut self) {
        for limit in [-1, i32::MIN, 10_001, i32::MAX] {
            let what = format!("limit {limit}");
            let opts = pb::SearchEntityOpts { limit, ..search() };
            self.invalid(&what, Call::Search(opts), "limit");
            let opts = pb::SearchEventOpts { limit, ..history() };
            self.invalid(&what, Call::History(opts), "limit");
        }
        for offset in [-1, i32::MIN] {
            let what = format!("offset {offset}");
            let opts = pb::SearchEntityOpts { offset, ..search() };
            self.invalid(&what, Call::Search(opts), "offset");
            let opts = pb::SearchEventOpts {
                offset,
                ..history()
            };
            self.invalid(&what, Call::History(opts), "offset");
        }
        // Farther than a sorted search reaches.
        let sort = || {
            Some(Sort {
                field: "n".into(),
                reverse: false,
            })
        };
        let far = pb::SearchEntityOpts {
            sort: sort(),
            offset: 100_000,
            ..search()
        };
        self.invalid("a far offset, sorted", Call::Search(far), "offset");
        let sort = || {
            Some(Sort {
                field: "entity.values.n".into(),
                reverse: false,
            })
        };
        let far = pb::SearchEventOpts {
            sort: sort(),
            offset: i32::MAX,
            ..history()
        };
        self.invalid("a far offset, sorted", Call::History(far), "offset");

        let long = "A".repeat(100_000);
        for bad in ["x", "!", "====", " ", "AAAAAAAAAAA", "\0", "é", &long] {
            let what = format!("page_token {bad:.20?}");
            let page_token = bad.to_owned();
            let opts = pb::SearchEntityOpts {
                page_token,
                ..search()
            };
            self.invalid(&what, Call::Search(opts), "page_token");
            let page_token = bad.to_owned();
            let opts = pb::SearchEventOpts {
                page_token,
                ..history()
            };
            self.invalid(&what, Call::History(opts), "page_token");
        }

        let many = vec!["a"; 40].join(".");
        for (field, reverse) in [
            ("", true),
            ("a\\", false),
            ("a\\x", false),
            (&*many, false),
            ("a\0b", false),
        ] {
            let what = format!("sort by {field:.20?}");
            let sort = || {
                Some(Sort {
                    field: field.into(),
                    reverse,
                })
            };
            let opts = pb::SearchEntityOpts {
                sort: sort(),
                ..search()
            };
            let is_path = field == many || field.contains('\0');
            if !is_path {
                self.invalid(&what, Call::Search(opts), "sort.field");
            }
            let opts = pb::SearchEventOpts {
                sort: sort(),
                ..history()
            };
            self.invalid(&what, Call::History(opts), "sort.field");
        }
        for field in [
            "nothing",
            "entity",
            "entity.version",
            "version.x",
            "entity.value",
            "time.",
            "$x",
        ] {
            let sort = Some(Sort {
                field: field.into(),
                reverse: false,
            });
            let opts = pb::SearchEventOpts { sort, ..history() };
            self.invalid(
                format!("sort by {field}"),
                Call::History(opts),
                "sort.field",
            );
        }
        let text = pb::SearchEntityOpts {
            text: "x".into(),
            ..search()
        };
        let facets = pb::SearchEntityOpts {
            facets: vec!["a".into()],
            ..search()
        };
        let highlight = pb::SearchEntityOpts {
            highlight: true,
            ..search()
        };
        for (what, opts) in [("text", text), ("facets", facets), ("highlight", highlight)] {
            let expected = Expected::Reason(Code::FailedPrecondition, "INDEX_DISABLED");
            self.row(
                format!("{what} without an index"),
                Call::Search(opts),
                expected,
            );
        }
        let key = || "k*".to_owned();
        let unsupported = || Expected::Reason(Code::Unimplemented, "UNSUPPORTED");
        let entities = pb::SearchEntityOpts {
            key: key(),
            ..search()
        };
        self.row("entities by key", Call::Search(entities), unsupported());
        let events = pb::SearchEventOpts {
            key: key(),
            ..history()
        };
        self.row("events by key", Call::History(events), unsupported());
        for (what, name, data) in [
            ("a name of an event", "OrderShipped", None),
            ("data of an event", "", Some(Struct::default())),
        ] {
            let operation = Operation {
                operation: Some(Wire::Set(set("d/t/k"))),
                name: name.to_owned(),
                data,
                ..Operation::default()
            };
            let transaction = pb::TransactRequest {
                domain: "d".into(),
                operations: vec![operation],
            };
            self.row(what, Call::Transact(transaction), unsupported());
        }
    }

    fn filters(&mut self) {
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(16 << 10));
        let many = format!(r#"{{"a":{{"$in":[{}1]}}}}"#, "1,".repeat(64));
        let deep = format!(r#"{}{{}}{}"#, r#"{"$not":"#.repeat(8), "}".repeat(8));
        let bottomless = "[".repeat(10_000);
        for bad in [
            " ",
            "x",
            "{",
            "[]",
            "null",
            "1",
            "\"a\"",
            "{}{}",
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{'a':1}"#,
            r#"{"a":NaN}"#,
            r#"{"a":1e999}"#,
            r#"{"a":01}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\u0000"}"#,
            r#"{"\u0000":1}"#,
            r#"{"a":9007199254740993}"#,
            r#"{"$where":"1"}"#,
            r#"{"$gt":1}"#,
            r#"{"a":{"$regex":"x"}}"#,
            r#"{"a":{"$gt":1,"b":2}}"#,
            r#"{"a":{"$gt":null}}"#,
            r#"{"a":{"$lt":[]}}"#,
            r#"{"a":{"$lte":true}}"#,
            r#"{"a":{"$in":""}}"#,
            r#"{"a":{"$nin":{}}}"#,
            r#"{"a":{"$exists":"true"}}"#,
            r#"{"a":{"$prefix":1}}"#,
            r#"{"a":{"$contains":null}}"#,
            r#"{"a":{"$not":1}}"#,
            r#"{"a":{"$not":{"b":1}}}"#,
            r#"{"a":{"$and":[]}}"#,
            r#"{"$and":[]}"#,
            r#"{"$or":{}}"#,
            r#"{"$or":[1]}"#,
            r#"{"$not":[]}"#,
            r#"{"a\\":1}"#,
            r#"{"a\\n":1}"#,
            "\u{feff}{}",
            "\0",
            &long,
            &many,
            &deep,
            &bottomless,
        ] {
            let what = format!("filter {bad:.40}");
            let query_string = bad.to_owned();
            let opts = pb::SearchEntityOpts {
                query_string,
                ..search()
            };
            self.invalid(&what, Call::Search(opts), "query_string");
            let query_string = bad.to_owned();
            let opts = pb::SearchEventOpts {
                query_string,
                ..history()
            };
            self.invalid(&what, Call::History(opts), "query_string");
            let query_string = bad.to_owned();
            let opts = pb::StreamOpts {
                query_string,
                ..everything(None)
            };
            self.invalid(&what, Call::Stream(opts), "query_string");
        }
        // At the event: paths that are not there, and int64 fields.
        for bad in [
            r#"{"a":1}"#,
            r#"{"entity":1}"#,
            r#"{"values.a":1}"#,
            r#"{"entity.version":1}"#,
            r#"{"trace_parent":"x"}"#,
            r#"{"version.a":1}"#,
            r#"{"time":1.5}"#,
            r#"{"time":1e3}"#,
            r#"{"time":"1e3"}"#,
            r#"{"time":" 1"}"#,
            r#"{"time":"+1"}"#,
            r#"{"time":true}"#,
            r#"{"position":9223372036854775808}"#,
            r#"{"position":"-9223372036854775809"}"#,
            r#"{"lane":{"$in":[1,null]}}"#,
            r#"{"version":{"$prefix":"1"}}"#,
        ] {
            let what = format!("event filter {bad}");
            let query_string = bad.to_owned();
            let opts = pb::SearchEventOpts {
                query_string,
                ..history()
            };
            self.invalid(&what, Call::History(opts), "query_string");
            let query_string = bad.to_owned();
            let opts = pb::StreamOpts {
                query_string,
                ..everything(None)
            };
            self.invalid(&what, Call::Stream(opts), "query_string");
        }
    }

    fn streams(&mut self) {
        let long = "x".repeat(257);
        let wild = "*x".repeat(17);
        let classes = "[a]".repeat(17);
        let braces = format!("{}a{}", "{".repeat(17), "}".repeat(17));
        for bad in [
            "", "[", "[a", "[]", "[!]", "[b-a]", "{", "{a,b", "a\\", &*long, &wild, &classes,
            &braces,
        ] {
            let what = format!("glob {bad:.20}");
            let glob = bad.to_owned();
            let opts = pb::StreamOpts {
                domain: glob,
                ..everything(None)
            };
            self.invalid(&what, Call::Stream(opts), "domain");
            let glob = bad.to_owned();
            let opts = pb::StreamOpts {
                r#type: glob,
                ..everything(None)
            };
            self.invalid(&what, Call::Stream(opts), "type");
            if !bad.is_empty() {
                let glob = bad.to_owned();
                let opts = pb::StreamOpts {
                    key: glob,
                    ..everything(None)
                };
                self.invalid(&what, Call::Stream(opts), "key");
            }
        }
        for bad in [
            "",
            "Set",
            "/stategate.EntityService/Get",
            "/stategate.EntityService/Transact",
            "/stategate.EntityService/set",
            "*",
            "\0",
        ] {
            let methods = vec![bad.to_owned()];
            let opts = pb::StreamOpts {
                methods,
                ..everything(None)
            };
            self.invalid(format!("method {bad:?}"), Call::Stream(opts), "methods[0]");
        }
        let methods = vec!["/stategate.EntityService/Set".to_owned(); 17];
        let opts = pb::StreamOpts {
            methods,
            ..everything(None)
        };
        self.invalid("17 methods", Call::Stream(opts), "methods");
        let consumer_group = "x".to_owned();
        let opts = pb::StreamOpts {
            consumer_group,
            ..everything(None)
        };
        let expected = Expected::Reason(Code::Unimplemented, "UNSUPPORTED");
        self.row("a consumer group", Call::Stream(opts), expected);
        let opts = everything(Some(Start::FromBeginning(false)));
        self.invalid("from_beginning false", Call::Stream(opts), "from_beginning");
        for (bad, _) in bad_tokens() {
            let opts = everything(Some(Start::After(bad.clone())));
            self.invalid(format!("after {bad:.40?}"), Call::Stream(opts), "after");
        }
        let foreign = format!("{}/0:1", LogId::random());
        let opts = everything(Some(Start::After(foreign)));
        let expected = Expected::Reason(Code::OutOfRange, "LOG_CHANGED");
        self.row("a token of another log", Call::Stream(opts), expected);
    }

    fn transactions(&mut self) {
        let transaction = |operations| {
            let domain = "d".to_owned();
            Call::Transact(pb::TransactRequest { domain, operations })
        };
        let good = Operation {
            operation: Some(Wire::Set(set("d/t/k"))),
            ..Operation::default()
        };
        self.invalid("no operations", transaction(Vec::new()), "operations");
        let many = vec![good.clone(); 1_001];
        self.invalid("1,001 operations", transaction(many), "operations");
        let nothing = vec![good, Operation::default()];
        self.invalid(
            "an operation that is none",
            transaction(nothing),
            "operations[1]",
        );
        for domain in ["e", "D", " ", ".", "d "] {
            let what = format!("the domain {domain:?} in a transaction of d");
            let field = |kind: &str| format!("operations[1].{kind}.domain");
            let entity = named(domain, "t", "k");
            self.invalid(
                &what,
                transact(Wire::Set(entity.clone()), None),
                field("set"),
            );
            self.invalid(&what, transact(Wire::Edit(entity), None), field("edit"));
            let event = ask::event_ref(&format!("{domain}/t/k"), SOME);
            self.invalid(&what, transact(Wire::Revert(event), None), field("revert"));
            let reference = ask::entity_ref(&format!("{domain}/t/k"));
            self.invalid(&what, transact(Wire::Del(reference), None), field("del"));
        }
        for version in [0, -1, i64::MIN] {
            let precondition = Some(Precondition::IfVersion(version));
            let call = transact(Wire::Set(set("d/t/k")), precondition);
            let field = "operations[1].if_version";
            self.invalid(format!("if_version {version}"), call, field);
        }
        let precondition = Some(Precondition::IfAbsent(false));
        let call = transact(Wire::Set(set("d/t/k")), precondition);
        self.invalid("if_absent false", call, "operations[1].if_absent");
    }

    fn headers(&mut self) {
        let writes = || {
            [
                Call::Set(set("d/t/k")),
                Call::Edit(set("d/t/k")),
                Call::Revert(ask::event_ref("d/t/k", SOME)),
                Call::Del(ask::entity_ref("d/t/k")),
            ]
        };
        let transaction = || transact(Wire::Set(set("d/t/k")), None);
        let reads = || {
            [
                Call::Get(ask::entity_ref("d/t/k")),
                Call::Search(search()),
                Call::Event(ask::event_ref("d/t/k", SOME)),
                Call::History(history()),
            ]
        };
        let invalid = |name: &str| Expected::Invalid(name.to_owned());
        let many = vec!["\"1\""; 101].join(",");
        for bad in [
            "",
            "1",
            "\"\"",
            "\"0\"",
            "\"01\"",
            "\"-1\"",
            "W/\"1\"",
            "\"1\",",
            "*,*",
            "\"9223372036854775808\"",
            "é",
            &*many,
        ] {
            for call in writes() {
                self.header("if-match", bad, call, invalid("if-match"));
            }
        }
        for bad in ["", "\"1\"", "**", "*,*", "é"] {
            for call in writes() {
                self.header("if-none-match", bad, call, invalid("if-none-match"));
            }
        }
        for name in ["if-match", "if-none-match"] {
            self.header(name, "*", transaction(), invalid(name));
            self.header(name, "", transaction(), invalid(name));
        }
        let long = "x".repeat(129);
        for bad in ["", "a b", "é", "a\tb", &*long] {
            for call in writes().into_iter().chain([transaction()]) {
                self.header("idempotency-key", bad, call, invalid("idempotency-key"));
            }
        }
        for (bad, is_ascii) in bad_tokens() {
            for call in reads() {
                if is_ascii {
                    let name = "stategate-min-position";
                    self.header(name, &bad, call, invalid(name));
                }
            }
        }
        let foreign = format!("{}/0:1", LogId::random());
        for call in reads() {
            let expected = Expected::Reason(Code::OutOfRange, "LOG_CHANGED");
            self.header("stategate-min-position", &foreign, call, expected);
        }
    }
}

/// What is no token; and whether a header can hold it.
fn bad_tokens() -> Vec<(String, bool)> {
    let id = LogId::random();
    let simple = id.to_string().replace('-', "");
    let bad = [
        String::new(),
        "x".into(),
        "/".into(),
        "0:1".into(),
        id.to_string(),
        format!("{id}/"),
        format!("{id}/0"),
        format!("{id}/0:"),
        format!("{id}/:1"),
        format!("{id}/0:-1"),
        format!("{id}/0:1,"),
        format!("{id}/0:1,0:1"),
        format!("{id}/0:1;1:1"),
        format!("{id}/64:1"),
        format!("{id}/99999999999999999999:1"),
        format!("{id}/0:9223372036854775808"),
        format!("{simple}/0:1"),
        format!("{id}/0:1 "),
        format!("{id}/0:\u{661}"),
    ];
    let with = |token: String| {
        // A header's value ends before the space.
        let is_same = token.is_ascii() && token.trim() == token;
        (token, is_same)
    };
    let mut bad: Vec<_> = bad.into_iter().map(with).collect();
    bad.push((format!("{id}/0:1\0"), false));
    bad.push((format!("{id}/{}", "0:1,".repeat(10_000)), false));
    bad
}

fn table() -> Vec<Case> {
    let mut table = Table::default();
    table.names();
    table.ids();
    table.values();
    table.times();
    table.pages();
    table.filters();
    table.streams();
    table.transactions();
    table.headers();
    table.0
}

/// Fields of which nothing can be bad.
const HARMLESS: [&str; 4] = [
    // Ignored on input.
    "Entity.version",
    // A bool that means something either way.
    "StreamOpts.progress",
    "Sort.reverse",
    // Every time is one: before the first event, and after the last.
    "StreamOpts.since",
];

/// Fails unless every field of every request is in the table.
fn assert_complete(table: &[Case]) {
    let mut covered = BTreeSet::new();
    for case in table {
        let message = case.call.message();
        let field = match &case.expected {
            Expected::Invalid(field) | Expected::TooLarge(field) => field.clone(),
            Expected::Reason(..) => case.what.split(' ').next_back().unwrap().to_owned(),
        };
        let mut add = |message: &str, field: &str| {
            let name = field.split(['.', '[']).next().unwrap();
            covered.insert(format!("{message}.{name}"));
        };
        add(message, &field);
        if let Some((_, inner)) = field.split_once("sort.") {
            add("Sort", inner);
        }
        if let Some((_, operation)) = field.split_once("].") {
            add("Operation", operation);
        }
    }
    // Refused as a whole for now.
    covered.extend(
        [
            "SearchEntityOpts.text",
            "SearchEntityOpts.facets",
            "SearchEntityOpts.highlight",
            "SearchEntityOpts.key",
            "SearchEventOpts.key",
            "Operation.name",
            "Operation.data",
            "StreamOpts.consumer_group",
        ]
        .map(str::to_owned),
    );
    covered.extend(HARMLESS.map(str::to_owned));
    let requests = [
        "Entity",
        "EntityRef",
        "EventRef",
        "TransactRequest",
        "Operation",
        "SearchEntityOpts",
        "SearchEventOpts",
        "Sort",
        "StreamOpts",
    ];
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let messages = files.iter().flat_map(|file| &file.message_type);
    let mut fields = 0;
    for message in messages.filter(|message| requests.contains(&message.name())) {
        for field in &message.field {
            let name = format!("{}.{}", message.name(), field.name());
            assert!(covered.contains(&name), "no row has a bad {name}");
            fields += 1;
        }
    }
    assert!(fields >= 50, "{fields} fields");
    println!("{fields} fields of {} requests", requests.len());
}

#[tokio::test]
async fn every_bad_field_is_named() {
    let table = table();
    assert_complete(&table);
    assert!(table.len() >= LEAST, "only {} rows", table.len());
    for (form, lanes) in [(Form::One, 1), (Form::Three, 8)] {
        let mut gateway = Gateway::start(Options::new(form).lanes(lanes)).await;
        let ask = Ask::new(&mut gateway);
        ask.set("d/t/k", r#"{"n":1}"#).await.unwrap();
        let written = ask.history_of("d/t/k").await;
        for case in &table {
            let what = format!("{} {}", case.call.path(), case.what);
            // Says which row it was if what follows panics.
            println!("{what}");
            let mut with = ask.clone();
            for (name, value) in &case.metadata {
                with = with.with(name, value);
            }
            let answer = case.call.send(&with).await;
            match &case.expected {
                Expected::Invalid(field) => {
                    let status = invalid(answer, field);
                    assert!(status.message().len() < 4_096, "{what}: a long message");
                }
                Expected::TooLarge(field) => {
                    invalid_for(answer, "REQUEST_TOO_LARGE", field);
                }
                Expected::Reason(code, reason) => {
                    refused(answer, *code, reason);
                }
            }
        }
        assert_eq!(
            ask.history_of("d/t/k").await,
            written,
            "nothing was written"
        );
        let all = ask
            .stream(everything(Some(Start::FromBeginning(true))))
            .await;
        assert_eq!(all.unwrap().next().await, written[0]);
        let heads = ask.stream(everything(None)).await.unwrap().start;
        let events: u64 = heads.iter().map(|(_, position)| position.get()).sum();
        assert_eq!(events, 1, "anywhere");
        gateway.assert_no_errors();
        println!("{} rows refused by name in {form}", table.len());
    }
}
