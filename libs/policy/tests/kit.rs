//! The kit: tests of policies by OPA's conventions, decisions with their reasons, and both engines asked.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

use stategate_model::{Object, json};
use stategate_policy::{
    Decision, Denied, Module,
    kit::{self, Definition, Outcome, Suite, Tested, Verdict},
};

fn object(text: &str) -> Object {
    json::parse_object(text).unwrap()
}

fn module(name: &str, text: &str) -> Module {
    Module {
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

fn run_with(policy: &str, tests: &str, data: &str) -> Vec<Tested> {
    let policy = module("policy.rego", policy);
    let tests = module("policy_test.rego", tests);
    let suite = Suite::new(&[policy], &[tests], Some(&object(data)));
    suite.unwrap_or_else(|error| panic!("{error}")).run()
}

fn run(policy: &str, tests: &str) -> Vec<Tested> {
    run_with(policy, tests, "{}")
}

fn find<'t>(tested: &'t [Tested], name: &str) -> &'t Tested {
    let found = tested.iter().find(|tested| tested.name == name);
    found.unwrap_or_else(|| panic!("{name} in {tested:?}"))
}

const POLICY: &str = "package stategate.authz
allow if input.claims.tenant == input.body.domain
allow if input.claims.role in data.trusted
";

#[test]
fn tests_pass_fail_and_are_passed_over_as_in_opa() {
    let tested = run(
        POLICY,
        r#"package p_test
import data.stategate.authz
test_passes if authz.allow with input as {"claims": {"tenant": "a"}, "body": {"domain": "a"}}
test_is_false := false
test_is_undefined if input.nothing
test_is_a_number := 5
test_of_a_function_that_fails if to_number("x") == 1
test_prints if { print("seen", 1); true }
test_with_data if authz.allow with input as {"claims": {"role": "r"}} with data.trusted as ["r"]
test_not_without_data if not authz.allow with input as {"claims": {"role": "r"}}
todo_test_later if false
test_function(x) := x
helper := true
test_conflicts := 1 if true
test_conflicts := 2 if true
test_case[x] if { some x in [1, 2]; x == 1 }
"#,
    );
    let verdict = |name| find(&tested, name).verdict.clone();
    for name in [
        "test_passes",
        "test_prints",
        "test_with_data",
        "test_not_without_data",
    ] {
        assert_eq!(verdict(name), Verdict::Passed, "{name}");
    }
    for name in [
        "test_is_false",
        "test_is_undefined",
        "test_is_a_number",
        "test_of_a_function_that_fails",
    ] {
        assert_eq!(verdict(name), Verdict::Failed, "{name}");
    }
    assert_eq!(verdict("todo_test_later"), Verdict::Skipped);
    for (name, why) in [
        ("test_conflicts", "two tests have this name"),
        ("test_case", "cases"),
    ] {
        match verdict(name) {
            Verdict::Broken(said) => assert!(said.contains(why), "{said}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(tested.len(), 12, "{tested:?}");
    let passes = find(&tested, "test_passes");
    assert_eq!(
        (&*passes.package, &*passes.file, passes.line),
        ("data.p_test", "policy_test.rego", 3)
    );
    assert_eq!(find(&tested, "test_prints").printed.len(), 1);
    assert!(find(&tested, "test_prints").printed[0].contains("seen"));
}

#[test]
fn every_input_that_a_test_gives_is_judged_by_the_gateways_engine_too() {
    let tested = run_with(
        POLICY,
        r#"package p_test
import data.stategate.authz as rules
test_one if rules.allow with input as {"claims": {"tenant": "a"}, "body": {"domain": "a"}}
test_two if {
	base := {"claims": {"tenant": "a"}}
	rules.allow with input as object.union(base, {"body": {"domain": "a"}})
	not data.stategate.authz.allow with input as object.union(base, {"body": {"domain": "b"}})
}
test_each if {
	every tenant in ["a", "b", "c"] {
		every domain in ["a", "b"] {
			asked(tenant, domain) == allowed(tenant, domain)
			rules.allow == (tenant == domain) with input as input_of(tenant, domain) with data.trusted as [tenant]
		}
	}
}
test_data if {
	rules.allow with input as {"claims": {"role": "r"}} with data.trusted as ["r"]
	rules.allow with input as {"claims": {"role": "q"}}
	not rules.allow with input as {"claims": {"role": "q"}} with data.trusted as ["r"]
}
test_without if { count(data.trusted) == 1 }
default asked(_, _) := false
asked(tenant, domain) if rules.allow with input as input_of(tenant, domain)
allowed(tenant, domain) := tenant == domain
input_of(tenant, domain) := {"claims": {"tenant": tenant}, "body": {"domain": domain}}
"#,
        r#"{"trusted": ["q"]}"#,
    );
    let compared = |name| {
        let tested = find(&tested, name);
        (tested.compared, tested.verdict.clone())
    };
    assert_eq!(compared("test_one"), (1, Verdict::Passed));
    assert_eq!(compared("test_two"), (2, Verdict::Passed));
    assert_eq!(compared("test_each").0, 6);
    assert_eq!(compared("test_data"), (3, Verdict::Passed));
    assert_eq!(compared("test_without"), (1, Verdict::Passed));
}

#[test]
fn a_decision_that_the_gateway_makes_otherwise_breaks_the_test() {
    // The interpreter counts no instructions.
    let costly = "package stategate.authz
allow if count([1 | some x in numbers.range(1, 600); some y in numbers.range(1, 600); x == y]) == 600
";
    let tested = run(
        costly,
        "package p_test
import data.stategate.authz
test_it if authz.allow with input as {}
",
    );
    match &find(&tested, "test_it").verdict {
        Verdict::Broken(said) => assert!(said.contains("instructions"), "{said}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_undefined_for_its_type_is_no_error() {
    // The interpreter fails at the items of a text, where OPA and the gateway have none.
    let roles = "package stategate.authz
allow if {
	some role in input.claims.roles
	role in data.trusted
}
";
    let tested = run_with(
        roles,
        r#"package p_test
import data.stategate.authz as rules
test_hostile if {
	rules.allow with input as {"claims": {"roles": ["admin"]}}
	every roles in ["admin", 1, null, true, {"no": "role"}] {
		not rules.allow with input as {"claims": {"roles": roles}}
		not data.stategate.authz.allow with input.claims.roles as roles with input as {"claims": {}}
	}
}
test_plain if {
	every roles in ["admin", 1, null, true] {
		not rules.allow with input as {"claims": {"roles": roles}}
	}
	rules.allow with input as {"claims": {"roles": ["other"]}} with data.trusted as ["other"]
}
test_places if {
	not rules.allow with input as {"claims": {"roles": "admin"}}
	rules.allow with input as {"claims": {"roles": ["x"]}} with data.trusted as ["x"]
	not rules.allow with input as {"claims": {"roles": ["x"]}} with data.distrusted as ["x"]
}
test_fails if rules.allow with input as {"claims": {"roles": "admin"}}
test_fails_too if {
	not rules.allow with input as {"claims": {"roles": "admin"}}
	rules.allow with input as {"claims": {"roles": ["other"]}}
}
test_more if {
	decision := rules.allow with input as {"claims": {"roles": "admin"}}
	decision == true
}
"#,
        r#"{"trusted": ["admin"]}"#,
    );
    let verdict = |name| {
        let tested = find(&tested, name);
        (tested.verdict.clone(), tested.compared)
    };
    assert_eq!(verdict("test_plain"), (Verdict::Passed, 5));
    assert_eq!(verdict("test_places"), (Verdict::Passed, 3));
    assert_eq!(verdict("test_fails"), (Verdict::Failed, 1));
    assert_eq!(verdict("test_fails_too"), (Verdict::Failed, 2));
    // A part of the input is replaced, and a decision is kept: those are the interpreter's alone.
    for name in ["test_hostile", "test_more"] {
        assert!(matches!(verdict(name).0, Verdict::Broken(_)), "{name}");
    }
}

#[test]
fn a_policy_that_the_gateway_refuses_has_no_suite() {
    let refused = module(
        "policy.rego",
        "package stategate.authz\nallow if http.send({}).status == 200",
    );
    let tests = module("policy_test.rego", "package p_test\ntest_x := true");
    let error = Suite::new(&[refused], &[tests], None).unwrap_err();
    assert!(error.to_string().contains("http.send"), "{error}");
}

#[test]
fn a_library_that_no_gateway_asks_has_tests_too() {
    let tested = run(
        "package names\nis_plain(name) if not contains(name, \"*\")",
        "package names_test\nimport data.names\ntest_plain if names.is_plain(\"a\")\ntest_glob if not names.is_plain(\"*\")",
    );
    assert_eq!(tested.len(), 2);
    for test in &tested {
        assert_eq!(test.verdict, Verdict::Passed);
        // There is no `with`: the engine of the gateway runs the test itself.
        assert_eq!(test.compared, 1);
    }
}

#[test]
fn tests_of_the_old_language_run() {
    let tested = run(
        "package stategate.authz\nallow { input.claims.tenant == input.body.domain }",
        "package p_test\nimport data.stategate.authz\ntest_it { authz.allow with input as {\"claims\": {\"tenant\": \"a\"}, \"body\": {\"domain\": \"a\"}} }",
    );
    let tested = find(&tested, "test_it");
    assert_eq!((&tested.verdict, tested.compared), (&Verdict::Passed, 1));
}

#[test]
fn rules_that_call_themselves_are_refused() {
    let suite = |tests: &str| {
        let tests = module("policy_test.rego", tests);
        Suite::new(&[module("policy.rego", POLICY)], &[tests], None)
    };
    for tests in [
        "f(x) := f(x)\ntest_it if f(1) == 1",
        "f(x) := g(x)\ng(x) := [f(y) | some y in x]\ntest_it if f(1) == 1",
        "import data.p_test as own\nf(x) if own.g(x)\ng(x) if data[\"p_test\"].f(x)\ntest_it if f(1)",
        "a if b\nb if not c\nc if every x in [1] { x == 1; a }\ntest_it if a",
        "a := data.p_test[input.name]\ntest_it if a",
        "f(x) := x if { true with input as f(x) }\ntest_it if f(1)",
        "f(x) := 1 if x == 1\nelse := f(x)\ntest_it if f(1)",
        "s contains x if x := count(s)\ntest_it if s",
        "o[k] := 1 if some k in o\ntest_it if o",
    ] {
        let error = suite(&format!("package p_test\n{tests}"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("call themselves"), "{tests}: {error}");
    }
    for tests in [
        "tenant := input.claims.tenant\ntest_it if tenant",
        "f(x) := y if { y := x }\ny := f(1)\ntest_it if y == 1",
        "domain(domain) := domain\ntest_it if domain(1) == 1",
        "some_of(xs) := x if { some x in xs }\nx := some_of([1])\ntest_it if x == 1",
        "a := {\"a\": data.a, \"b\": input.a}\ntest_it if not a",
    ] {
        let suite = suite(&format!("package p_test\n{tests}"));
        assert!(suite.is_ok(), "{tests}: {suite:?}");
    }
}

#[test]
fn everything_that_is_refused_is_named_at_once() {
    let texts = [
        "package stategate.authz\nallow if { http.send({}); rand.intn(\"x\", 3) == 1 }",
        "package stategate.other\nx := numbers.range(0, input.n)",
    ];
    let modules = texts.map(|text| module("m.rego", text));
    let said: Vec<_> = kit::refusals(&modules, None)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(said.len(), 3, "{said:?}");
    for (said, name) in said.iter().zip(["http.send", "rand.intn", "numbers.range"]) {
        assert!(said.contains(name), "{said}");
    }
    assert!(kit::refusals(&[module("p.rego", POLICY)], None).is_empty());
    let nothing = kit::refusals(&[module("p.rego", "package x\ny := 1")], None);
    assert!(nothing[0].to_string().contains("it defines no `allow`"));
}

fn explain(policy: &str, data: &str, input: &str) -> kit::Explanation {
    let policy = module("policy.rego", policy);
    kit::explain(&[policy], Some(&object(data)), &object(input))
        .unwrap_or_else(|error| panic!("{error}"))
}

const REASONS: &str = r#"package stategate.authz

default allow := false

allow if is_admin

allow if {
	some role in input.claims.roles
	role in data.trusted
	input.claims.tenant == input.body.domain
}

is_admin if "admin" in input.claims.roles

tenants contains t if some t in [input.claims.tenant]

named(x) := x
"#;

#[test]
fn a_denial_says_where_each_definition_ends_and_what_was_seen() {
    let told = explain(
        REASONS,
        r#"{"trusted": ["reader"]}"#,
        r#"{"claims": {"roles": ["x", "reader"], "tenant": "acme"}, "body": {"domain": "globex"}}"#,
    );
    assert_eq!(told.decision, Decision::Deny(Denied::NotAllowed));
    assert!(told.is_agreed);
    let seen = |name: &str, value: Option<&str>| kit::Seen {
        name: name.to_owned(),
        value: value.map(str::to_owned),
    };
    let at = |line, outcome| Definition {
        file: "policy.rego".to_owned(),
        line,
        outcome,
    };
    let expected = [
        at(3, Outcome::Default("false".to_owned())),
        at(
            5,
            Outcome::Ends {
                line: 5,
                statement: "is_admin".to_owned(),
                seen: vec![seen("is_admin", None)],
            },
        ),
        at(
            7,
            Outcome::Ends {
                line: 10,
                statement: "input.claims.tenant == input.body.domain".to_owned(),
                seen: vec![
                    seen("input.claims.tenant", Some("\"acme\"")),
                    seen("input.body.domain", Some("\"globex\"")),
                ],
            },
        ),
    ];
    assert_eq!(told.definitions, expected);
    assert_eq!(
        told.rules,
        [
            seen("data.stategate.authz.is_admin", None),
            seen("data.stategate.authz.tenants", Some("[\"acme\"]")),
        ]
    );
}

#[test]
fn what_allows_is_named() {
    let told = explain(
        REASONS,
        r#"{"trusted": ["reader"]}"#,
        r#"{"claims": {"roles": ["reader"], "tenant": "acme"}, "body": {"domain": "acme"}}"#,
    );
    assert_eq!(told.decision, Decision::Allow);
    assert_eq!(
        told.definitions[2].outcome,
        Outcome::Holds("true".to_owned())
    );
    let told = explain(
        REASONS,
        "{}",
        r#"{"claims": {"roles": "reader"}, "body": {}}"#,
    );
    match &told.definitions[2].outcome {
        Outcome::Ends {
            line, statement, ..
        } => assert_eq!(
            (*line, &**statement),
            (8, "some role in input.claims.roles")
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn chains_of_else_are_told_one_by_one() {
    let policy = "package stategate.authz
allow := false if input.blocked
else := true if input.fine
else := 7 if input.odd
";
    let outcomes = |input: &str| -> Vec<Outcome> {
        let told = explain(policy, "{}", input);
        told.definitions.into_iter().map(|d| d.outcome).collect()
    };
    let found = outcomes(r#"{"fine": true}"#);
    assert!(
        matches!(&found[0], Outcome::Ends { line: 2, .. }),
        "{found:?}"
    );
    assert_eq!(found[1], Outcome::Holds("true".to_owned()));
    assert_eq!(found[2], Outcome::NotReached);
    let found = outcomes(r#"{"blocked": true}"#);
    assert_eq!(found[0], Outcome::Holds("false".to_owned()));
    assert_eq!(found[1..], [Outcome::NotReached, Outcome::NotReached]);
    let found = outcomes(r#"{"odd": 1}"#);
    assert_eq!(found[2], Outcome::Holds("7".to_owned()));
}
