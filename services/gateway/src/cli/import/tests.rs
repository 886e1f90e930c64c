//! Files in, rows out; and rows through a gateway that refuses, delays and falls silent.

use std::{collections::HashMap, io::Write as _, time::Duration};

use clap::Parser as _;
use stategate_api::Problem;
use stategate_client::{EntityRef, Payload};
use stategate_model::{Invalid, json};
use stategate_protocol::status;
use tonic::Status;

use super::*;
use crate::cli::testing::{Fake, LOG, Printed};

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn args(file: &str, more: &[&str]) -> Args {
    let line = ["import", file, "--domain", "faa", "--type", "airport"];
    Line::try_parse_from(line.iter().chain(more)).unwrap().args
}

/// Everything a file yields: `key values`, or where and why not.
fn read(file: &str, options: &[&str], text: impl AsRef<[u8]>) -> (Vec<String>, Option<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(file);
    std::fs::write(&path, text).unwrap();
    let opened = match input::open(&path) {
        Ok(opened) => opened,
        Err(failure) => return (Vec::new(), Some(failure.message().unwrap().to_owned())),
    };
    let plan = args(file, options).plan(&opened.first).unwrap();
    let mut seen = Vec::new();
    let done = source::read(Box::new(opened.text), &plan, &mut |parsed| {
        seen.push(match parsed {
            Ok(row) => format!(
                "{} {}",
                row.entity.key(),
                json::canonical(&row.values.into_object())
            ),
            Err((place, refused)) => format!("{place}: {refused}"),
        });
        ControlFlow::Continue(())
    });
    (
        seen,
        done.err()
            .map(|failure| failure.message().unwrap().to_owned()),
    )
}

#[test]
fn csv_cells_are_typed_and_bad_rows_named() {
    let text = b"\xef\xbb\xbffaa,name,alt,note\r\n\
        04G,Lansdowne Airport,1044,NA\r\n\
        06A,\"Moton, \"\"Field\"\"\",264,\"two\nlines\"\r\n\
        \r\n\
        short,1\r\n\
        ,No key,1,x\r\n\
        NA,Null key,1,x\r\n\
        a b,Space,1,x\r\n\
        bad,\xff,1,x\r\n\
        ..,Dots,1,x\r\n\
        007,,-1.5,true\r\n";
    let (rows, end) = read("x.csv", &["--key", "faa"], text);
    assert_eq!(
        rows,
        [
            r#"04G {"alt":1044,"faa":"04G","name":"Lansdowne Airport","note":null}"#,
            r#"06A {"alt":264,"faa":"06A","name":"Moton, \"Field\"","note":"two\nlines"}"#,
            "line 6: has 2 cells; the header names 4 columns",
            "line 7: column `faa`: is empty; the key needs it",
            "line 8: column `faa`: is null; the key needs it",
            "line 9: column `faa`: has white space, which a key may not hold; --key-space _ puts _ in its place",
            "line 10: column `name`: is not UTF-8",
            "line 11: the key `..` must not be `.` or `..`",
            r#"007 {"alt":-1.5,"faa":"007","name":null,"note":true}"#,
        ]
    );
    assert_eq!(end, None);
}

#[test]
fn nulls_texts_and_delimiters_are_the_users() {
    let (rows, _) = read(
        "x.csv",
        &[
            "--key",
            "{id}-{b}",
            "--null",
            "-",
            "--text",
            "id",
            "--delimiter",
            ";",
            "--key-space",
            "_",
        ],
        "id;a;b\nNA;;x y\n1;-;2\n",
    );
    assert_eq!(
        rows,
        [
            r#"NA-x_y {"a":"","b":"x y","id":"NA"}"#,
            r#"1-2 {"a":null,"b":2,"id":"1"}"#
        ]
    );
}

#[test]
fn a_header_that_cannot_be_meant_ends_it_all() {
    for (text, why) in [
        (
            "",
            "the file is empty; its first line must name the columns",
        ),
        (
            "a,a\n1,2\n",
            "line 1: two columns are named `a`, #1 and #2; --without '#2' leaves one out, --rename '#2=NAME' gives it another name",
        ),
        (
            "a,b\n1,2\n",
            "--key names the column `faa`, which the file does not have; it has a, b",
        ),
    ] {
        let (rows, end) = read("x.csv", &["--key", "faa"], text);
        assert_eq!((rows.len(), end.as_deref()), (0, Some(why)));
    }
}

#[test]
fn a_quote_that_is_never_closed_is_not_read_to_the_end() {
    let mut text = b"faa,name\n04G,\"open\n".to_vec();
    text.resize(9 << 20, b'x');
    let (rows, end) = read("x.csv", &["--key", "faa"], text);
    let end = end.unwrap();
    assert!(
        rows.is_empty()
            && end.starts_with("line 2: column `name` opens a quote that is never closed"),
        "{end}"
    );
}

#[test]
fn a_quote_that_is_broken_is_named_with_its_line_and_what_follows() {
    for (text, count, words) in [
        (
            "faa,name,note\n1,Ann,ok\n2,Bo,\"never closed\n3,Cy,fine\n",
            1,
            &[
                "line 3: column `note`",
                "never closed",
                "3,Cy,fine",
                "--no-quotes",
            ][..],
        ),
        (
            "faa,\"name\n1,Ann\n2,Bo\n",
            0,
            &["line 1: column 2", "never closed", "1,Ann"],
        ),
        (
            "faa,name\n1,\"cut off in the mid",
            0,
            &["line 2: column `name`", "cut off"],
        ),
        (
            "faa,name\n1,\"open\n2,\"fine\"\n3,x\n",
            0,
            &[
                "line 2: column `name`",
                "closed on line 3",
                "followed by more",
                "fine",
            ],
        ),
        (
            "faa,name\n1,\"x\"y\n2,z\n",
            0,
            &["line 2", "followed by more", "(y)"],
        ),
    ] {
        let (rows, end) = read("x.csv", &["--key", "faa"], text);
        let end = end.unwrap_or_else(|| panic!("{text:?}: {rows:?}"));
        assert_eq!(rows.len(), count, "{text:?}: {rows:?}");
        for word in words {
            assert!(end.contains(word), "{word}: {end}");
        }
        // In a file of tabs, too; and where quotes mean nothing, nothing is wrong with it.
        let tabs = text.replace(',', "\t");
        let (_, end) = read("x.tsv", &["--key", "faa"], &tabs);
        assert!(end.is_some());
    }
    let text = "faa\tname\n1\t\"open\n2\tx\"y\n";
    let (rows, end) = read("x.tsv", &["--key", "faa", "--no-quotes"], text);
    assert_eq!(
        (rows, end),
        (
            vec![
                r#"1 {"faa":1,"name":"\"open"}"#.to_owned(),
                r#"2 {"faa":2,"name":"x\"y"}"#.to_owned()
            ],
            None
        )
    );
}

#[test]
fn files_end_and_run_together_in_many_ways() {
    let csv = |text: &[u8]| read("x.csv", &["--key", "faa"], text);
    // Whole, however its lines end.
    for text in [
        &b"faa,n\n1,a\n2,b\n"[..],
        b"faa,n\n1,a\n2,b",
        b"faa,n\r\n1,a\r\n2,b\r\n",
        b"faa,n\r1,a\r2,b\r",
        b"\xef\xbb\xbffaa,n\n\n1,a\n\n2,b\n\n",
    ] {
        let (rows, end) = csv(text);
        assert_eq!(rows, [r#"1 {"faa":1,"n":"a"}"#, r#"2 {"faa":2,"n":"b"}"#]);
        assert_eq!(end, None);
    }
    assert_eq!(csv(b"faa,n\n"), (vec![], None));
    // Bad rows are named, and the others kept.
    for (text, word) in [
        (&b"faa,n\n1\n2,b\n"[..], "line 2: has 1 cell;"),
        (b"faa,n\n1,a,x\n2,b\n", "line 2: has 3 cells;"),
        (b"faa,n\n1,a,\n2,b\n", "line 2: has 3 cells;"),
        (
            b"faa,n\n1,a\0\n2,b\n",
            "line 2: column `n`: holds a NUL byte",
        ),
        (b"faa,n\n1,\xff\n2,b\n", "line 2: column `n`: is not UTF-8"),
        (b"faa,n\n1,a\rx\n2,b\n", "line 2: has a carriage return"),
    ] {
        let (rows, end) = csv(text);
        assert!(rows[0].starts_with(word), "{rows:?}");
        assert_eq!((&rows[1][..], end), (r#"2 {"faa":2,"n":"b"}"#, None));
    }
    // Two files in one: the second line of names is no row, and the first row without a line of its own
    // none either.
    for (text, word) in [
        (&b"faa,n\n1,a\nfaa,n\n2,b\n"[..], "line 3: is the line that"),
        (
            b"faa,n\n1,a\n\xef\xbb\xbffaa,n\n2,b\n",
            "line 3: is the line that",
        ),
        (b"faa,n\n1,afaa,n\n2,b\n", "line 2: has 3 cells;"),
    ] {
        let (rows, end) = csv(text);
        assert!(rows.iter().any(|row| row.starts_with(word)), "{rows:?}");
        assert_eq!(rows.last().unwrap(), r#"2 {"faa":2,"n":"b"}"#);
        assert_eq!(end, None);
    }
    let (rows, _) = csv(b"faa\n1\nfaa\n");
    assert_eq!(rows[1], r#"faa {"faa":"faa"}"#, "may be a value");
    let (rows, _) = csv(b"faa,n\n1,a\n2");
    assert!(rows[1].ends_with("may be cut off"), "{rows:?}");
    // What is no text in UTF-8 is named.
    for text in [&b"\xff\xfef\0a\0"[..], b"\xfe\xff\0f\0a", b"f\0a\0a\0\n\0"] {
        let (rows, end) = csv(text);
        assert!(rows.is_empty() && end.unwrap().contains("UTF-16"));
    }

    // JSON: cut anywhere, nothing but whole elements is a row, and the end is told.
    let array = r#"[{"faa":"A","n":12},{"faa":"B","n":34}]"#;
    for at in 0..array.len() {
        let (rows, end) = read("x.json", &["--key", "faa"], &array[..at]);
        assert!(end.is_some(), "{at}: {rows:?}");
        let whole = [array.find("},").unwrap() + 1, array.len() - 1];
        let most = whole.iter().filter(|end| **end <= at).count();
        assert!(rows.len() <= most, "{at}: {rows:?}");
    }
    for after in ["x", "]", "[]", "{}", "\0", ",", "[{\"faa\":\"C\"}]"] {
        let (rows, end) = read("x.json", &["--key", "faa"], format!("{array}\n{after}"));
        assert_eq!(rows.len(), 2);
        assert!(end.unwrap().starts_with("line 2: is not JSON"), "{after}");
    }
    let one = r#"{"faa":"A","n":12}"#;
    for at in 0..one.len() {
        for name in ["x.json", "x.ndjson"] {
            let (rows, end) = read(name, &["--key", "faa"], &one[..at]);
            let is_named = rows.len() == 1 && rows[0].starts_with("line 1: is not JSON");
            assert!(end.is_some() || is_named || at == 0, "{at}: {rows:?}");
        }
    }
    // Lines that ran together are one bad line.
    let (rows, _) = read("x.ndjson", &["--key", "faa"], format!("{one}{one}\n{one}"));
    assert!(rows[0].starts_with("line 1: is not JSON"), "{rows:?}");
    assert_eq!(rows[1], r#"A {"faa":"A","n":12}"#);
    for ends in ["\r", "\r\n", "\n\n"] {
        let text = [one, one, ""].join(ends);
        let (rows, end) = read("x.ndjson", &["--key", "faa"], text);
        assert_eq!((rows.len(), end), (2, None), "{rows:?}");
    }
}

#[test]
fn columns_are_left_out_and_renamed() {
    let (rows, end) = read("x.csv", &["--key", "faa"], "faa,a,\n1,x,\n");
    assert!(rows.is_empty());
    let end = end.unwrap();
    assert!(
        end.contains("#3") && end.contains("--without '#3'"),
        "{end}"
    );
    let (_, end) = read("x.csv", &["--key", "faa"], "faa,a,,\n1,x,,\n");
    assert!(end.unwrap().contains("--without '#3,#4'"));

    for (options, text, row) in [
        (
            &["--without", "#3,#4"][..],
            "faa,a,,\n1,x,,\n",
            r#"1 {"a":"x","faa":1}"#,
        ),
        (
            &["--columns", "faa,a"],
            "faa,a,,\n1,x,,\n",
            r#"1 {"a":"x","faa":1}"#,
        ),
        (
            &["--columns", "faa,a"],
            "faa,a\n1,x,,\n",
            r#"1 {"a":"x","faa":1}"#,
        ),
        (&["--columns", "a"], "faa,a\n1,x\n", r#"1 {"a":"x"}"#),
        (&["--without", "faa"], "faa,a\n1,x\n", r#"1 {"a":"x"}"#),
        (
            &["--rename", "#3=b"],
            "faa,a,\n1,x,y\n",
            r#"1 {"a":"x","b":"y","faa":1}"#,
        ),
        (
            &["--rename", "a=b", "--rename", "b=a", "--text", "b"],
            "faa,a,b\n1,x,7\n",
            r#"1 {"a":"7","b":"x","faa":1}"#,
        ),
        (
            &["--rename", "#2=b"],
            "faa,faa2\n1,x\n",
            r#"1 {"b":"x","faa":1}"#,
        ),
        (
            &["--without", "#2"],
            "faa,a,a\n1,x,y\n",
            r#"1 {"a":"y","faa":1}"#,
        ),
    ] {
        let options = [&["--key", "faa"], options].concat();
        let (rows, end) = read("x.csv", &options, text);
        assert_eq!((rows, end), (vec![row.to_owned()], None), "{options:?}");
    }
    for (options, word) in [
        (
            &["--without", "x"][..],
            "--without names the column `x`, which",
        ),
        (
            &["--columns", "#9"],
            "--columns names the column `#9`, which",
        ),
        (&["--rename", "x=y"], "--rename names the column `x`, which"),
        (
            &["--rename", "a=faa"],
            "two columns are named `faa`, #1 and #2",
        ),
    ] {
        let options = [&["--key", "faa"], options].concat();
        let (_, end) = read("x.csv", &options, "faa,a\n1,x\n");
        let end = end.unwrap();
        assert!(end.contains(word), "{end}");
    }
    let (rows, _) = read(
        "x.ndjson",
        &["--key", "faa", "--without", "faa,b", "--rename", "a=c"],
        "{\"faa\":\"A\",\"a\":1,\"b\":2,\"d\":3}\n{\"faa\":\"A\",\"a\":1,\"c\":2}\n",
    );
    assert_eq!(rows[0], r#"A {"c":1,"d":3}"#);
    assert!(rows[1].contains("two values named `c`"), "{rows:?}");
    // Rows need not be alike, but a name that none of them has is a slip.
    for (name, open, close) in [("x.ndjson", "", ""), ("x.json", "[", "]")] {
        let text = format!("{open}{{\"faa\":\"A\",\"a\":1}}{close}\n");
        let (rows, end) = read(name, &["--key", "faa", "--columns", "a,nmae"], &text);
        assert_eq!(rows, [r#"A {"a":1}"#]);
        let end = end.unwrap();
        assert!(end.contains("`nmae`, which no row has"), "{end}");
    }
}

#[test]
fn options_of_sheets_are_refused_for_json() {
    for option in [
        &["--delimiter", ";"][..],
        &["--null", "-"],
        &["--text", "a"],
        &["--no-quotes"],
        &["--exact"],
    ] {
        let options = [&["--key", "faa"], option].concat();
        for (name, is_refused) in [("x.json", true), ("x.ndjson.gz", true), ("x.tsv", false)] {
            let planned = args(name, &options).plan(b"faa\ta\n");
            let why = planned.err().map(|failure| told(Err(failure)));
            assert_eq!(why.is_some(), is_refused, "{name} {option:?}");
            if let Some((exit, why)) = why {
                assert!(exit == Exit::Usage && why.contains(option[0]), "{why}");
            }
        }
    }
}

#[test]
fn a_sheet_that_was_exported_comes_back() {
    let text =
        "@key,@version,'=h,'@key,a,n,s\n'=k,3,'=1,'@x,,-5,\"5\"\nb,1,'','\"\"\"\",{},1e21,\"\"\n";
    let text = text.replace("'\"\"\"\"", "x");
    let (rows, end) = read("x.csv", &[], &text);
    assert_eq!(
        (rows, end),
        (
            vec![
                r#"=k {"=h":"=1","@key":"@x","n":-5,"s":"5"}"#.to_owned(),
                r#"b {"=h":"'","@key":"x","a":{},"n":1e+21,"s":null}"#.to_owned(),
            ],
            None
        )
    );
    let (rows, _) = read(
        "x.csv",
        &["--exact", "--key", "@key"],
        "@key,@version,=h\n=k,1,'=x\n",
    );
    assert_eq!(rows, [r#"=k {"=h":"'=x"}"#]);
}

#[test]
fn ndjson_lines_stand_alone() {
    let text = concat!(
        "\u{feff}{\"faa\":\"04G\",\"alt\":1044.0}\n",
        "\n",
        "{\"faa\":\"06A\",\n",
        "[1]\r\n",
        "{\"faa\":1,\"faa\":2}\n",
        "{\"faa\":\"x\",\"n\":9007199254740993}\n",
        "{\"faa\":7,\"nested\":{\"a\":[null]}}",
    );
    let (rows, end) = read("x.ndjson", &["--key", "faa"], text);
    assert_eq!(rows[0], r#"04G {"alt":1044,"faa":"04G"}"#);
    assert!(rows[1].starts_with("line 3: is not JSON: "), "{}", rows[1]);
    assert!(!rows[1].contains("line 1"), "{}", rows[1]);
    assert_eq!(rows[2], "line 4: is not a JSON object");
    assert!(
        rows[3].starts_with("line 5: ") && rows[3].contains("faa"),
        "{}",
        rows[3]
    );
    assert!(
        rows[4].starts_with("line 6: has an integer at `n`"),
        "{}",
        rows[4]
    );
    assert_eq!(rows[5], r#"7 {"faa":7,"nested":{"a":[null]}}"#);
    assert_eq!((rows.len(), end), (6, None));
}

#[test]
fn json_is_an_array_or_objects_one_after_another() {
    let array = " [\n {\"faa\": \"A\",\n  \"alt\": 1},\n 5, {\"faa\": null},\n{\"faa\":\"B\"} ]\n";
    let (rows, end) = read("x.json", &["--key", "faa"], array);
    assert_eq!(
        rows,
        [
            r#"A {"alt":1,"faa":"A"}"#,
            "line 4 (element 2): is not a JSON object",
            "line 4 (element 3): column `faa`: is null; the key needs it",
            r#"B {"faa":"B"}"#,
        ]
    );
    assert_eq!(end, None);

    let objects = "{\"faa\":\"A\"}\n{\n\"faa\":\"B\"}{\"faa\":\"C\"}\n\n[]";
    let (rows, end) = read("x.json", &["--key", "faa"], objects);
    assert_eq!(
        rows,
        [
            r#"A {"faa":"A"}"#,
            r#"B {"faa":"B"}"#,
            r#"C {"faa":"C"}"#,
            "line 5: is not a JSON object"
        ]
    );
    assert_eq!(end, None);

    for broken in [
        "[{\"faa\":\"A\"}\n,\n{]",
        "[{\"faa\":\"A\"}\n\n",
        "[{\"faa\":\"A\"}]\n\nx",
    ] {
        let (rows, end) = read("x.json", &["--key", "faa"], broken);
        let end = end.unwrap();
        assert_eq!(rows, [r#"A {"faa":"A"}"#], "{broken}");
        assert!(end.starts_with("line 3: is not JSON: "), "{end}");
    }
}

/// Imports into a gateway: what was printed, and how it ended.
async fn import(fake: &Fake, text: &str, options: &[&str]) -> (String, Result<(), Failure>) {
    let gateway = fake.start().await;
    let mut file = tempfile::Builder::new().suffix(".csv").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let options: Vec<_> = ["--key", "faa"].iter().chain(options).copied().collect();
    let args = args(file.path().to_str().unwrap(), &options);
    let printed = Printed::default();
    let ended = run(&gateway, args, &mut printed.output()).await;
    (printed.lines().join("\n"), ended)
}

fn told(ended: Result<(), Failure>) -> (Exit, String) {
    let failure = ended.unwrap_err();
    (failure.exit(), failure.message().unwrap().to_owned())
}

#[tokio::test]
async fn rows_of_one_key_arrive_in_the_order_of_the_file() {
    let mut text = "faa,n\n".to_owned();
    for n in 0..400 {
        text.push_str(&format!("K{},{n}\n", n * n % 13));
    }
    let fake = Fake::default();
    let (printed, ended) = import(&fake, &text, &["--concurrency", "16"]).await;
    ended.unwrap();
    assert!(
        printed.starts_with(r#"{"rows":400,"written":400,"failed":0,"replayed":0,"seconds":"#),
        "{printed}"
    );
    assert!(
        printed.ends_with(&format!(r#""position":"{LOG}/0:400"}}"#)),
        "{printed}"
    );

    let script = fake.0.lock().unwrap();
    let mut last: HashMap<&str, f64> = HashMap::new();
    for (key, values) in &script.written {
        let values = json::parse_object(values).unwrap();
        let Some(stategate_model::Value::Number(n)) = values.get("n").cloned() else {
            panic!("{values:?}");
        };
        let before = last.insert(key, n);
        assert!(
            before.is_none_or(|before| before < n),
            "{key}: {before:?} then {n}"
        );
    }
    assert_eq!(script.most_of_one_key, 1);
    assert!(
        (4..=16).contains(&script.most_running),
        "{}",
        script.most_running
    );
}

#[tokio::test]
async fn a_row_is_sent_again_until_somebody_says_what_became_of_it() {
    let fake = Fake::default();
    {
        let mut script = fake.0.lock().unwrap();
        let away = || status(Problem::StorageUnavailable);
        script
            .refusals
            .insert("A".to_owned(), [away(), away()].into());
        let unknown = Problem::OutcomeUnknown {
            retry_is_safe: true,
        };
        script.refusals.insert(
            "B".to_owned(),
            [status(unknown), Status::unknown("reset")].into(),
        );
        let invalid = Invalid::new("values.x", "is too deep");
        script
            .refusals
            .insert("C".to_owned(), [status(Problem::from(invalid))].into());
    }
    let (printed, ended) = import(&fake, "faa\nA\nB\nC\nD\n", &[]).await;
    assert!(
        printed.contains(r#""rows":4,"written":3,"failed":1"#),
        "{printed}"
    );
    assert_eq!(
        told(ended),
        (Exit::RowsFailed, "1 of 4 rows failed".to_owned())
    );
    let script = fake.0.lock().unwrap();
    let mut keys: Vec<_> = script.written.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!((keys, script.asked), (vec!["A", "B", "D"], 8));
}

#[tokio::test]
async fn the_rows_of_an_import_have_the_same_keys_in_every_run() {
    let mut runs = Vec::new();
    for id in ["x", "x", "y"] {
        let fake = Fake::default();
        let text = "faa\nA\n,\nB\nC\n";
        let (_, ended) = import(&fake, text, &["--resume", id, "--concurrency", "1"]).await;
        assert!(ended.is_err(), "one row is bad");
        runs.push(fake.0.lock().unwrap().keys.clone());
    }
    assert_eq!(runs[0], ["import-x-1", "import-x-3", "import-x-4"]);
    assert_eq!(runs[0], runs[1]);
    assert_eq!(runs[2][0], "import-y-1");
}

#[tokio::test]
async fn strict_ends_at_the_first_row_that_fails() {
    let mut text = "faa,n\n".to_owned();
    for n in 0..500 {
        text.push_str(&format!("K{n},{n}\n"));
    }
    let text = text.replace("K20,20\n", "K20\n");
    let fake = Fake::default();
    let (printed, ended) = import(&fake, &text, &["--strict", "--concurrency", "4"]).await;
    assert_eq!(
        told(ended),
        (
            Exit::RowsFailed,
            "ended at the first row that failed (--strict)".to_owned()
        )
    );
    assert!(
        printed.contains(r#""rows":21,"written":20,"failed":1"#),
        "{printed}"
    );

    let (_, ended) = import(&Fake::default(), &text, &["--concurrency", "200"]).await;
    assert_eq!(
        told(ended),
        (Exit::RowsFailed, "1 of 500 rows failed".to_owned())
    );
}

#[tokio::test]
async fn what_is_refused_for_all_rows_is_refused_once() {
    let fake = Fake::default();
    let refusal = Status::unauthenticated("no token");
    let everywhere = (0..300).map(|n| (format!("K{n}"), [refusal.clone()].into()));
    fake.0.lock().unwrap().refusals = everywhere.collect();
    let rows: String = (0..300).map(|n| format!("K{n}\n")).collect();
    let (_, ended) = import(&fake, &format!("faa\n{rows}"), &["--concurrency", "4"]).await;
    assert_eq!(told(ended).0, Exit::Refused);
    assert!(fake.0.lock().unwrap().asked <= 8);
}

/// Rows of one entity go one after the other: those that were not sent are not, once it is over.
#[tokio::test]
async fn what_waits_for_a_row_that_ends_it_all_is_not_sent() {
    let rows: String = (0..100).map(|n| format!("A,{n}\n")).collect();
    let fake = Fake::default();
    let refusal = Status::unauthenticated("no token");
    fake.0
        .lock()
        .unwrap()
        .refusals
        .insert("A".to_owned(), [refusal].into());
    let (printed, ended) = import(&fake, &format!("faa,n\n{rows}"), &[]).await;
    assert_eq!(told(ended).0, Exit::Refused);
    let script = fake.0.lock().unwrap();
    assert_eq!((script.asked, script.written.len()), (1, 0));
    assert!(printed.contains(r#""rows":1,"#), "{printed}");
}

/// A storage that was restored as it once was has the same log, without the last rows.
#[tokio::test]
async fn an_import_whose_log_goes_back_ends() {
    let rows: String = (0..2_000).map(|n| format!("K{n}\n")).collect();
    let fake = Fake::default();
    let restored = tokio::spawn({
        let fake = fake.clone();
        async move {
            while fake.0.lock().unwrap().written.len() < 50 {
                task::yield_now().await;
            }
            fake.0.lock().unwrap().written.clear();
        }
    });
    let (printed, ended) = import(&fake, &format!("faa\n{rows}"), &["--concurrency", "1"]).await;
    restored.await.unwrap();
    let (exit, said) = told(ended);
    assert!(
        exit == Exit::Refused && said.contains("went back"),
        "{said}"
    );
    assert!(!printed.contains(r#""written":2000"#), "{printed}");
}

#[tokio::test]
async fn a_gateway_that_stays_away_is_given_up() {
    // Its last try may be one that was not answered in time.
    let away = [Outcome::NotWritten, Outcome::MayBeWritten];
    stays_away(status(Problem::StorageUnavailable), &away).await;
    let lost = Status::unknown("transport error");
    stays_away(lost, &[Outcome::MayBeWritten]).await;
}

async fn stays_away(busy: Status, known: &[Outcome]) {
    let fake = Fake::default();
    let always = std::iter::repeat_n(busy, 1_000).collect();
    fake.0
        .lock()
        .unwrap()
        .refusals
        .insert("A".to_owned(), always);
    let builder = fake.start().await.builder().unwrap();
    let client = builder
        .deadline(Duration::from_millis(300))
        .build()
        .unwrap();
    let mut flight = Flight::new(client, "x", 4);
    flight.push(row::Row {
        place: row::Place::line(2),
        number: 1,
        entity: EntityRef::new("faa", "airport", "A").unwrap(),
        values: Payload::default(),
    });
    let sent = flight.next().await.unwrap();
    let Became::Over(outcome, failure) = sent.became else {
        panic!("{:?}", sent.became);
    };
    assert!(known.contains(&outcome), "{outcome}");
    assert_eq!(failure.exit(), Exit::Unavailable);
    assert!(flight.is_empty() && fake.0.lock().unwrap().written.is_empty());
}
