//! Out of a gateway and into another: a history made again is the same history, a state set again the
//! same state, and neither an export nor an import that was cut off loses or repeats anything.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use stategate_client::{At, Client, EntityRef, Transaction, Version};
use stategate_tests::{
    Cli, Form, Gateway, Options, Role,
    cli::{DONE, FAILED, REFUSED, USAGE, Watch},
};

/// A gateway and what talks to it.
struct Place {
    gateway: Gateway,
    cli: Cli,
    client: Client,
}

async fn place(lanes: u8) -> Place {
    let mut gateway = Gateway::start(Options::new(Form::One).lanes(lanes)).await;
    let cli = Cli::new(&mut gateway);
    let address = gateway.process(Role::Everything).grpc();
    Place {
        client: Client::connect(format!("http://{address}")).unwrap(),
        gateway,
        cli,
    }
}

fn entity(domain: &str, kind: &str, key: &str) -> EntityRef {
    EntityRef::new(domain, kind, key).unwrap()
}

/// Every kind of write, over several domains, in an order that shows when it is not kept.
async fn live(client: &Client, round: usize) {
    let awkward = json!({"": null, "a.b": [1.5, -0.1, 1e300], "é": {"$x": "\u{7}\n\"", "n": {}}});
    for domain in ["acme", "globex", "initech"] {
        for n in 0..20 {
            let user = entity(domain, "user", &format!("u{}", n % 7));
            client
                .set(&user, json!({"round": round, "n": n, "odd": awkward}))
                .await
                .unwrap();
        }
        let user = entity(domain, "user", "u1");
        let edited = client.edit(&user, json!({"edited": round})).await.unwrap();
        client.del(&user).await.unwrap();
        let gone = entity(domain, "user", "u2");
        client.del(&gone).await.unwrap();
        // After a delete: to a version, and by a set.
        client
            .revert_to(&user, At::Version(edited.version))
            .await
            .unwrap();
        if round.is_multiple_of(2) {
            client.set(&gone, json!({"back": true})).await.unwrap();
        }
        client
            .revert_to(&entity(domain, "user", "u3"), At::Version(Version::new(1)))
            .await
            .unwrap();
        let order = entity(domain, "order", "1");
        client
            .transact(
                Transaction::new(domain)
                    .set(&order, json!({"total": round}))
                    .unwrap()
                    .edit(&order, json!({"paid": true}))
                    .unwrap()
                    .del(&order)
                    .unwrap()
                    .set(&order, json!({}))
                    .unwrap(),
            )
            .await
            .unwrap();
    }
}

/// The events of an exported history: what they made, without what is given anew.
fn made(path: &Path) -> BTreeMap<String, Vec<Value>> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.remove(0)["stategate_history"] == 1, "a header");
    assert!(lines.pop().unwrap()["end"].is_string(), "an end");
    let mut made: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in lines {
        for field in ["id", "time", "claims", "position", "method", "version"] {
            assert!(!line[field].is_null(), "every field of it: {line}");
        }
        let domain = line["entity"]["domain"].as_str().unwrap().to_owned();
        made.entry(domain).or_default().push(json!([
            line["entity"],
            line["method"],
            line["version"]
        ]));
    }
    made
}

/// Everything that exists, with its versions.
fn state(cli: &Cli) -> Vec<Value> {
    cli.lines(&["export"])
}

fn export(cli: &Cli, path: &Path, more: &[&str]) -> Value {
    let fixed = ["export", "--history", "--out", path.to_str().unwrap()];
    cli.line(&[&fixed[..], more].concat())
}

#[tokio::test]
async fn an_exported_history_is_made_again() {
    for lanes in [1, 4] {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let (from, to) = (place(lanes).await, place(lanes).await);
        for round in 0..6 {
            live(&from.client, round).await;
        }
        let (history, again) = (file("history.ndjson"), file("again.ndjson"));
        let exported = export(&from.cli, &history, &[]);
        let import = ["import", history.to_str().unwrap()];
        let imported = to.cli.line(&import);
        assert_eq!(imported["written"], exported["written"]);
        assert_eq!(imported["replayed"], 0);
        export(&to.cli, &again, &[]);
        let events = made(&history);
        assert_eq!(events, made(&again), "values, methods, versions, order");
        assert_eq!(state(&from.cli), state(&to.cli));
        let count: usize = events.values().map(Vec::len).sum();
        let methods: Vec<String> = events
            .values()
            .flatten()
            .map(|event| event[1].to_string())
            .collect();
        for method in ["Set", "Edit", "Revert", "Del"] {
            let of = methods.iter().filter(|made| made.contains(method)).count();
            assert!(of >= 15, "{of} events by {method}");
        }

        // A second run finds everything there.
        let imported = to.cli.line(&import);
        assert_eq!(imported["replayed"], json!(count));
        fs::remove_file(&again).unwrap();
        export(&to.cli, &again, &[]);
        assert_eq!(events, made(&again));

        // What happened since is added to the file, and imported without the rest.
        live(&from.client, 6).await;
        let more = export(&from.cli, &history, &["--resume"]);
        assert_eq!(more["before"], json!(count));
        let imported = to.cli.line(&import);
        let new = imported["written"].as_u64().unwrap() - imported["replayed"].as_u64().unwrap();
        assert_eq!(more["written"], json!(new));
        export(&to.cli, &again, &["--overwrite"]);
        assert_eq!(made(&history), made(&again));
        assert_eq!(state(&from.cli), state(&to.cli));
        println!("{lanes} lanes: {count} events made again, then {new} more");

        // Where an entity has another history, nothing is mixed into it.
        let other = place(lanes).await;
        let user = entity("acme", "user", "u1");
        other.client.set(&user, json!({"mine": 1})).await.unwrap();
        other
            .cli
            .run(&import)
            .ends(REFUSED)
            .says(&["acme/user/u", "gateway without these entities"]);
        let kept = other.client.get(&user).await.unwrap();
        assert_eq!(kept.values, json!({"mine": 1}));
        for place in [&from, &to, &other] {
            place.gateway.assert_no_errors();
        }
    }
}

/// Not only the same history: the same log, byte for byte, with its tokens.
#[tokio::test]
async fn a_log_is_restored_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let from = place(4).await;
    for round in 0..4 {
        live(&from.client, round).await;
    }
    let path = folder.path().join("history.ndjson");
    export(&from.cli, &path, &[]);
    let whole = fs::read_to_string(&path).unwrap();
    let storage = json!({"name": "sqlite", "path": file("restored.db")}).to_string();
    let (history, cut) = (file("history.ndjson"), file("cut.ndjson"));
    let restore = |history: &str| {
        from.cli
            .run(&["restore", history, "--to", &storage, "--json"])
    };

    // A file that was cut off in the middle of a line, then the whole.
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    restore(&cut)
        .ends(FAILED)
        .says(&["ends before its export did"]);
    let restored: Value = serde_json::from_str(&restore(&history).ends(DONE).stdout).unwrap();
    let events = whole.lines().count() - 2;
    assert_eq!(restored["events"], json!(events));
    let written = restored["written"].as_u64().unwrap();
    assert!(
        written > 0 && written < events as u64,
        "{written} of {events}"
    );

    let options = Options::new(Form::One).env("STATEGATE_STORAGE_PROVIDER", &storage);
    let mut gateway = Gateway::start(options).await;
    let cli = Cli::new(&mut gateway);
    let again = folder.path().join("again.ndjson");
    export(&cli, &again, &[]);
    assert_eq!(fs::read_to_string(&again).unwrap(), whole);
    assert_eq!(state(&cli), state(&from.cli));
    // It goes on from there.
    cli.line(&["set", "acme", "user", "u1", r#"{"new":true}"#]);
    gateway.assert_no_errors();
    drop(gateway);

    // What has other events is not added to, and a part of a log is none.
    restore(&history)
        .ends(REFUSED)
        .says(&["goes on after the end"]);
    let other = file("other.db");
    let empty = json!({"name": "sqlite", "path": other}).to_string();
    let mut lines: Vec<&str> = whole.lines().collect();
    lines.remove(5);
    fs::write(&cut, lines.join("\n") + "\n").unwrap();
    let to_empty = |history: &str| from.cli.run(&["restore", history, "--to", &empty]);
    to_empty(&cut)
        .ends(FAILED)
        .says(&["does not continue its lane"]);
    let part = folder.path().join("part.ndjson");
    export(&from.cli, &part, &["acme"]);
    to_empty(part.to_str().unwrap())
        .ends(FAILED)
        .says(&["a part of a log"]);
    let foreign = place(1).await;
    live(&foreign.client, 0).await;
    let theirs = folder.path().join("theirs.ndjson");
    export(&foreign.cli, &theirs, &[]);
    restore(theirs.to_str().unwrap())
        .ends(REFUSED)
        .says(&["holds another log"]);
}

#[tokio::test]
async fn an_export_that_was_cut_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(4).await;
    for round in 0..3 {
        live(&place.client, round).await;
    }
    let path = folder.path().join("history.ndjson");
    export(&place.cli, &path, &[]);
    let whole = fs::read_to_string(&path).unwrap();
    let state_path = folder.path().join("state.ndjson");
    let state_file = state_path.to_str().unwrap();
    place.cli.line(&["export", "--out", state_file]);
    let whole_state = fs::read_to_string(&state_path).unwrap();

    // Anywhere: within a line, at its end, before the first event.
    let mut cuts = 0;
    let lengths = [0, 10, 200, 5_000, 5_001, whole.len() / 2, whole.len() - 1];
    for length in lengths {
        fs::write(&path, &whole.as_bytes()[..length]).unwrap();
        export(&place.cli, &path, &["--resume"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), whole, "cut at {length}");
        let length = length * whole_state.len() / whole.len();
        fs::write(&state_path, &whole_state.as_bytes()[..length]).unwrap();
        place.cli.line(&["export", "--out", state_file, "--resume"]);
        assert_eq!(fs::read_to_string(&state_path).unwrap(), whole_state);
        cuts += 2;
    }
    println!("{cuts} exports went on where they were cut");

    // A file that ends early is imported as far as it goes, and said to be cut.
    let to = self::place(1).await;
    let half = whole.len() / 2;
    fs::write(&path, &whole.as_bytes()[..half]).unwrap();
    let import = ["import", path.to_str().unwrap()];
    to.cli.run(&import).ends(FAILED).says(&["--resume"]);
    export(&place.cli, &path, &["--resume"]);
    let imported = to.cli.line(&import);
    assert!(imported["replayed"].as_u64().unwrap() > 10, "{imported}");
    assert_eq!(state(&place.cli), state(&to.cli), "other lanes, same state");

    // Nothing is written over, and nothing is added to what is something else.
    let file = path.to_str().unwrap();
    let history = ["export", "--history", "--out", file];
    place.cli.run(&history).ends(USAGE).says(&["--overwrite"]);
    let resume = ["export", "--history", "acme", "--out", file, "--resume"];
    let refused = place.cli.run(&resume).ends(REFUSED);
    refused.says(&["another selection"]);
    let resume = ["export", "--history", "--out", file, "--resume"];
    to.cli.run(&resume).ends(REFUSED).says(&["another log"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), whole);
}

#[tokio::test]
async fn an_exported_state_is_set_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (from, to) = (place(1).await, place(1).await);
    live(&from.client, 1).await;
    let values = |cli: &Cli| -> Vec<Value> {
        let mut state = state(cli);
        for entity in &mut state {
            entity.as_object_mut().unwrap().remove("version");
        }
        state
    };
    for name in ["state.ndjson", "state.json"] {
        let path = file(name);
        let exported = from.cli.line(&["export", "--out", &path]);
        let imported = to.cli.line(&["import", &path]);
        assert_eq!(imported["written"], exported["written"]);
        assert_eq!(values(&from.cli), values(&to.cli), "{name}");
    }
    // A sheet has every value.
    let path = file("users.csv");
    from.cli.line(&["export", "acme", "user", "--out", &path]);
    let mut rows = csv::Reader::from_path(&path).unwrap();
    let rows: Vec<BTreeMap<String, String>> = rows.deserialize().map(Result::unwrap).collect();
    let users = from.cli.all("acme", "user");
    assert_eq!(rows.len(), users.len());
    for row in &rows {
        let values = &users[&row["@key"]];
        if let Some(odd) = values.get("odd") {
            assert_eq!(&serde_json::from_str::<Value>(&row["odd"]).unwrap(), odd);
        }
    }
    // Part of it: a glob of types, a glob of keys, a filter.
    let found = from.cli.lines(&["export", "acme", "u*", "--key", "u[34]"]);
    assert_eq!(found.len(), 2);
    let filter = r#"{"n": {"$gte": 18}}"#;
    let found = from
        .cli
        .lines(&["export", "acme", "user", "--filter", filter]);
    assert!(
        found
            .iter()
            .all(|entity| entity["values"]["n"].as_f64() >= Some(18.0))
    );
    assert_eq!(found.len(), 2);
}

#[tokio::test]
async fn an_import_that_is_killed_goes_on() {
    const PLANES: usize = 3_322;
    let place = place(1).await;
    let arguments = place.cli.import(
        "planes.csv",
        "plane",
        "tailnum",
        &["--text", "model", "--resume", "planes"],
    );
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let watch = Watch::start(&place.cli, &["watch", "--from", "beginning"]);
    let mut killed = 0;
    let mut seen = 0;
    // Killed again and again, each time a little further on.
    while killed < 3 {
        let mut import = place
            .cli
            .command(&arguments)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..400 {
            watch.next();
            seen += 1;
        }
        import.kill().unwrap();
        import.wait().unwrap();
        killed += 1;
    }
    let counts = place.cli.line(&arguments);
    assert_eq!(counts["written"], json!(PLANES));
    let replayed = counts["replayed"].as_u64().unwrap();
    assert!(replayed >= 1_200, "{counts}");
    while seen < PLANES {
        let event = watch.next();
        assert_eq!(event["version"], "1", "no row is written twice");
        seen += 1;
    }
    let stats = place.cli.line(&["stats"]);
    assert_eq!(
        (&stats["events"], &stats["entities"]),
        (&json!(PLANES), &json!(PLANES))
    );
    println!("killed {killed} times; {replayed} of {PLANES} rows were there already");

    place.gateway.assert_no_errors();
}

#[tokio::test]
async fn many_are_deleted_only_when_told_so() {
    let place = place(1).await;
    for n in 0..1_200 {
        let entity = entity("d", "t", &format!("k{n}"));
        place.client.set(&entity, json!({"n": n})).await.unwrap();
    }
    let filter = r#"{"n": {"$gte": 100}}"#;
    let del = ["del", "d", "t", "--filter", filter];
    place
        .cli
        .run(&del)
        .ends(USAGE)
        .says(&["1,100 entities", "--yes"]);
    let dry = place.cli.lines(&[&del[..], &["--dry-run"]].concat());
    assert_eq!(dry.len(), 1_100);
    assert_eq!(
        place.cli.lines(&["search", "d", "t", "--limit", "0"]).len(),
        1_200
    );
    let done = place.cli.line(&[&del[..], &["--yes"]].concat());
    assert_eq!(done["deleted"], 1_100);
    let done = place
        .cli
        .line(&["del", "d", "t", "--match", "k[1-5]", "--yes"]);
    assert_eq!(done["deleted"], 5);
    assert_eq!(
        place.cli.lines(&["search", "d", "t", "--limit", "0"]).len(),
        95
    );
    let gone = place.cli.run(&["get", "d", "t", "k3"]).ends(3);
    gone.says(&["stategate revert d t k3 --version 1"]);
    place
        .cli
        .run(&["revert", "d", "t", "k3", "--version", "1"])
        .ends(DONE);
}

/// What is wrong with a history is said of it, by whatever reads it, and nothing of it is taken for done.
#[tokio::test]
async fn a_history_that_was_damaged_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (from, other) = (place(2).await, place(1).await);
    for round in 0..2 {
        live(&from.client, round).await;
    }
    live(&other.client, 0).await;
    let path = folder.path().join("history.ndjson");
    export(&from.cli, &path, &[]);
    let whole = fs::read_to_string(&path).unwrap();
    let foreign = folder.path().join("foreign.ndjson");
    export(&other.cli, &foreign, &[]);
    let foreign = fs::read_to_string(&foreign).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let (middle, last) = (lines.len() / 2, lines.len() - 1);
    let edited = |at: usize, pointer: &str, value: Value| {
        let mut event: Value = serde_json::from_str(lines[at]).unwrap();
        *event.pointer_mut(pointer).unwrap() = value;
        event.to_string()
    };
    let del = lines
        .iter()
        .position(|line| line.contains("EntityService/Del"));
    let del = del.unwrap();
    let with = |at: usize, line: &str| {
        let mut with = lines.clone();
        with[at] = line;
        with.join("\n")
    };
    let mut damaged: Vec<(&str, String)> = Vec::new();
    let mut damage = |what, lines: Vec<&str>| damaged.push((what, lines.join("\n")));
    let mut some = lines.clone();
    some.remove(middle);
    damage("without a line", some);
    let mut some = lines.clone();
    some.remove(1);
    damage("without the first event", some);
    let mut some = lines.clone();
    some.remove(last - 1);
    damage("without the last event", some);
    let mut some = lines.clone();
    some.swap(middle, middle + 1);
    some.swap(middle + 1, middle + 2);
    damage("out of order", some);
    let blocks = [
        &lines[..1],
        &lines[middle..last],
        &lines[1..middle],
        &lines[last..],
    ];
    damage("with blocks swapped", blocks.concat());
    let mut some = lines.clone();
    some.insert(middle, lines[middle]);
    damage("with a line doubled", some);
    let one_lane = |line: &&&str| !line.contains(r#""lane":1"#);
    damage(
        "without a lane",
        lines.iter().filter(one_lane).copied().collect(),
    );
    let two: Vec<&str> = lines.iter().copied().chain(foreign.lines()).collect();
    damage("with another log's", two);
    let twice: Vec<&str> = lines.iter().chain(&lines).copied().collect();
    damage("twice", twice);
    let blank = r#"{"half":"#;
    damaged.push(("with half a line", with(middle, blank)));
    damaged.push((
        "with a version altered",
        with(middle, &edited(middle, "/version", json!("77"))),
    ));
    damaged.push((
        "with a position altered",
        with(middle, &edited(middle, "/position", json!("1"))),
    ));
    damaged.push((
        "with a time altered",
        with(middle, &edited(middle, "/time", json!("1"))),
    ));
    let values = edited(del, "/entity/values", json!({"other": 1}));
    damaged.push(("with a delete altered", with(del, &values)));
    damaged.push(("with two lines run together", {
        let mut text = whole.clone();
        let at = text.find("}\n{").unwrap();
        text.remove(text[at + 3..].find("}\n{").unwrap() + at + 4);
        text
    }));
    for (what, text) in &damaged {
        let text = format!("{text}\n");
        let name = file("damaged.ndjson");
        fs::write(&name, &text).unwrap();
        let to = place(2).await;
        let ran = to.cli.run(&["import", &name]).ends(FAILED);
        assert!(ran.stderr.contains("line "), "{what}: {ran:#?}");
        let counts = ran.lines().remove(0);
        let stats = to.cli.line(&["stats"]);
        assert_eq!(
            counts["written"], stats["events"],
            "{what}: counts are true"
        );

        let storage = tempfile::tempdir().unwrap();
        let database = storage.path().join("restored.db");
        let config = json!({"name": "sqlite", "path": database}).to_string();
        let ran = to.cli.run(&["restore", &name, "--to", &config]);
        let ran = ran.ends(FAILED).says(&["line "]);
        assert_eq!(ran.stdout, "", "{what}");

        // And it is not gone on with, nor cut where it is wrong. (One that was made longer is cut.)
        let ran = from
            .cli
            .run(&["export", "--history", "--out", &name, "--resume"]);
        ran.ends(FAILED).says(&["line "]);
        assert_eq!(fs::read_to_string(&name).unwrap(), text, "{what}");
        println!("{what}: refused");
    }

    // A part of the history has holes where other entities were, and none where its own are.
    let part = folder.path().join("part.ndjson");
    export(&from.cli, &part, &["acme", "user"]);
    let text = fs::read_to_string(&part).unwrap();
    let to = place(2).await;
    to.cli.line(&["import", part.to_str().unwrap()]);
    let mut lines: Vec<&str> = text.lines().collect();
    lines.remove(lines.len() / 2);
    fs::write(&part, lines.join("\n")).unwrap();
    let to = place(2).await;
    let ran = to.cli.run(&["import", part.to_str().unwrap()]);
    ran.ends(FAILED).says(&["version"]);

    // The end of the last line is nobody's loss.
    fs::write(&part, whole.trim_end()).unwrap();
    let to = place(2).await;
    to.cli.line(&["import", part.to_str().unwrap()]);
    assert_eq!(state(&from.cli), state(&to.cli));
}

#[tokio::test]
async fn a_sheet_holds_no_formulas_and_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (from, to) = (place(1).await, place(1).await);
    let texts = [
        "=HYPERLINK(\"http://x\")",
        "+1",
        "-1",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "'=1",
        "''",
        "'",
        "",
        "plain",
        "it's",
        "5",
        "007",
        "1e5",
        "true",
        "null",
        "NA",
        "{\"a\":1}",
        "[1]",
        "a,b;c\td\"e\nf",
    ];
    for (n, text) in texts.iter().enumerate() {
        let values = json!({"text": text, "=n": n, "-m": -1.5, "@key": null, "nested": {"=x": ["=1", null]}});
        let key = entity("d", "t", &format!("=k{n}"));
        from.client.set(&key, values).await.unwrap();
    }
    let odd = entity("d", "t", "+odd");
    from.client
        .set(&odd, json!({"": 1e300, "+other": [], "text": 5}))
        .await
        .unwrap();
    let other = entity("d", "u", "@u");
    from.client.set(&other, json!({"text": "-"})).await.unwrap();

    let all = |cli: &Cli| (cli.all("d", "t"), cli.all("d", "u"));
    for (name, delimiter) in [("sheet.csv", b','), ("sheet.tsv", b'\t')] {
        let path = file(name);
        from.cli.line(&["export", "d", "t", "--out", &path]);
        let mut rows = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .from_path(&path)
            .unwrap();
        let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), texts.len() + 2);
        for (at, row) in rows.iter().enumerate() {
            let cells = row.iter().skip(if at == 0 { 2 } else { 0 });
            for cell in cells.filter(|cell| cell.parse::<f64>().is_err()) {
                assert!(
                    !cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']),
                    "{cell:?}"
                );
            }
        }
        let to = place(1).await;
        to.cli
            .line(&["import", &path, "--domain", "d", "--type", "t"]);
        assert_eq!(to.cli.all("d", "t"), from.cli.all("d", "t"), "{name}");
    }
    // Of several types, which the rows name.
    let path = file("both.csv");
    from.cli.line(&["export", "d", "*", "--out", &path]);
    to.cli.line(&["import", &path]);
    assert_eq!(all(&to.cli), all(&from.cli));
    // Byte for byte, for who asks for it.
    let path = file("exact.csv");
    from.cli
        .line(&["export", "d", "u", "--exact", "--out", &path]);
    let exact = "@key,@version,text\n@u,1,-\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), exact);
    let to = place(1).await;
    let import = ["import", &path, "--domain", "d", "--type", "u", "--exact"];
    to.cli.line(&import);
    assert_eq!(to.cli.all("d", "u"), from.cli.all("d", "u"));
    from.cli.run(&["export", "d", "u", "--exact"]).ends(USAGE);
    from.cli
        .run(&["export", "d", "u", "--out", &file("x.csv.gz")])
        .ends(USAGE)
        .says(&["gzip"]);
}

#[tokio::test]
async fn compressed_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(1).await;
    let plain = folder.path().join("rows.csv");
    let rows: String = (0..500).map(|n| format!("k{n},{n}\n")).collect();
    fs::write(&plain, format!("id,n\n{rows}")).unwrap();
    // As people pack them; the programs are on every machine that builds this.
    let packed = Command::new("gzip").arg("--keep").arg(&plain).status();
    assert!(packed.unwrap().success());
    let packed = folder.path().join("rows.csv.gz");
    let path = packed.to_str().unwrap();
    let fixed = ["--domain", "d", "--type", "t", "--key", "id"];
    let counts = place.cli.line(&[&["import", path], &fixed[..]].concat());
    assert_eq!(counts["written"], 500);
    // From stdin, by what it holds.
    let from_stdin = [&["import", "-", "--format", "csv"], &fixed[..]].concat();
    let ran = place
        .cli
        .command(&from_stdin)
        .stdin(fs::File::open(&packed).unwrap())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    // Cut off, it is an error, and so is what is read otherwise.
    let bytes = fs::read(&packed).unwrap();
    fs::write(&packed, &bytes[..bytes.len() - 3]).unwrap();
    place
        .cli
        .run(&[&["import", path], &fixed[..]].concat())
        .ends(FAILED)
        .says(&["ends early"]);
    let zip = folder.path().join("rows.csv.zip");
    fs::write(&zip, b"PK\x03\x04\x14\0\0\0").unwrap();
    place
        .cli
        .run(&[&["import", zip.to_str().unwrap()], &fixed[..]].concat())
        .ends(FAILED)
        .says(&["zip"]);

    // A history, into a gateway and into a storage.
    let history = folder.path().join("history.ndjson");
    export(&place.cli, &history, &[]);
    assert!(
        Command::new("gzip")
            .arg(&history)
            .status()
            .unwrap()
            .success()
    );
    let history = folder.path().join("history.ndjson.gz");
    let to = self::place(1).await;
    to.cli.line(&["import", history.to_str().unwrap()]);
    assert_eq!(state(&to.cli), state(&place.cli));
    let database = folder.path().join("restored.db");
    let config = json!({"name": "sqlite", "path": database}).to_string();
    to.cli
        .run(&["restore", history.to_str().unwrap(), "--to", &config])
        .ends(DONE);
}
