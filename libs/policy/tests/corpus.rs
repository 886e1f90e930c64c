//! Policies with inputs and what OPA decides of them (`corpus/*.rego`): the decisions here are the same.
//!
//! A comment at the head of a file is a data document (`# data`), an input with its decision
//! (`# input … -> true`), or says that the file is Rego v0 (`# v0`), or that OPA loads it and this engine
//! refuses to, because it would decide otherwise or not at all (`# refused` and a part of the reason). Where `STATEGATE_TEST_OPA` names
//! an `opa`, the decisions that stand in the files are compared with its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use stategate_model::{Object, json};
use stategate_policy::{Document, Limits, Module, Policy};

struct Case {
    path: PathBuf,
    text: String,
    v0: bool,
    refused: Option<String>,
    data: Option<String>,
    inputs: Vec<(String, bool)>,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.into_iter().map(Case::read).collect()
}

impl Case {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        let mut case = Self {
            path,
            text: text.clone(),
            v0: false,
            refused: None,
            data: None,
            inputs: Vec::new(),
        };
        for line in text.lines() {
            if line == "# v0" {
                case.v0 = true;
            } else if let Some(part) = line.strip_prefix("# refused ") {
                case.refused = Some(part.to_owned());
            } else if let Some(data) = line.strip_prefix("# data ") {
                case.data = Some(data.to_owned());
            } else if let Some(input) = line.strip_prefix("# input ") {
                let (input, decision) = input.rsplit_once(" -> ").unwrap();
                case.inputs
                    .push((input.to_owned(), decision.parse().unwrap()));
            }
        }
        assert!(case.inputs.len() >= 2, "{}", case.path.display());
        case
    }

    fn is_refused_with(&self, error: &str) -> bool {
        self.refused
            .as_ref()
            .is_some_and(|part| error.contains(part))
    }

    fn name(&self) -> String {
        self.path
            .file_stem()
            .unwrap()
            .to_string_lossy()
            .into_owned()
    }
}

fn object(text: &str) -> Object {
    json::parse_object(text).unwrap_or_else(|error| panic!("{text} {error}"))
}

#[test]
fn policies_decide_as_opa_does() {
    let cases = cases();
    let mut decisions = 0;
    let mut wrong = Vec::new();
    for case in &cases {
        let module = Module {
            name: case.name(),
            text: case.text.clone(),
        };
        let data = case.data.as_deref().map(object);
        // The clock plays no part: a machine that is busy decides the same.
        let limits = Limits {
            time: std::time::Duration::from_secs(60),
            ..Limits::default()
        };
        match Policy::compile(&[module], data.as_ref(), limits) {
            Ok(_) if case.refused.is_some() => wrong.push(format!("{}: loaded", case.name())),
            Ok(policy) => {
                for (input, expected) in &case.inputs {
                    let input_object = object(input);
                    let decision = policy.decide(|| Document::from(&input_object));
                    decisions += 1;
                    if decision.is_allow() != *expected {
                        wrong.push(format!("{}: {input}: {decision:?}", case.name()));
                    }
                }
            }
            Err(error) if case.is_refused_with(&error.to_string()) => {}
            Err(error) => wrong.push(format!("{}: {error}", case.name())),
        }
    }
    println!("{} policies, {decisions} decisions", cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.len() >= 60 && decisions >= 200);
}

#[test]
fn the_decisions_in_the_corpus_are_those_of_opa() {
    let Some(opa) = std::env::var_os("STATEGATE_TEST_OPA") else {
        println!("NOT COMPARED with OPA: STATEGATE_TEST_OPA names none");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.json");
    let mut wrong = Vec::new();
    let mut decisions = 0;
    for case in cases() {
        fs::write(&data, case.data.as_deref().unwrap_or("{}")).unwrap();
        for (input, expected) in &case.inputs {
            let mut command = Command::new(&opa);
            command.args(["eval", "--format", "json", "--stdin-input", "--data"]);
            command.arg(&case.path).arg("--data").arg(&data);
            if case.v0 {
                command.arg("--v0-compatible");
            }
            command.arg("data.stategate.authz.allow");
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut opa = command.spawn().unwrap();
            let mut stdin = opa.stdin.take().unwrap();
            stdin.write_all(input.as_bytes()).unwrap();
            drop(stdin);
            let output = opa.wait_with_output().unwrap();
            let answer: serde_json::Value =
                serde_json::from_slice(&output.stdout).unwrap_or_default();
            let value = &answer["result"][0]["expressions"][0]["value"];
            decisions += 1;
            if (*value == serde_json::Value::Bool(true)) != *expected {
                wrong.push(format!("{}: {input}: OPA says {answer}", case.name()));
            }
        }
    }
    println!("{decisions} decisions compared with OPA");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
