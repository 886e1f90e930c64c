//! The policies of the examples, and the commands that test, explain and replay policies.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use stategate_protocol::pb;
use stategate_tests::{
    Ask, Cli, Form, Gateway, Issuer, Options,
    cli::{DONE, FAILED, USAGE, examples},
};
use tempfile::TempDir;
use tonic::{Code, Status};

/// The policies that there are to start from.
const EXAMPLES: [&str; 4] = [
    "own-entities-only",
    "read-only-role",
    "role-table",
    "tenant-isolation",
];

/// A command line that talks to nobody.
fn cli() -> Cli {
    Cli::at(([127, 0, 0, 1], 1).into())
}

fn example(name: &str, file: &str) -> PathBuf {
    examples().join("policies").join(name).join(file)
}

/// Files in a folder of their own.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::with_prefix("stategate-policies-").unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn every_example_passes_its_tests_and_the_gateway_decides_alike() {
    let mut tests = 0;
    for name in EXAMPLES {
        let folder = examples().join("policies").join(name);
        for test in cli().lines(&["policy", "test", text(&folder)]) {
            assert!(test["fail"].is_null() && test["error"].is_null(), "{test}");
            assert!(test["compared"].as_u64().unwrap() > 0, "{test}");
            tests += 1;
        }
        for file in ["policy.rego", "response.rego"] {
            let accepted = cli().line(&["policy", "check", text(&example(name, file))]);
            assert_eq!(accepted["accepted"], true, "{name}/{file}");
        }
    }
    assert!(tests >= 50, "{tests}");
    let all = cli().lines(&["policy", "test", text(&examples().join("policies"))]);
    assert_eq!(
        all.len(),
        tests,
        "there are examples that are not listed here"
    );
}

#[test]
fn opa_passes_the_tests_of_the_examples_too() {
    let Some(opa) = std::env::var_os("STATEGATE_TEST_OPA") else {
        println!("NOT COMPARED with OPA: STATEGATE_TEST_OPA names none");
        return;
    };
    for name in EXAMPLES {
        for policy in ["policy", "response"] {
            let mut command = Command::new(&opa);
            command.args(["test", "--format", "json"]);
            command.arg(example(name, &format!("{policy}.rego")));
            let tests = example(name, &format!("{policy}_test.rego"));
            command.arg(&tests);
            let data = example(name, "data.json");
            if data.exists() {
                command.arg(data);
            }
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name}/{policy}: {said}");
            let theirs: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
            let ours = cli().lines(&["policy", "test", text(&tests)]);
            assert_eq!(theirs.len(), ours.len(), "{name}/{policy}");
        }
    }
}

const POLICY: &str = "package stategate.authz
default allow := false
allow if input.body.domain == input.claims.tenant
allow if input.claims.role in data.trusted
";

#[test]
fn tests_that_do_not_pass_are_told_and_counted() {
    let folder = folder(&[
        ("policy.rego", POLICY),
        ("data.json", r#"{"trusted": ["root"]}"#),
        (
            "policy_test.rego",
            "package p_test
import data.stategate.authz
test_beside if authz.allow with input as {\"claims\": {\"role\": \"root\"}}
test_wrong if authz.allow with input as {\"claims\": {\"tenant\": \"a\"}, \"body\": {\"domain\": \"b\"}}
todo_test_later if false
",
        ),
        // A policy of its own, whose tests are run without the other.
        ("response.rego", "package stategate.authz\nallow := true"),
        (
            "response_test.rego",
            "package r_test\nimport data.stategate.authz\ntest_all if authz.allow with input as {}",
        ),
        ("other/names.rego", "package names\nlong(x) if count(x) > 9"),
        (
            "other/names_test.rego",
            "package names_test\nimport data.names\ntest_short if not names.long(\"a\")",
        ),
    ]);
    let path = text(folder.path());
    let ran = cli()
        .run(&["policy", "test", path])
        .ends(FAILED)
        .says(&["1 of 5 tests did not pass"]);
    let failed: Vec<_> = ran
        .lines()
        .into_iter()
        .filter(|test| test["fail"] == true)
        .collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["name"], "test_wrong");
    assert_eq!(failed[0]["location"]["row"], 4);
    // Other data, and one file of tests alone.
    let data = folder.path().join("other.json");
    fs::write(&data, "{}").unwrap();
    let tests = folder.path().join("policy_test.rego");
    cli()
        .run(&["policy", "test", text(&tests), "--data", text(&data)])
        .ends(FAILED)
        .says(&["2 of 3"]);
}

#[test]
fn what_cannot_be_tested_or_checked_is_an_error_of_its_own() {
    let folder = folder(&[
        ("none/policy.rego", POLICY),
        ("broken/policy.rego", "package stategate.authz\nallow if {"),
        ("broken/policy_test.rego", "package p_test\ntest_a := true"),
        (
            "outside/policy.rego",
            "package stategate.authz\nallow if { http.send({}); regex.replace(input.a, \"b\", \"c\") }",
        ),
        ("outside/policy_test.rego", "package p_test\ntest_a := true"),
        ("circle/policy.rego", POLICY),
        (
            "circle/policy_test.rego",
            "package p_test\nf(x) := f(x)\ntest_a if f(1) == 1",
        ),
        ("input.json", "{\"claims\": {}"),
    ]);
    let path = |name: &str| folder.path().join(name);
    for (name, said) in [
        ("none", "holds no tests"),
        ("broken", "policy.rego"),
        ("outside", "http.send"),
        ("circle", "call themselves"),
        ("absent", "neither a directory"),
    ] {
        cli()
            .run(&["policy", "test", text(&path(name))])
            .ends(USAGE)
            .says(&[said]);
    }
    let outside = path("outside/policy.rego");
    let ran = cli()
        .run(&["policy", "check", text(&outside)])
        .ends(USAGE)
        .says(&["http.send", "regex.replace"]);
    assert_eq!(ran.lines()[0]["refusals"].as_array().unwrap().len(), 2);
    let policy = path("none/policy.rego");
    let input = path("input.json");
    let both = examples().join("policies/role-table");
    for (arguments, said) in [
        (vec![text(&policy), "--input", text(&input)], "input.json"),
        (vec![text(&policy), "--data", "/absent"], "/absent"),
        (vec!["/absent.rego"], "/absent.rego"),
        (vec![text(&both)], "policy.rego and response.rego"),
    ] {
        let all: Vec<_> = ["policy", "check"].into_iter().chain(arguments).collect();
        cli().run(&all).ends(USAGE).says(&[said]);
    }
}

#[test]
fn a_decision_is_told_with_its_reasons() {
    let folder = folder(&[
        ("policy.rego", POLICY),
        ("data.json", r#"{"trusted": ["root"]}"#),
        (
            "own.json",
            r#"{"claims": {"tenant": "acme"}, "body": {"domain": "acme"}}"#,
        ),
        (
            "foreign.json",
            r#"{"claims": {"tenant": "acme", "role": "clerk"}, "body": {"domain": "globex"}}"#,
        ),
    ]);
    let path = |name: &str| text(&folder.path().join(name)).to_owned();
    let (policy, data) = (path("policy.rego"), path("data.json"));
    let check = |input: &str, code: i32| {
        let input = path(input);
        let arguments = [
            "policy", "check", &policy, "--data", &data, "--input", &input,
        ];
        cli().run(&arguments).ends(code).lines().remove(0)
    };
    let told = check("own.json", DONE);
    assert_eq!(told["decision"], "allow");
    assert_eq!(told["definitions"][1]["outcome"], "holds");
    let told = check("foreign.json", FAILED);
    assert_eq!(told["decision"], "deny");
    assert_eq!(
        told["definitions"][1]["ends_at"]["seen"],
        json!({"input.body.domain": "globex", "input.claims.tenant": "acme"})
    );
    assert_eq!(
        told["definitions"][2]["ends_at"]["seen"],
        json!({"input.claims.role": "clerk", "data.trusted": ["root"]})
    );
    assert_eq!(told["reads"]["claims"], json!(["role", "tenant"]));
    assert_eq!(told["reads"]["metadata"], json!([]));
}

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

fn rules(name: &str, file: &str) -> String {
    let text = fs::read_to_string(example(name, file)).unwrap();
    text.replace("package stategate.authz", "")
}

#[tokio::test]
async fn the_history_is_judged_by_a_policy_that_is_not_in_force() {
    let issuer = Issuer::new();
    let all = "allow := true";
    let mut gateway = Gateway::start(Options::new(Form::One).protected(&issuer, all, all)).await;
    let ask = Ask::new(&mut gateway);
    let ada = ask.bearing(&issuer.token(&json!({"tenant": "acme", "sub": "ada"})));
    let bob = ask.bearing(&issuer.token(&json!({"tenant": "globex", "sub": "bob"})));
    ada.set("acme/user/1", r#"{"n":1}"#).await.unwrap();
    ada.edit("acme/user/1", r#"{"n":2}"#).await.unwrap();
    bob.set("globex/user/1", "{}").await.unwrap();
    // Of another's, and within a transaction.
    bob.edit("acme/user/1", r#"{"n":3}"#).await.unwrap();
    let del = pb::Operation {
        operation: Some(pb::operation::Operation::Del(pb::EntityRef {
            r#type: "user".to_owned(),
            key: "1".to_owned(),
            ..pb::EntityRef::default()
        })),
        ..pb::Operation::default()
    };
    ada.transact("globex", vec![del]).await.unwrap();
    let foreign = bob.history_of("acme/user/1").await.remove(2);

    let cli = Cli::new(&mut gateway);
    let token = issuer.token(&json!({"tenant": "root", "sub": "root"}));
    let policy = example("tenant-isolation", "policy.rego");
    let run = |arguments: &[&str], code: i32| {
        let mut all = vec!["policy", "replay"];
        all.extend(arguments);
        let mut command = cli.command(&all);
        command.env("STATEGATE_TOKEN", &token);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()
    };
    let expected = |told: &Value| {
        assert_eq!((&told["judged"], &told["refused"]), (&json!(5), &json!(2)));
        assert_eq!(told["edits"], 2);
        assert_eq!(told["without_claims"], 0);
        // Lane by lane it is in order.
        let mut events = told["events"].as_array().unwrap().clone();
        events.sort_by_key(|event| event["time"].as_str().map(str::to_owned));
        assert_eq!(events.len(), 2);
        assert_eq!(events[0]["id"], foreign.id);
        assert_eq!(events[0]["who"], "bob");
        assert_eq!(events[0]["method"], "/stategate.EntityService/Edit");
        assert_eq!(events[0]["time"], foreign.time.to_string());
        assert_eq!(events[1]["who"], "ada");
        assert_eq!(events[1]["domain"], "globex");
        assert_eq!(events[1]["method"], "/stategate.EntityService/Del");
    };
    expected(&run(&[text(&policy)], FAILED));

    let told = run(&[text(&policy), "--limit", "1"], FAILED);
    assert_eq!(told["refused"], 2);
    assert_eq!(told["events"].as_array().unwrap().len(), 1);
    let told = run(&[text(&policy), "--domain", "globex", "--key", "2"], DONE);
    assert_eq!(told["judged"], 0);
    let folder = folder(&[
        ("claims.json", r#"{"tenant": "globex"}"#),
        ("broken.rego", "package stategate.authz\nallow if {"),
    ]);
    let path = |name: &str| text(&folder.path().join(name)).to_owned();

    // From an export, with nobody there.
    let export = path("history.ndjson");
    let mut command = cli.command(&["export", "--history", "--out", &export]);
    command.env("STATEGATE_TOKEN", &token);
    assert!(command.output().unwrap().status.success());
    expected(&run(&[text(&policy), "--history", &export], FAILED));
    let whole = fs::read_to_string(&export).unwrap();
    let cut: Vec<_> = whole.lines().take(3).collect();
    let cut_off = path("cut.ndjson");
    fs::write(&cut_off, cut.join("\n")).unwrap();
    run(&[text(&policy), "--history", &cut_off], FAILED);

    // What a stream would withhold from somebody.
    let response = example("tenant-isolation", "response.rego");
    let (response, claims) = (text(&response), path("claims.json"));
    let told = run(&[response, "--response", "--claims", &claims], FAILED);
    assert_eq!((&told["judged"], &told["refused"]), (&json!(5), &json!(3)));
    let events = told["events"].as_array().unwrap();
    assert!(events.iter().all(|event| event["domain"] == "acme"));

    run(&[response, "--response"], USAGE);
    run(&[&path("broken.rego")], USAGE);
    gateway.assert_no_errors();
}

#[tokio::test]
async fn persons_see_their_own_entity_alone() {
    let issuer = Issuer::new();
    let name = "own-entities-only";
    let (request, response) = (rules(name, "policy.rego"), rules(name, "response.rego"));
    let options = Options::new(Form::One).protected(&issuer, &request, &response);
    let mut gateway = Gateway::start(options).await;
    let ask = Ask::new(&mut gateway);
    let ada = ask.bearing(&issuer.token(&json!({"sub": "ada"})));
    let bob = ask.bearing(&issuer.token(&json!({"sub": "bob"})));
    let stream = |kind: &str| pb::StreamOpts {
        domain: "people".to_owned(),
        r#type: kind.to_owned(),
        start: Some(pb::stream_opts::Start::FromBeginning(true)),
        ..pb::StreamOpts::default()
    };
    let mut of_bob = bob.stream(stream("profile")).await.unwrap();
    ada.set("people/profile/ada", r#"{"n":1}"#).await.unwrap();
    bob.set("people/profile/bob", r#"{"n":1}"#).await.unwrap();
    ada.edit("people/profile/ada", r#"{"n":2}"#).await.unwrap();
    bob.edit("people/profile/bob", r#"{"n":2}"#).await.unwrap();
    for (what, answer) in [
        ("Get", code(bob.get("people/profile/ada").await)),
        ("Set", code(bob.set("people/profile/ada", "{}").await)),
        ("Del", code(bob.del("people/profile/ada").await)),
        ("stream", code(bob.stream(stream("*")).await)),
    ] {
        assert_eq!(answer, Code::PermissionDenied, "{what}");
    }
    let entities = pb::SearchEntityOpts {
        domain: "people".to_owned(),
        r#type: "profile".to_owned(),
        ..pb::SearchEntityOpts::default()
    };
    assert_eq!(code(bob.search(entities).await), Code::PermissionDenied);
    let history = |filter: &str| pb::SearchEventOpts {
        domain: "people".to_owned(),
        r#type: "profile".to_owned(),
        query_string: filter.to_owned(),
        ..pb::SearchEventOpts::default()
    };
    let own = bob.history(history(r#"{"entity.key": "bob"}"#)).await;
    assert_eq!(own.unwrap().into_inner().events.len(), 2);
    for filter in ["", r#"{"entity.key": "ada"}"#, "{}"] {
        let answer = code(bob.history(history(filter)).await);
        assert_eq!(answer, Code::PermissionDenied, "{filter}");
    }
    // Live and from the past alike.
    let mut again = bob.stream(stream("profile")).await.unwrap();
    for stream in [&mut of_bob, &mut again] {
        for event in stream.take(2).await {
            assert_eq!(event.entity.unwrap().key, "bob");
        }
    }
    gateway.assert_no_errors();
}
