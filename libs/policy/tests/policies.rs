//! What policies decide, what they may cost, what is refused at load, and how files are replaced.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

use std::{
    collections::BTreeSet,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use stategate_model::{Object, json};
use stategate_policy::{
    Decision, Denied, Document, Limits, Members, Module, Policies, Policy, PolicyError, PolicySet,
    PolicySettings, PolicySource, SourceError,
};
use tokio::sync::watch;

fn object(text: &str) -> Object {
    json::parse_object(text).unwrap()
}

fn document(text: &str) -> Document {
    Document::from(&object(text))
}

fn modules(texts: &[&str]) -> Vec<Module> {
    let named = texts.iter().enumerate().map(|(n, text)| Module {
        name: format!("policy{n}.rego"),
        text: (*text).to_owned(),
    });
    named.collect()
}

/// A policy of these rules in the package that is asked.
fn policy(rules: &str) -> Policy {
    policy_within(rules, Limits::default())
}

fn policy_within(rules: &str, limits: Limits) -> Policy {
    let text = format!("package stategate.authz\n{rules}");
    Policy::compile(&modules(&[&text]), None, limits).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(rules: &str) -> String {
    let text = format!("package stategate.authz\n{rules}");
    match Policy::compile(&modules(&[&text]), None, Limits::default()) {
        Ok(_) => panic!("accepted: {rules}"),
        Err(error) => error.to_string(),
    }
}

fn decides(policy: &Policy, input: &str) -> Decision {
    policy.decide(|| document(input))
}

fn denied(why: Denied) -> Decision {
    Decision::Deny(why)
}

const INPUT: &str = r#"{
    "claims": {"sub": "alice", "tenant": "acme", "roles": ["reader", "writer"]},
    "method": "/stategate.EntityService/Set",
    "metadata": {"x-region": "eu"},
    "body": {"domain": "acme", "type": "user", "key": "a/b", "values": {"n": 1, "s": "x"}},
    "client_stream": false,
    "server_stream": false
}"#;

#[test]
fn only_exactly_true_allows() {
    for (rules, decision) in [
        ("allow := true", Decision::Allow),
        (
            "allow if input.claims.tenant == input.body.domain",
            Decision::Allow,
        ),
        (
            "default allow := false\nallow if input.method == \"x\"",
            denied(Denied::NotAllowed),
        ),
        (
            "allow if input.claims.tenant == \"other\"",
            denied(Denied::NotAllowed),
        ),
        ("allow := false", denied(Denied::NotAllowed)),
        ("allow := \"true\"", denied(Denied::NotBoolean)),
        ("allow := 1", denied(Denied::NotBoolean)),
        ("allow := null", denied(Denied::NotBoolean)),
        ("allow := [true]", denied(Denied::NotBoolean)),
        ("allow := {\"a\": true}", denied(Denied::NotBoolean)),
        (
            "allow contains x if some x in input.claims.roles",
            denied(Denied::NotBoolean),
        ),
        ("allow := input.body.values.n", denied(Denied::NotBoolean)),
        ("allow := input.missing.member", denied(Denied::NotAllowed)),
        // Two rules that say different things: an error, and so a denial.
        (
            "allow := true if input.claims.sub\nallow := false if input.body.domain",
            denied(Denied::NotAllowed),
        ),
        (
            "allow := false if input.claims.sub\nallow := true if input.body.domain",
            denied(Denied::NotAllowed),
        ),
        // Functions that fail are undefined, as in OPA.
        (
            "allow if to_number(input.claims.sub) == 1",
            denied(Denied::NotAllowed),
        ),
        (
            "allow if 1 / (input.body.values.n - 1) == 1",
            denied(Denied::NotAllowed),
        ),
    ] {
        assert_eq!(decides(&policy(rules), INPUT), decision, "{rules}");
    }
}

#[test]
fn a_policy_that_fails_denies() {
    // A pattern that is too large is an error even where a failing function would only be undefined.
    let policy = policy("allow if not regex.match(input.body.p, \"aaaa\")");
    let input = |pattern: &str| format!("{{\"body\": {{\"p\": \"{pattern}\"}}}}");
    assert_eq!(decides(&policy, &input("b")), Decision::Allow);
    assert_eq!(decides(&policy, &input("a")), denied(Denied::NotAllowed));
    let large = input("(a{1000}){1000}");
    assert_eq!(decides(&policy, &large), denied(Denied::Failed));
}

#[test]
fn a_policy_that_is_not_configured_denies_everything() {
    let asked = AtomicUsize::new(0);
    let input = || {
        asked.fetch_add(1, Ordering::SeqCst);
        document(INPUT)
    };
    let none = Policies::new(PolicySet::default());
    assert_eq!(none.request(input), denied(Denied::NotConfigured));
    assert_eq!(none.response(input), denied(Denied::NotConfigured));
    let half = Policies::new(PolicySet {
        request: Some(policy("allow := true")),
        response: None,
    });
    assert_eq!(half.request(input), Decision::Allow);
    assert_eq!(half.response(input), denied(Denied::NotConfigured));
    assert_eq!(
        asked.load(Ordering::SeqCst),
        0,
        "an input was built for nothing"
    );
}

#[test]
fn policies_are_v1_or_v0_file_by_file() {
    let v0 = "package stategate.authz\ndefault allow = false\nallow { input.claims.sub == \"alice\"; mine }";
    let v0_also = "package stategate.authz\nmine { some i; input.claims.roles[i] == \"writer\" }";
    let v1 = "package stategate.authz\nmine if \"writer\" in input.claims.roles";
    let imported =
        "package stategate.authz\nimport rego.v1\nmine if \"writer\" in input.claims.roles";
    let elsewhere = "package roles\nwriter(who) if who == \"alice\"";
    let using =
        "package stategate.authz\nimport data.roles\nallow if roles.writer(input.claims.sub)";
    for files in [
        vec![v0, v0_also],
        vec![v0, v1],
        vec![v1, v0],
        vec![v0, imported],
        vec![using, elsewhere],
        vec![elsewhere, using],
    ] {
        let policy = Policy::compile(&modules(&files), None, Limits::default());
        let policy = policy.unwrap_or_else(|error| panic!("{files:?}: {error}"));
        assert_eq!(decides(&policy, INPUT), Decision::Allow, "{files:?}");
        let other = INPUT.replace("alice", "bob");
        assert!(!decides(&policy, &other).is_allow(), "{files:?}");
    }
}

#[test]
fn data_documents_are_seen_beside_the_rules() {
    let text =
        "package stategate.authz\nallow if input.method in data.roles[input.claims.roles[_]]";
    let data = object(r#"{"roles": {"writer": ["/stategate.EntityService/Set"]}, "n": 1.5}"#);
    let policy = Policy::compile(&modules(&[text]), Some(&data), Limits::default()).unwrap();
    assert_eq!(decides(&policy, INPUT), Decision::Allow);
    assert!(!decides(&policy, &INPUT.replace("Set", "Del")).is_allow());
    let conflicting = object(r#"{"stategate": {"authz": {"allow": true}}}"#);
    let conflict = Policy::compile(&modules(&[text]), Some(&conflicting), Limits::default());
    assert!(
        matches!(conflict, Err(PolicyError::Data(_))),
        "{conflict:?}"
    );
}

#[test]
fn what_a_policy_may_not_use_is_refused_with_the_reason() {
    for (rules, name) in [
        (
            "allow if http.send({\"method\": \"get\", \"url\": \"http://a\"}).status_code == 200",
            "http.send",
        ),
        (
            "allow if not http.send({\"method\": \"get\", \"url\": input.body.url})",
            "http.send",
        ),
        ("allow := true\nunused if http.send({})", "http.send"),
        (
            "allow if numbers.range(0, input.body.n)[_] == 1",
            "numbers.range",
        ),
        (
            "n := 5\nallow if numbers.range(0, n)[_] == 1",
            "numbers.range",
        ),
        (
            "allow if numbers.range(0, count(input.body.values))[_] == 1",
            "numbers.range",
        ),
        ("allow if numbers.range(0, 100000)[_] == 1", "numbers.range"),
        (
            "allow if numbers.range(-9223372036854775808, 9223372036854775807)[_] == 1",
            "numbers.range",
        ),
        (
            "allow if numbers.range_step(0, input.body.n, 1)[_] == 1",
            "numbers.range_step",
        ),
        (
            "allow if numbers[\"range\"](0, input.body.n)[_] == 1",
            "numbers.range",
        ),
        ("allow if bits.lsh(1, input.body.n) > 0", "bits.lsh"),
        ("allow if bits.lsh(1, 4294967295) > 0", "bits.lsh"),
        (
            "allow if sprintf(input.body.format, [1]) == \"1\"",
            "sprintf",
        ),
        (
            "allow if sprintf(\"%9999999999d\", [1]) == \"1\"",
            "sprintf",
        ),
        (
            "allow if net.cidr_expand(input.body.net)[_] == \"10.0.0.1\"",
            "net.cidr_expand",
        ),
        (
            "allow if net.lookup_ip_addr(\"localhost\")",
            "net.lookup_ip_addr",
        ),
        ("allow if opa.runtime().env.HOME", "opa.runtime"),
        ("allow if rand.intn(\"x\", 2) == 1", "rand.intn"),
        ("allow if units.parse(input.body.x) > 0", "units.parse"),
        (
            "allow if units.parse_bytes(input.body.x) > 0",
            "units.parse_bytes",
        ),
        ("allow if { print(input); true }", "print"),
        (
            "allow if regex.replace(input.body.s, \"a\", \"b\") == \"b\"",
            "regex.replace",
        ),
        (
            "allow if count(regex.split(\"(a|b)*c\", input.body.s)) == 1",
            "regex.split",
        ),
        (
            "allow if count(regex.find_n(\"(a|b)*c|a\", input.body.s, -1)) == 1",
            "regex.find_n",
        ),
    ] {
        let error = refused(rules);
        assert!(
            error.contains(&format!("uses {name}: ")),
            "{rules}: {error}"
        );
    }
    for rules in [
        "allow if 3 in numbers.range(0, 10)",
        "allow if 3 in numbers.range(10, -2)",
        "allow if bits.lsh(input.body.values.n, 3) == 8",
        "allow if sprintf(\"%s/%03d%%\", [input.claims.sub, 7]) == \"alice/007%\"",
        "# http.send and numbers.range(0, input.n) are not used\nallow if input.claims.sub != \"http.send\"",
    ] {
        assert_eq!(decides(&policy(rules), INPUT), Decision::Allow, "{rules}");
    }
    for (rules, part) in [
        ("allow if nonsense(input)", "nonsense"),
        ("allow {", "policy0.rego"),
        ("allow if input.body.x == y", "y"),
        ("deny := true", "no `allow` in the package stategate.authz"),
        ("allow if allow2\nallow2 if allow", "rules call themselves"),
        (
            "allow if { input.x; a }\na if { b; input.y }\nb if { c }\nc if a",
            "rules call themselves",
        ),
        ("allow if f(input.x)\nf(x) if f(x)", "rules call themselves"),
        (
            "allow if f(input.x)\nf(x) if { y := [z | some z in x; g(z)]; y }\ng(x) if f(x)",
            "rules call themselves",
        ),
        ("allow if data.stategate.authz[input.x]", "recursion"),
        (
            "allow if a[input.x]\na contains x if { some x in input.l; data.stategate.authz[x] }",
            "recursion",
        ),
        (
            "allow if data.stategate.authz.f(1) with input as {}\nf(x) if x == 1",
            "with",
        ),
    ] {
        let error = refused(rules);
        assert!(error.contains(part), "{rules}: {error}");
    }
    // Rules that come back to themselves through a look-up whose path is known only later.
    let looks_up = "package stategate.authz\nallow if data.p[input.x]\nf(x) if data.p[x]";
    for (other, refused) in [
        ("package p\nq if data.stategate.authz.allow", true),
        ("package p\nq if data.stategate.authz.f(\"q\")", true),
        ("package p\nq if input.y\nr := data.other[input.x]", false),
    ] {
        let policy = Policy::compile(&modules(&[looks_up, other]), None, Limits::default());
        assert_eq!(policy.is_err(), refused, "{other}: {policy:?}");
    }
    let none = Policy::compile(&[], None, Limits::default());
    assert!(matches!(none, Err(PolicyError::Empty)));
    let large = format!(
        "package stategate.authz\nallow := true\n{}",
        "#\n".repeat(600_000)
    );
    let large = Policy::compile(&modules(&[&large]), None, Limits::default());
    assert!(matches!(large, Err(PolicyError::TooLarge(_))));
}

/// Items that a policy loops over.
fn items(count: usize) -> String {
    let items: Vec<String> = (0..count).map(|n| n.to_string()).collect();
    format!("{{\"body\": {{\"items\": [{}]}}}}", items.join(","))
}

const CUBIC: &str = "allow if { some a in input.body.items; some b in input.body.items; some c in input.body.items; a + b + c < 0 }";

#[test]
fn a_decision_costs_no_more_than_its_limits() {
    let patient = Limits {
        time: Duration::from_secs(60),
        instructions: 100_000,
    };
    let counted = policy_within(CUBIC, patient);
    assert_eq!(decides(&counted, &items(1_000)), denied(Denied::TooLong));
    assert_eq!(decides(&counted, &items(3)), denied(Denied::NotAllowed));
    let timed = policy_within(
        CUBIC,
        Limits {
            time: Duration::from_millis(10),
            instructions: usize::MAX,
        },
    );
    let input = document(&items(1_000));
    let began = Instant::now();
    assert_eq!(timed.decide(|| input.clone()), denied(Denied::TooSlow));
    println!("stopped after {:?}", began.elapsed());
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    // One instruction that takes longer than the limit.
    let slow = policy_within(
        "allow if count(split(input.body.text, \"b\")) > 0",
        Limits {
            time: Duration::from_micros(100),
            instructions: usize::MAX,
        },
    );
    let text = "ab".repeat(1 << 19);
    let input = document(&format!("{{\"body\": {{\"text\": \"{text}\"}}}}"));
    assert_eq!(slow.decide(|| input.clone()), denied(Denied::TooSlow));
    // What failed leaves nothing behind: the same machines decide the next call.
    let fine = policy_within(CUBIC.replace("< 0", "== 6").as_str(), Limits::default());
    assert_eq!(decides(&fine, &items(4)), Decision::Allow);
    assert_eq!(
        decides(&fine, &items(10_000)),
        decides(&fine, &items(10_000))
    );
    assert_eq!(decides(&fine, &items(4)), Decision::Allow);
}

/// Functions whose arguments a caller may choose, with arguments that might cost much.
#[test]
fn hostile_arguments_of_functions_are_bounded() {
    let long = "9".repeat(100_000);
    let pattern = "(a{1000}){1000}";
    for (rules, value) in [
        ("allow if to_number(input.body.x) > 0", "1e1000000000"),
        ("allow if to_number(input.body.x) > 0", long.as_str()),
        (
            "allow if json.unmarshal(input.body.x).a > 0",
            "{\"a\": 1e1000000000}",
        ),
        ("allow if json.unmarshal(input.body.x).a > 0", "[[[[[[[["),
        ("allow if regex.match(input.body.x, \"aaaa\")", pattern),
        (
            "allow if regex.match(input.body.x, \"aaaa\")",
            "((((((((((((((((",
        ),
        (
            "allow if glob.match(input.body.x, [\"/\"], \"aaaa\")",
            "{a,b,{c,d,{e,f}}}*{a,b}*{a,b}*",
        ),
        (
            "allow if semver.compare(input.body.x, \"1.0.0\") == 1",
            "99999999999999999999.0.0",
        ),
        (
            "allow if time.parse_duration_ns(input.body.x) > 0",
            "99999999999999999999h",
        ),
        (
            "allow if time.parse_rfc3339_ns(input.body.x) > 0",
            "9999999-01-01T00:00:00Z",
        ),
        (
            "allow if net.cidr_contains(input.body.x, \"10.0.0.1\")",
            "::/0",
        ),
        (
            "allow if strings.replace_n({\"a\": \"b\"}, input.body.x) == \"\"",
            long.as_str(),
        ),
        (
            "allow if format_int(to_number(input.body.x), 2) == \"\"",
            "1e308",
        ),
        ("allow if base64.decode(input.body.x) == \"x\"", "===="),
        ("allow if urlquery.decode(input.body.x) == \"x\"", "%zz%"),
        ("allow if uuid.parse(input.body.x).version == 4", "x"),
        (
            "allow if split(input.body.x, \"\")[0] == \"x\"",
            long.as_str(),
        ),
        (
            "allow if substring(input.body.x, 0, 9223372036854775807) == \"x\"",
            "é",
        ),
        ("allow if indexof(input.body.x, \"\") == 7", "é"),
    ] {
        let policy = policy(rules);
        println!("{rules}");
        let encoded = serde_json::json!({"body": {"x": value}}).to_string();
        let input = document(&encoded);
        let began = Instant::now();
        let _either = policy.decide(|| input.clone());
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "{rules} took {took:?}");
    }
    for (rules, value) in [
        (
            "allow if time.add_date(input.body.x, input.body.x, 1, 1) > 0",
            "1e18",
        ),
        ("allow if time.clock(input.body.x)[0] == 1", "1e300"),
        ("allow if time.weekday(input.body.x) == \"x\"", "-1e300"),
        (
            "allow if bits.rsh(input.body.x, input.body.x) == 1",
            "4294967296",
        ),
        (
            "allow if substring(\"abc\", input.body.x, input.body.x) == \"x\"",
            "-9007199254740991",
        ),
        (
            "allow if array.slice([1, 2], input.body.x, input.body.x) == []",
            "9007199254740991",
        ),
        (
            "allow if input.body.x * input.body.x * input.body.x % 7 == 1",
            "9007199254740991",
        ),
        ("allow if [1, 2][input.body.x] == 1", "1e300"),
        (
            "allow if format_int(input.body.x, input.body.x) == \"\"",
            "1e300",
        ),
        (
            "allow if round(input.body.x) + ceil(input.body.x) + floor(input.body.x) > 0",
            "1e308",
        ),
    ] {
        println!("{rules}");
        let policy = policy(rules);
        let input = document(&format!("{{\"body\": {{\"x\": {value}}}}}"));
        let began = Instant::now();
        let _either = policy.decide(|| input.clone());
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "{rules} took {took:?}");
    }
}

#[test]
fn constant_policies_are_known_and_no_input_is_built() {
    let never = || -> Document { panic!("an input was built") };
    for (rules, decision) in [
        ("allow := true", Decision::Allow),
        ("default allow := true", Decision::Allow),
        ("allow if 1 + 1 == 2 # input.body", Decision::Allow),
        ("allow if \"x\" in data.list", denied(Denied::NotAllowed)),
        ("default allow := false", denied(Denied::NotAllowed)),
        ("allow := \"yes\"", denied(Denied::NotBoolean)),
    ] {
        let policy = policy(rules);
        assert_eq!(policy.constant(), Some(&decision), "{rules}");
        assert_eq!(policy.decide(never), decision, "{rules}");
    }
    for rules in [
        "allow if input.method",
        "allow if time.now_ns() > 0",
        "allow if f(input)\nf(x) if x.y",
    ] {
        assert_eq!(policy(rules).constant(), None, "{rules}");
    }
}

#[test]
fn what_a_policy_reads_decides_who_may_share_its_decisions() {
    let policy = policy(
        "allow if { input.claims.tenant == \"acme\"; input.claims[\"org\"]; input.metadata.x; input.body.n == 1 }",
    );
    let reads = policy.reads();
    let names = |names: &[&str]| -> Members {
        Members::Named(
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<BTreeSet<_>>(),
        )
    };
    assert_eq!(reads.claims, names(&["org", "tenant"]));
    assert_eq!(reads.metadata, names(&["x"]));
    assert!(reads.body && !reads.method && !reads.streams && !reads.other && !reads.ambient);
    let key = |claims: &str, metadata: &str| {
        policy.class(Some(&document(claims)), &document(metadata), None)
    };
    let first = key(
        r#"{"tenant": "a", "org": 1, "sub": "alice", "iat": 1}"#,
        r#"{"x": "1", "y": "2"}"#,
    );
    assert_eq!(
        first,
        key(
            r#"{"tenant": "a", "org": 1, "sub": "bob", "jti": "z"}"#,
            r#"{"x": "1"}"#
        )
    );
    for (claims, metadata) in [
        (r#"{"tenant": "b", "org": 1}"#, r#"{"x": "1"}"#),
        (r#"{"tenant": "a"}"#, r#"{"x": "1"}"#),
        (r#"{"tenant": "a", "org": null}"#, r#"{"x": "1"}"#),
        (r#"{"tenant": "a", "org": "1"}"#, r#"{"x": "1"}"#),
        (r#"{"tenant": "a", "org": 1}"#, r#"{"x": "2"}"#),
        (r#"{"tenant": "a", "org": 1}"#, "{}"),
        (r#"{"tenant": "a", "org": 1, "x": "1"}"#, "{}"),
    ] {
        assert_ne!(first, key(claims, metadata), "{claims} {metadata}");
    }
    let by_time = self::policy("allow if { time.now_ns() > 0; input.claims[x] }");
    assert!(by_time.reads().ambient);
    assert_eq!(by_time.reads().claims, Members::All);
}

#[test]
fn threads_decide_at_once_and_alike() {
    let policy = policy(
        "allow if { input.claims.tenant == input.body.domain; \"writer\" in input.claims.roles }",
    );
    let yes = document(INPUT);
    let no = document(&INPUT.replace("\"writer\"", "\"nobody\""));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (policy, yes, no) = (&policy, &yes, &no);
            scope.spawn(move || {
                for n in 0..2_000 {
                    let allowed = (n + thread) % 3 != 0;
                    let input = if allowed { yes } else { no };
                    assert_eq!(policy.decide(|| input.clone()).is_allow(), allowed);
                }
            });
        }
    });
}

#[test]
fn many_policies_share_the_machines_of_a_thread() {
    let policies: Vec<_> = (0..20)
        .map(|n| policy(&format!("allow if input.body.n == {n}")))
        .collect();
    for round in 0..3 {
        for (n, policy) in policies.iter().enumerate() {
            let input = format!("{{\"body\": {{\"n\": {n}}}}}");
            assert!(decides(policy, &input).is_allow(), "{round} {n}");
            let other = format!("{{\"body\": {{\"n\": {}}}}}", n + 1);
            assert!(!decides(policy, &other).is_allow(), "{round} {n}");
        }
    }
}

#[test]
fn policies_come_in_base64() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let encoded = STANDARD.encode("package stategate.authz\nallow := true");
    let broken = format!("{}\n{}\n", &encoded[..10], &encoded[10..]);
    for text in [&encoded, &broken] {
        let settings = PolicySettings {
            request: PolicySource::base64("STATEGATE_REQUEST_POLICY", text).unwrap(),
            ..PolicySettings::default()
        };
        let (policies, reloader) = settings.load().unwrap();
        assert!(policies.request(|| document("{}")).is_allow());
        assert!(!policies.response(|| document("{}")).is_allow());
        assert!(!reloader.has_files());
    }
    for text in ["allow := true", "====", "/w=="] {
        assert_eq!(
            PolicySource::base64("x", text),
            Err(SourceError::Base64),
            "{text}"
        );
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the files were read this often from now on.
async fn rounds(reads: &mut watch::Receiver<u64>, more: u64) {
    let now = *reads.borrow_and_update();
    reads.wait_for(|count| *count >= now + more).await.unwrap();
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[tokio::test]
async fn changed_files_are_put_in_force_together_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    let (a, b) = (rules.join("a.rego"), rules.join("b.rego"));
    let data = folder.path().join("data.json");
    write(&a, "package stategate.authz\nallow if mine");
    write(
        &b,
        "package stategate.authz\nmine if input.claims.sub in data.users",
    );
    write(&rules.join("a_test.rego"), "not rego {");
    write(&rules.join("README.md"), "not rego {");
    write(&data, r#"{"users": ["alice"]}"#);
    let settings = PolicySettings {
        request: PolicySource::files(&rules.display().to_string()).unwrap(),
        response: PolicySource::files(&format!("{}, {}", a.display(), b.display())).unwrap(),
        data: Some(data.clone()),
        limits: Limits::default(),
    };
    let (policies, reloader) = settings.load().unwrap();
    assert!(reloader.has_files());
    let mut reads = reloader.rounds();
    let task = tokio::spawn(reloader.every(Duration::from_millis(20)).run());
    let mut replacements = policies.replacements();
    let may = |who: &str| {
        let input = document(&format!("{{\"claims\": {{\"sub\": \"{who}\"}}}}"));
        let set = policies.current();
        let request = set.request(|| input.clone()).is_allow();
        assert_eq!(
            request,
            set.response(|| input).is_allow(),
            "one was replaced"
        );
        request
    };
    assert!(may("alice") && !may("bob"));
    write(&data, r#"{"users": ["bob"]}"#);
    until("the data are in force", || may("bob")).await;
    assert!(!may("alice"));
    // Files that are half written, missing or wrong: what was in force stays.
    let text = std::fs::read_to_string(&b).unwrap();
    for (name, change) in [
        ("cut short", text[..text.len() - 12].to_owned()),
        ("refused", format!("{text}\nx if http.send({{}})")),
        ("not UTF-8 any more", format!("{text}\n{{")),
        ("empty", String::new()),
    ] {
        write(&b, &change);
        rounds(&mut reads, 4).await;
        assert!(may("bob") && !may("alice"), "{name}");
    }
    std::fs::remove_file(&b).unwrap();
    write(&data, "{\"users\": [");
    rounds(&mut reads, 4).await;
    assert!(may("bob") && !may("alice"));
    assert_eq!(*replacements.borrow_and_update(), 1);
    // Both are right again, and say something new together.
    write(
        &b,
        "package stategate.authz\nmine if input.claims.sub == data.user",
    );
    write(&data, r#"{"user": "carol"}"#);
    until("both are in force", || may("carol")).await;
    assert!(!may("bob"));
    assert_eq!(*replacements.borrow_and_update(), 2);
    task.abort();
}

#[tokio::test]
async fn a_file_that_is_being_written_is_not_put_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.rego");
    write(
        &path,
        "package stategate.authz\nallow if input.claims.sub == \"alice\"",
    );
    let settings = PolicySettings {
        request: PolicySource::files(&path.display().to_string()).unwrap(),
        ..PolicySettings::default()
    };
    let (policies, reloader) = settings.load().unwrap();
    let mut reads = reloader.rounds();
    let task = tokio::spawn(reloader.every(Duration::from_millis(400)).run());
    let replacements = policies.replacements();
    // Every part of it is a policy, and allows everything. It grows after each time it was read.
    let mut text = "package stategate.authz\nallow := true\n".to_owned();
    for _ in 0..6 {
        text.push_str("# more\n");
        write(&path, &text);
        rounds(&mut reads, 1).await;
        assert_eq!(*replacements.borrow(), 0, "a part is in force");
    }
    write(
        &path,
        "package stategate.authz\nallow if input.claims.sub == \"carol\"",
    );
    until("what was written last is in force", || {
        let carol = document(r#"{"claims": {"sub": "carol"}}"#);
        policies.request(|| carol).is_allow()
    })
    .await;
    assert_eq!(*replacements.borrow(), 1);
    task.abort();
}

#[test]
fn files_that_are_not_there_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().display().to_string();
    let of = |request: PolicySource| {
        let settings = PolicySettings {
            request,
            ..PolicySettings::default()
        };
        match settings.load().map(|_| ()).unwrap_err() {
            SourceError::Unreadable { of, error } => {
                assert_eq!(of, "requests");
                *error
            }
            other => other,
        }
    };
    let files = |list: &str| PolicySource::files(list).unwrap();
    assert!(matches!(of(files(&empty)), SourceError::NoFiles(_)));
    // `allow := true` of answers must not allow every request.
    for name in ["policy.rego", "response.rego"] {
        let text = "package stategate.authz\nallow := true";
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    assert!(matches!(of(files(&empty)), SourceError::TwoPolicies(_)));
    for name in ["policy.rego", "response.rego"] {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    let missing = format!("{empty}/missing.rego");
    assert!(matches!(of(files(&missing)), SourceError::Read { .. }));
    std::fs::write(folder.path().join("x.rego"), [0xff]).unwrap();
    assert!(matches!(of(files(&empty)), SourceError::NotText(_)));
    std::fs::write(
        folder.path().join("x.rego"),
        "package stategate.authz\nallow {",
    )
    .unwrap();
    assert!(matches!(
        of(files(&empty)),
        SourceError::Policy { of: "requests", .. }
    ));
    let large = std::fs::File::create(folder.path().join("x.rego")).unwrap();
    large.set_len((4 << 20) + 1).unwrap();
    assert!(matches!(of(files(&empty)), SourceError::TooLarge(_)));
    assert_eq!(
        PolicySource::files("a.rego,,b.rego"),
        Err(SourceError::NoPath)
    );
}
