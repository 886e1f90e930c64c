//! The real data of `examples/` through the commands that a person types: import, watch, search, edit,
//! del, history, revert, get; what they print, and how they end.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

use std::{
    collections::{BTreeMap, HashSet},
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use serde_json::{Map, Value, json};
use stategate_protocol::pb::stream_opts::Start;
use stategate_tests::{
    Ask, Cli, Form, Gateway, Options, Role,
    ask::values_of,
    cli::{DONE, FAILED, NOT_FOUND, REFUSED, ROWS_FAILED, UNAVAILABLE, USAGE, Watch, examples},
    clients::everything,
    is_long,
};

/// The rows of the files.
const AIRPORTS: usize = 1_458;
const PLANES: usize = 3_322;
const FLIGHTS: usize = 336_776;

/// The rows of a file, as their cells stand in it.
fn rows(file: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(examples().join(file)).unwrap();
    reader.deserialize().map(Result::unwrap).collect()
}

/// What a cell stands for, by another rule than that of the import: this data has no cell in which
/// the two differ.
fn meaning(cell: &str, is_text: bool) -> Value {
    if is_text {
        return cell.into();
    }
    if cell.is_empty() || cell == "NA" {
        return Value::Null;
    }
    let is_code = cell.starts_with('0') && !cell.starts_with("0.") && cell != "0";
    match cell.parse::<f64>() {
        Ok(number) if !is_code && !cell.contains(char::is_alphabetic) => json!(number),
        _ => cell.into(),
    }
}

/// The same, whether whole numbers are printed with a fraction or not.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        #[allow(clippy::float_cmp, reason = "read back to the bit")]
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// How many cells there were of each kind.
fn compare(
    rows: &[BTreeMap<String, String>],
    key: &str,
    texts: &[&str],
    found: &BTreeMap<String, Map<String, Value>>,
) -> [usize; 3] {
    assert_eq!(found.len(), rows.len());
    let mut kinds = [0; 3];
    for row in rows {
        let values = &found[&row[key]];
        assert_eq!(values.len(), row.len(), "every column is there: {values:?}");
        for (column, cell) in row {
            let expected = meaning(cell, texts.contains(&column.as_str()));
            let value = &values[column];
            assert!(
                same(value, &expected),
                "{column} of {} is {value}, not {expected}",
                row[key]
            );
            match expected {
                Value::Null => kinds[0] += 1,
                Value::Number(_) => kinds[1] += 1,
                _ => kinds[2] += 1,
            }
        }
    }
    kinds
}

#[tokio::test]
async fn airports_and_planes_are_imported_and_watched() {
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let cli = Cli::new(&mut gateway);

    // Live from before the first row: once it prints a marker, it is in force.
    let watch = Watch::start(&cli, &["watch", "--domain", "faa"]);
    let elsewhere = Watch::start(&cli, &["watch", "--domain", "elsewhere"]);
    let first = loop {
        cli.run(&["set", "faa", "marker", "m", "{}"]).ends(DONE);
        if let Ok(first) = watch.lines.try_recv() {
            break first;
        }
    };
    assert_eq!(first["entity"]["type"], "marker");

    // Both files at once.
    let importing = [
        cli.import("airports.csv", "airport", "faa", &[]),
        cli.import("planes.csv", "plane", "tailnum", &["--text", "model"]),
    ];
    let importing = importing.map(|arguments| {
        let cli = cli.clone();
        thread::spawn(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            cli.line(&arguments)
        })
    });
    for (import, rows) in importing.into_iter().zip([AIRPORTS, PLANES]) {
        let counts = import.join().unwrap();
        assert_eq!(
            (&counts["rows"], &counts["written"]),
            (&json!(rows), &json!(rows))
        );
        assert_eq!(counts["failed"], json!(0));
        assert!(counts["rows_per_second"].as_f64().unwrap() > 0.0);
        println!("{counts}");
    }

    // Every cell of every row.
    let (airports, planes) = (rows("airports.csv"), rows("planes.csv"));
    assert_eq!((airports.len(), planes.len()), (AIRPORTS, PLANES));
    let kinds = compare(&airports, "faa", &[], &cli.all("faa", "airport"));
    println!("airports: {kinds:?} cells are null, numbers and strings");
    assert!(
        kinds[1] >= 4 * AIRPORTS - 10 && kinds[2] >= 3 * AIRPORTS,
        "{kinds:?}"
    );
    let kinds = compare(&planes, "tailnum", &["model"], &cli.all("faa", "plane"));
    println!("planes: {kinds:?} cells are null, numbers and strings");
    assert!(
        kinds[0] >= PLANES * 9 / 10,
        "nearly every speed is NA: {kinds:?}"
    );

    // What the data says, counted without stategate.
    let filter = r#"{"manufacturer": "EMBRAER", "seats": {"$gte": 50}}"#;
    let is_large = |row: &BTreeMap<String, String>| {
        row["manufacturer"] == "EMBRAER" && row["seats"].parse::<f64>().is_ok_and(|n| n >= 50.0)
    };
    let expected: HashSet<&str> = planes
        .iter()
        .filter(|row| is_large(row))
        .map(|row| row["tailnum"].as_str())
        .collect();
    assert!(expected.len() > 100, "{}", expected.len());
    let found = cli.lines(&["search", "faa", "plane", filter, "--limit", "0"]);
    let keys: HashSet<&str> = found.iter().map(|e| e["key"].as_str().unwrap()).collect();
    assert_eq!(keys, expected);
    println!("{} planes of EMBRAER have 50 seats or more", keys.len());
    let oldest = cli.lines(&[
        "search", "faa", "plane", filter, "--sort", "year", "--limit", "10",
    ]);
    let years = oldest
        .iter()
        .map(|entity| entity["values"]["year"].as_f64().unwrap_or(0.0));
    let years: Vec<f64> = years.collect();
    assert_eq!(years.len(), 10);
    assert!(years.is_sorted(), "{years:?}");
    let null = cli.lines(&[
        "search",
        "faa",
        "plane",
        r#"{"speed": null}"#,
        "--limit",
        "0",
    ]);
    assert_eq!(
        null.len(),
        planes.iter().filter(|row| row["speed"] == "NA").count()
    );

    // Edit some, delete one, revert it.
    for key in ["JFK", "LGA", "EWR"] {
        let edited = cli.line(&[
            "edit",
            "faa",
            "airport",
            key,
            r#"{"alt": 14, "busy": true}"#,
        ]);
        assert_eq!(
            (&edited["version"], &edited["values"]["alt"]),
            (&json!("2"), &json!(14))
        );
    }
    let deleted = cli.line(&["del", "faa", "airport", "JFK"]);
    assert_eq!(deleted["version"], "3");
    cli.run(&["get", "faa", "airport", "JFK"])
        .ends(NOT_FOUND)
        .says(&["faa/airport/JFK"]);
    let history = cli.lines(&["history", "faa", "airport", "JFK"]);
    let methods: Vec<&str> = history
        .iter()
        .map(|e| e["method"].as_str().unwrap())
        .collect();
    let full = |name: &str| format!("/stategate.EntityService/{name}");
    assert_eq!(methods, [full("Set"), full("Edit"), full("Del")]);
    let id = history[0]["id"].as_str().unwrap();
    let reverted = cli.line(&["revert", "faa", "airport", "JFK", "--to", id]);
    assert_eq!(reverted["version"], "4");
    let got = cli.line(&["get", "faa", "airport", "JFK"]);
    assert_eq!(got["values"], history[0]["entity"]["values"], "as it was");
    assert_eq!(
        (&got["values"]["alt"], &got["version"]),
        (&json!(13), &json!("4"))
    );
    assert!(got["values"].get("busy").is_none());
    let then = cli.line(&["get", "faa", "airport", "JFK", "--version", "2"]);
    assert_eq!(then["values"]["alt"], json!(14));

    // The watch has printed every change exactly once, in order.
    let mut watched = vec![first];
    while watched.last().unwrap()["method"] != full("Revert") {
        watched.push(watch.next());
    }
    let (rest, said) = watch.interrupt();
    assert!(rest.is_empty(), "{rest:?}");
    let ask = Ask::new(&mut gateway);
    let mut stream = ask
        .stream(everything(Some(Start::FromBeginning(true))))
        .await
        .unwrap();
    let position =
        |event: &Value| -> usize { event["position"].as_str().unwrap().parse().unwrap() };
    let last = position(watched.last().unwrap());
    let log = stream.take(last).await;
    let from = position(&watched[0]) - 1;
    assert_eq!(watched.len(), last - from);
    for (event, printed) in log[from..].iter().zip(&watched) {
        assert_eq!(
            printed["id"], event.id,
            "in order, none missing, none twice"
        );
        assert_eq!(printed["time"], event.time.to_string());
        assert_eq!(printed["method"], event.method);
        let values: Value = serde_json::from_str(&values_of(event)).unwrap();
        assert_eq!(printed["entity"]["values"], values);
    }
    let of = |kind: &str| {
        watched
            .iter()
            .filter(|e| e["entity"]["type"] == kind)
            .count()
    };
    assert_eq!((of("airport"), of("plane")), (AIRPORTS + 5, PLANES));
    println!(
        "{} changes were watched live, each once and in order",
        watched.len()
    );
    // Where it was, to go on from.
    let token = said.rsplit("read up to ").next().unwrap().trim();
    assert!(token.ends_with(&format!(":{last}")), "{said}");
    cli.run(&["edit", "faa", "airport", "JFK", "{}"]).ends(DONE);
    let next = cli.line(&["watch", "--domain", "faa", "--from", token, "--limit", "1"]);
    assert_eq!(position(&next), last + 1);
    let (others, _) = elsewhere.interrupt();
    assert!(others.is_empty(), "nothing happened there: {others:?}");
    gateway.assert_no_errors();
}

#[tokio::test]
async fn bad_rows_are_named_and_do_not_stop_the_rest() {
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let cli = Cli::new(&mut gateway);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.csv");
    let long = "x".repeat(300);
    let rows = [
        "id,name,n",
        "a,good,1",
        ",no key,2",
        "NA,no key either,3",
        "with space,a key with white space,4",
        "b,too few",
        "c,too,many,cells",
        "d,good,NA",
        &format!("{long},a long key,5"),
        "e,\"over\ntwo lines\",6",
        "..,a key that is none,7",
        "f,good,8",
    ];
    fs::write(&path, rows.join("\n")).unwrap();
    let file = path.to_str().unwrap();
    let import = |kind: &str, more: &[&str]| {
        let fixed = [
            "import", file, "--domain", "d", "--type", kind, "--key", "id",
        ];
        cli.run(&[&fixed[..], more].concat())
    };
    let ran = import("t", &[]).ends(ROWS_FAILED);
    let counts = ran.lines().remove(0);
    assert_eq!(counts["rows"], json!(11));
    assert_eq!(
        (&counts["written"], &counts["failed"]),
        (&json!(4), &json!(7))
    );
    for line in [
        "line 3", "line 4", "line 5", "line 6", "line 7", "line 9", "line 12",
    ] {
        let named = ran
            .stderr
            .lines()
            .filter(|said| said.starts_with(line))
            .count();
        assert_eq!(named, 1, "{line} is named once: {}", ran.stderr);
    }
    ran.says(&["`id`", "white space", "7 of 11 rows failed"]);
    let found = cli.lines(&["search", "d", "t"]);
    let keys: Vec<&str> = found
        .iter()
        .map(|entity| entity["key"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["a", "d", "e", "f"]);
    assert_eq!(found[1]["values"]["n"], Value::Null);
    assert_eq!(found[2]["values"]["name"], "over\ntwo lines");

    // The first one ends it, and what was read after it is not written.
    let ran = import("strict", &["--strict", "--concurrency", "1"]).ends(ROWS_FAILED);
    let counts = ran.lines().remove(0);
    assert_eq!(
        (&counts["written"], &counts["failed"]),
        (&json!(1), &json!(1))
    );
    ran.says(&["line 3", "--strict"]);
    let found = cli.lines(&["search", "d", "strict"]);
    assert_eq!(found.len(), 1);

    // JSON lines: numbers that a double cannot hold are refused, duplicates too.
    let path = folder.path().join("rows.ndjson");
    let rows = [
        r#"{"id":"a","n":9007199254740993}"#,
        r#"{"id":"b","n":1,"n":2}"#,
        r#"{"id":"c","n":"\u0000"}"#,
        r#"{"id":"d""#,
        r#"{"n":1}"#,
        r#"{"id":"e","nested":{"n":[1.5,null]}}"#,
    ];
    fs::write(&path, rows.join("\n")).unwrap();
    let ran = cli
        .run(&[
            "import",
            path.to_str().unwrap(),
            "--domain",
            "d",
            "--type",
            "j",
            "--key",
            "id",
        ])
        .ends(ROWS_FAILED)
        .says(&["line 1", "line 2", "line 3", "line 4", "line 5"]);
    let counts = ran.lines().remove(0);
    assert_eq!(
        (&counts["written"], &counts["failed"]),
        (&json!(1), &json!(5))
    );
    gateway.assert_no_errors();
}

#[tokio::test]
async fn exit_codes_mean_what_help_says() {
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let cli = Cli::new(&mut gateway);
    let help = cli.run(&["--help"]).ends(DONE);
    for code in 0..=6 {
        assert!(
            help.stdout.contains(&format!("\n  {code}  ")),
            "{}",
            help.stdout
        );
    }
    cli.run(&["set", "d", "t", "k", r#"{"n": 1}"#]).ends(DONE);
    let id = cli.lines(&["history", "d", "t", "k"])[0]["id"].clone();
    let id = id.as_str().unwrap();
    let some = "1b4e28ba-2fa1-4d2b-883f-0016d3cca427";
    let nowhere = examples().join("nowhere.csv");
    let nowhere = nowhere.to_str().unwrap();
    let airports = examples().join("airports.csv");
    let airports = airports.to_str().unwrap();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["get", "d", "t", "absent"], NOT_FOUND, "d/t/absent"),
        (
            &["get", "d", "t", "k", "--version", "9"],
            NOT_FOUND,
            "version 9",
        ),
        (&["edit", "d", "t", "absent", "{}"], NOT_FOUND, "d/t/absent"),
        (&["del", "d", "t", "absent"], NOT_FOUND, "d/t/absent"),
        (&["history", "d", "t", "absent"], NOT_FOUND, "d/t/absent"),
        (&["revert", "d", "t", "k", "--to", some], NOT_FOUND, ""),
        (&["revert", "d", "t", "other", "--to", id], NOT_FOUND, ""),
        (&["revert", "d", "t", "k", "--to", "x"], REFUSED, "id"),
        (&["set", "d", "t", "a b", "{}"], REFUSED, "key"),
        (&["set", "d", "t", "k", "[]"], REFUSED, "values"),
        (&["set", "d", "t", "k", "{"], REFUSED, "values"),
        (
            &["set", "d", "t", "k", r#"{"n":9007199254740993}"#],
            REFUSED,
            "`n`",
        ),
        (
            &["get", "d", "t", "k", "--version", "0"],
            REFUSED,
            "at_version",
        ),
        (&["get", "d", "t", "kk"], NOT_FOUND, "did you mean k?"),
        (&["get", "d", "tt", "k"], NOT_FOUND, "nothing of d/tt"),
        (&["diff", "d", "t", "k", "1", "9"], NOT_FOUND, "version 9"),
        (&["diff", "d", "t", "k", "soon"], USAGE, "soon"),
        (&["events", "d", "t", "{"], REFUSED, "query_string"),
        (&["del", "d", "t", "--filter", "{}"], USAGE, "--yes"),
        (&["del", "d", "t"], USAGE, "KEY"),
        (
            &["set", "d", "t", "k", "{}", "--if-version", "9"],
            REFUSED,
            "version 1",
        ),
        (
            &["set", "d", "t", "k", "{}", "--if-absent"],
            REFUSED,
            "version 1",
        ),
        (
            &["set", "d", "t", "k", "{}", "--idempotency-key", "a b"],
            REFUSED,
            "idempotency-key",
        ),
        (
            &["get", "d", "t", "k", "--token-file", nowhere],
            USAGE,
            "--token-file",
        ),
        (
            &["export", "d", "t", "--out", airports],
            USAGE,
            "--overwrite",
        ),
        (&["search", "d", "t", "{"], REFUSED, "query_string"),
        (
            &["search", "d", "t", r#"{"$where":"1"}"#],
            REFUSED,
            "$where",
        ),
        (&["watch", "--domain", "["], REFUSED, "domain"),
        (&["watch", "--filter", "x"], REFUSED, "query_string"),
        (&["watch", "--method", "get"], USAGE, "--method"),
        (
            &["watch", "--from", &format!("{some}/0:1")],
            REFUSED,
            "another log",
        ),
        (&["watch", "--from", "nonsense"], USAGE, "--from"),
        (&["get", "d", "t"], USAGE, "KEY"),
        (&["nonsense"], USAGE, "nonsense"),
        (
            &["import", airports, "--domain", "d", "--type", "t"],
            USAGE,
            "--key",
        ),
        (
            &[
                "import", airports, "--domain", "a b", "--type", "t", "--key", "faa",
            ],
            USAGE,
            "--domain",
        ),
        (
            &[
                "import", airports, "--domain", "d", "--type", "t", "--key", "{faa",
            ],
            USAGE,
            "brace",
        ),
        (
            &[
                "import", nowhere, "--domain", "d", "--type", "t", "--key", "faa",
            ],
            FAILED,
            "nowhere.csv",
        ),
        (
            &["--addr", "127.0.0.1:1", "get", "d", "t", "k"],
            UNAVAILABLE,
            "127.0.0.1:1",
        ),
    ];
    for (arguments, code, word) in cases {
        let ran = cli.run(arguments).ends(*code).says(&[word]);
        assert_eq!(ran.stdout, "", "answers alone go to stdout: {ran:#?}");
        assert!(!ran.stderr.contains("panicked"), "{ran:#?}");
    }
    println!("{} commands ended as documented", cases.len());
    let unchanged = cli.lines(&["history", "d", "t", "k"]);
    assert_eq!(unchanged.len(), 1);
    gateway.assert_no_errors();
}

/// `flights.csv`: the one that `STATEGATE_TEST_FLIGHTS` names, or what `examples/flights.sh` gets.
fn flights(folder: &Path) -> PathBuf {
    if let Some(path) = env::var_os("STATEGATE_TEST_FLIGHTS") {
        return path.into();
    }
    let got = Command::new(examples().join("flights.sh"))
        .arg(folder)
        .status();
    assert!(got.unwrap().success(), "examples/flights.sh");
    folder.join("flights.csv")
}

#[tokio::test]
async fn all_flights_are_imported_and_streamed() {
    if !is_long() {
        println!("not run: STATEGATE_TEST_LONG=1 imports and streams {FLIGHTS} flights");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = flights(folder.path());
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let cli = Cli::new(&mut gateway);
    let mebibytes =
        |gateway: &mut Gateway| gateway.process(Role::Everything).resident_bytes() >> 20;
    let before = mebibytes(&mut gateway);

    let begun = Instant::now();
    let key = "{carrier}{flight}-{origin}-{time_hour}";
    let import = [
        "import",
        path.to_str().unwrap(),
        "--domain",
        "nyc",
        "--type",
        "flight",
        "--key",
        key,
        "--resume",
        "flights-2013",
    ];
    // The first run is killed on its way, and the second goes on.
    let mut killed = cli.command(&import).stdout(Stdio::null()).spawn().unwrap();
    let midway = (FLIGHTS / 3).to_string();
    cli.run(&[
        "watch",
        "--domain",
        "nyc",
        "--from",
        "beginning",
        "--limit",
        &midway,
    ])
    .ends(DONE);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let counts = cli.line(&import);
    assert!(counts["replayed"].as_u64().unwrap() >= FLIGHTS as u64 / 3 - 1);
    let imported = begun.elapsed();
    let after_import = mebibytes(&mut gateway);
    assert_eq!(counts["written"], json!(FLIGHTS));
    assert_eq!(counts["failed"], json!(0));

    let begun = Instant::now();
    let limit = FLIGHTS.to_string();
    let watch = Watch::start(
        &cli,
        &[
            "watch",
            "--domain",
            "nyc",
            "--from",
            "beginning",
            "--limit",
            &limit,
        ],
    );
    for position in 1..=FLIGHTS {
        let event = watch.next();
        assert_eq!(
            event["position"],
            position.to_string(),
            "in order, none missing"
        );
    }
    let streamed = begun.elapsed();
    println!(
        "{FLIGHTS} flights: imported in {imported:.1?}, streamed from the beginning in {streamed:.1?}; the server held \
         {before} MiB before, {after_import} MiB after the import, {} MiB after the stream",
        mebibytes(&mut gateway)
    );
    gateway.assert_no_errors();
}
