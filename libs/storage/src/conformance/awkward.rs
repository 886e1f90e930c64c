//! Content that databases like to change: everything comes back byte for byte.

use stategate_model::{
    At, EntityRef, Event, KindRef, Method, Object, Position, Timestamp, TraceParent, Value, Values,
    limits,
};

use super::world::{ALL, World, digest, entity, entity_query, event_query, idempotency, values};

/// Names of which no two are the same byte for byte, while some database or other takes some of them
/// for the same, or for a pattern, a path, a number or a command.
fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "a",
        "A",
        "a\u{301}",
        "á",
        "Á",
        "é",
        "e\u{301}",
        "ß",
        "ss",
        "SS",
        "ı",
        "i",
        "I",
        "İ",
        "K",
        "\u{212a}",
        "ﬁ",
        "fi",
        "Å",
        "\u{212b}",
        "1",
        "01",
        "1.0",
        "1e0",
        "+1",
        "0x1",
        "%",
        "_",
        "a%",
        "a_",
        "%a",
        "ab",
        "*",
        "?",
        "[a]",
        "{a}",
        "'",
        "''",
        "\"",
        "`",
        "\\",
        "\\\\",
        "a'b",
        "a\"b",
        "';--",
        "a/b",
        "/",
        "//",
        "a:b",
        "a,b",
        "a;b",
        "$a",
        "$",
        "a.b",
        "a..b",
        "-",
        "--",
        "null",
        "NULL",
        "true",
        "__proto__",
        "_id",
        "constructor",
        "#",
        "@",
        "~",
        "^",
        "|",
        "&",
        "<a>",
        "a\u{200d}b",
        "a\u{200b}b",
        "a\u{feff}b",
        "\u{feff}a",
        "\u{10ffff}",
        "\u{fffd}",
        "\u{ffff}",
        "\u{e000}",
        "😀",
        "😀a",
        "日本",
        "日",
        "עברית",
        "a-",
        "a\u{ad}",
    ]
    .map(str::to_owned)
    .into();
    names.push("x".repeat(limits::NAME_BYTES));
    names.push("x".repeat(limits::NAME_BYTES - 1));
    names.push("é".repeat(limits::NAME_BYTES / 2));
    names
}

async fn read_back(world: &World, event: &Event) {
    let entity = &event.entity;
    let state = world.state(entity).await;
    assert_eq!(
        state.values.as_ref().map(Values::json),
        event.state().map(Values::json),
        "{entity}"
    );
    assert_eq!(state.version, event.version, "{entity}");
    let found = world.store.get_event(entity, event.id).await.unwrap();
    assert_eq!(found.value.as_ref(), Some(event));
    let found = world
        .store
        .get_at(entity, At::Version(event.version))
        .await
        .unwrap();
    assert_eq!(found.value.as_ref(), Some(event));
    let before = Position::new(event.position.get() - 1);
    let read = world.store.read_log(event.lane, before, ALL).await.unwrap();
    assert_eq!(read.first(), Some(event));
}

pub(super) async fn names_are_compared_byte_for_byte(world: World) {
    let names = names();
    let mut events = Vec::new();
    for (n, name) in names.iter().enumerate() {
        // In turn as key, as type and as domain.
        for entity in [
            EntityRef::new("accounting", "user", name),
            EntityRef::new("accounting", name, "key"),
            EntityRef::new(name, "user", "key"),
        ] {
            let entity = entity.unwrap();
            let mut draft = world.draft(world.lane_of(&entity)).await;
            draft.set(&entity, &format!(r#"{{"n":{n}}}"#)).await;
            // A caller may be anything too.
            let key = stategate_model::IdempotencyKey::new(entity.domain(), name, name, "k");
            draft.keyed(key.unwrap(), digest(u8::try_from(n).unwrap()), 1);
            // `accounting` is written to once for each key and type: the key is one per caller.
            if entity.kind() == name {
                draft.batch.keys.clear();
            }
            events.push(draft.commit().await.remove(0));
        }
    }
    for event in &events {
        assert_eq!(
            event.version.get(),
            1,
            "{}: taken for another",
            event.entity
        );
        read_back(&world, event).await;
    }
    // Keys come in the order of their bytes.
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(world.keys(&entity_query("")).await, sorted);
    for (n, name) in names.iter().enumerate() {
        for (domain, kind) in [("accounting", name.as_str()), (name.as_str(), "user")] {
            let mut query = entity_query("");
            query.of = KindRef::new(domain, kind).unwrap();
            let found = world.entities(&query).await.items;
            assert_eq!(found.len(), 1, "{domain}/{kind}");
            assert_eq!(found[0].values, values(&format!(r#"{{"n":{n}}}"#)));
            let mut query = event_query("");
            query.of = KindRef::new(domain, kind).unwrap();
            assert_eq!(world.events(&query).await.items.len(), 1, "{domain}/{kind}");
        }
        let by_key = format!(
            r#"{{"entity.key":{}}}"#,
            serde_json::to_string(name).unwrap()
        );
        let found = world.events(&event_query(&by_key)).await.items;
        assert_eq!(found.len(), 1, "{by_key}");
        assert_eq!(found[0].entity.key(), name);
    }
    for (n, name) in names.iter().enumerate() {
        let lane = world.lanes().of(name);
        let key = stategate_model::IdempotencyKey::new(name, name, name, "k").unwrap();
        let loaded = world
            .store
            .load(lane, &[], &[key], usize::MAX)
            .await
            .unwrap();
        let replay = loaded.replays[0].as_ref().unwrap();
        assert_eq!(replay.digest, digest(u8::try_from(n).unwrap()), "{name}");
    }
}

pub(super) async fn the_borders_between_names_count(world: World) {
    let alike = [
        ("a", "bc", "d"),
        ("ab", "c", "d"),
        ("a", "b", "cd"),
        ("abc", "d", "d"),
    ];
    for (n, (domain, kind, key)) in alike.into_iter().enumerate() {
        let entity = EntityRef::new(domain, kind, key).unwrap();
        let event = world.set(&entity, &format!(r#"{{"n":{n}}}"#)).await;
        assert_eq!(event.version.get(), 1, "{entity}");
        read_back(&world, &event).await;
    }
    let keys = [idempotency("a", "bc"), idempotency("ab", "c")];
    for key in &keys {
        let lane = world.lanes().of(&key.domain);
        let loaded = world
            .store
            .load(lane, &[], &keys, usize::MAX)
            .await
            .unwrap();
        assert_eq!(loaded.replays, [None, None]);
    }
}

/// Documents that must survive, beyond what JSON text written by hand covers.
fn documents() -> Vec<Object> {
    let numbers = [
        0.0,
        5e-324,
        -5e-324,
        f64::MIN_POSITIVE,
        f64::MAX,
        f64::MIN,
        0.1,
        0.1 + 0.2,
        1.0 / 3.0,
        9_007_199_254_740_991.0,
        9_007_199_254_740_992.0,
        9_007_199_254_740_994.0,
        -9_007_199_254_740_993.0,
        9_223_372_036_854_775_807.0,
        18_446_744_073_709_551_615.0,
        1e15,
        1e16,
        1e17,
        1e21,
        1e22,
        1e23,
        123_456_789.123_456_79,
        2.225_073_858_507_201e-308,
        1.797_693_134_862_315_7e308,
        4.35,
        0.000_001,
        1e-7,
        100.0,
        -1.5,
    ];
    let mut documents: Vec<Object> = vec![
        numbers
            .iter()
            .enumerate()
            .map(|(n, number)| (format!("{n}"), Value::Number(*number)))
            .collect(),
    ];
    let texts = [
        "",
        " ",
        "a\tb\r\nc",
        "\u{1}\u{7}\u{8}\u{c}\u{1f}\u{7f}\u{80}\u{9f}",
        "\"\\/'`",
        "\u{2028}\u{2029}",
        "\u{10ffff}",
        "\u{fffe}\u{ffff}",
        "\u{d7ff}\u{e000}",
        "e\u{301}é",
        "😀👩‍👩‍👧",
        "%s%d%%",
        "${x}",
        "{{x}}",
        "NaN",
        "null",
        "1e400",
        "2020-01-01T00:00:00Z",
        "{\"$date\":0}",
        "\u{feff}",
        "<script>",
        "a;b",
    ];
    documents.push(
        texts
            .iter()
            .enumerate()
            .map(|(n, text)| (format!("{n}"), Value::from(*text)))
            .collect(),
    );
    let keys = [
        "",
        ".",
        "..",
        "a.b",
        "a..b",
        ".a",
        "a.",
        "$",
        "$a",
        "$set",
        "$where",
        "_id",
        "__proto__",
        "constructor",
        "toString",
        "a b",
        " ",
        "a\tb",
        "\"",
        "'",
        "\\",
        "\\u0041",
        "%",
        "a\u{301}",
        "á",
        "A",
        "a",
        "\u{10ffff}",
        "0",
        "00",
        "-0",
        "key",
        "values",
        "version",
        "null",
        "\u{1}",
        "[0]",
        "a[0]",
        "$oid",
        "@type",
        "😀",
    ];
    documents.push(
        keys.iter()
            .map(|key| ((*key).to_owned(), Value::from(*key)))
            .collect(),
    );
    let long = "k".repeat(70_000);
    documents.push(Object::from([(long, Value::Null)]));
    let mut deep = Value::Object(Object::new());
    for level in 2..limits::VALUE_DEPTH {
        deep = if level % 2 == 0 {
            Value::Array(vec![deep])
        } else {
            Value::Object(Object::from([("d".to_owned(), deep)]))
        };
    }
    documents.push(Object::from([("deep".to_owned(), deep)]));
    documents.push(Object::new());
    documents
}

pub(super) async fn values_survive_byte_for_byte(world: World) {
    let mut documents: Vec<Values> = documents()
        .into_iter()
        .map(|object| Values::new(object, &limits::Limits::default()).unwrap())
        .collect();
    for json in [
        r#"{"a":[],"b":{},"c":[[]],"d":[{}],"e":{"":{}},"f":[null,null]}"#,
        r#"{"a":null,"b":false,"c":true,"d":[true,false,null,"",0]}"#,
        r#"{"n":1.0,"m":1e2,"z":-0.0,"big":1e308,"s":"1.0"}"#,
    ] {
        documents.push(values(json));
    }
    for (n, document) in documents.into_iter().enumerate() {
        let entity = entity(&format!("e{n}"));
        let mut draft = world.next().await;
        draft.event(Method::Set, &entity, document.clone()).await;
        let event = draft.commit().await.remove(0);
        read_back(&world, &event).await;
        let mut found = world.entities(&entity_query("")).await.items;
        found.retain(|found| found.entity == entity);
        assert_eq!(found[0].values.json(), document.json());
        assert_eq!(
            found[0].values.object().unwrap(),
            document.object().unwrap()
        );
        let events = world.events(&event_query("")).await.items;
        assert_eq!(events.last(), Some(&event));
    }
}

pub(super) async fn large_values_survive(world: World) {
    let limits = limits::Limits {
        value_bytes: limits::VALUE_BYTES_MAX,
    };
    for bytes in [4_000, 64 << 10, 1 << 20, limits.value_bytes] {
        // Not the same byte throughout, so that a shifted page shows.
        let overhead = r#"{"text":""}"#.len();
        let text: String = (0..)
            .map(|n: u32| char::from(b'a' + (n % 23) as u8))
            .take(bytes - overhead)
            .collect();
        let object = Object::from([("text".to_owned(), Value::String(text))]);
        let large = Values::new(object, &limits).unwrap();
        assert_eq!(large.size(), bytes);
        let mut draft = world.next().await;
        draft.event(Method::Set, &entity("large"), large).await;
        draft.set(&entity("small"), "{}").await;
        let events = draft.commit().await;
        read_back(&world, &events[0]).await;
        read_back(&world, &events[1]).await;
    }
}

pub(super) async fn claims_and_traces_survive(world: World) {
    let claims = [
        "{}".to_owned(),
        r#"{"":{"":null},"$a.b":[1e300,5e-324],"iss":"é/e\u0301","sub":"\"'%_"}"#.to_owned(),
        format!(r#"{{"roles":"{}"}}"#, "r".repeat(limits::CLAIMS_BYTES - 12)),
    ];
    let traces = [
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-ffffffffffffffffffffffffffffffff-ffffffffffffffff-00",
    ];
    for (claims, trace) in claims.iter().zip(traces) {
        let mut draft = world.next().await;
        draft.set(&entity("a"), "{}").await;
        draft.signed(claims, trace);
        let event = draft.commit().await.remove(0);
        assert_eq!(
            event
                .trace_parent
                .as_ref()
                .map(TraceParent::as_str)
                .unwrap_or(""),
            trace
        );
        read_back(&world, &event).await;
    }
}

pub(super) async fn extreme_times_survive(world: World) {
    let entity = entity("a");
    let mut last = None;
    for time in [1, 1_700_000_000_000_000_001, i64::MAX - 1] {
        let mut draft = world.next().await;
        draft.set(&entity, "{}").await;
        draft.last().time = Timestamp(time);
        let event = draft.commit().await.remove(0);
        read_back(&world, &event).await;
        let found = world
            .store
            .get_at(&entity, At::Time(Timestamp(time)))
            .await
            .unwrap();
        assert_eq!(found.value.as_ref(), Some(&event));
        let found = world
            .store
            .get_at(&entity, At::Time(Timestamp(time - 1)))
            .await
            .unwrap();
        assert_eq!(found.value, last);
        last = Some(event);
    }
}
