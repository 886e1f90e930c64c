//! Nothing gets to a service, and nothing from one to a caller, that a policy does not let through.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::FutureExt as _;
use stategate_api::{
    Access, Action, Answer, Caller, Context, Del, Entity, Gate, Get, Operation, Problem, Set,
    Start, Step, Subscribe, Transact, Verdicts,
};
use stategate_model::{
    Claims, Domain, EntityRef, Event, EventId, Expect, Filter, Glob, Lane, Limits, Method,
    Position, Timestamp, Values, Version, json,
};
use stategate_policy::{Document, Module, Policies, Policy, PolicySet};

fn policy(rules: &str) -> Option<Policy> {
    let text = format!("package stategate.authz\n{rules}");
    let module = Module {
        name: "policy.rego".to_owned(),
        text,
    };
    Some(Policy::compile(&[module], None, stategate_policy::Limits::default()).unwrap())
}

fn set_of(request: &str, response: &str) -> PolicySet {
    PolicySet {
        request: policy(request),
        response: policy(response),
    }
}

fn values(text: &str) -> Values {
    Values::new(json::parse_object(text).unwrap(), &Limits::default()).unwrap()
}

fn caller(claims: &str, expires: SystemTime) -> Arc<Caller> {
    Arc::new(Caller::new(&values(claims), Claims::none(), expires).unwrap())
}

fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3_600)
}

fn context(claims: &str) -> Context {
    Context {
        caller: Some(caller(claims, later())),
        ..Context::anonymous()
    }
}

fn entity() -> EntityRef {
    EntityRef::new("d", "t", "k").unwrap()
}

fn set() -> Set {
    Set {
        entity: entity(),
        values: Values::empty(),
    }
}

/// What becomes of a call, and whether it got to its service.
fn call<R: Operation>(
    access: &Access,
    request: R,
    context: Context,
    value: R::Answer,
) -> (Option<Problem>, bool) {
    let mut was_called = false;
    let rules = access.rules();
    let message = rules.message(Document::null);
    let answered = rules.call(request, message, context, |_| {
        was_called = true;
        async {
            Ok(Answer {
                value,
                position: None,
                version: None,
                replayed: false,
            })
        }
    });
    let answered = answered.now_or_never().unwrap();
    (answered.err(), was_called)
}

const NOT_DEL: &str = r#"allow if input.method != "/stategate.EntityService/Del""#;
const ALL: &str = "allow := true";

#[test]
fn what_is_not_permitted_does_not_get_to_its_service() {
    let access = Access::governed(Policies::new(set_of(NOT_DEL, ALL)));
    let del = Del { entity: entity() };
    assert_eq!(
        call(&access, del, context("{}"), ()),
        (Some(Problem::Denied), false)
    );
    assert_eq!(call(&access, set(), context("{}"), ()), (None, true));
    // No policy is no permission.
    let nothing = Access::governed(Policies::new(PolicySet::default()));
    assert_eq!(
        call(&nothing, set(), context("{}"), ()),
        (Some(Problem::Denied), false)
    );
}

#[test]
fn who_is_not_verified_is_refused_whatever_the_policies_say() {
    let access = Access::governed(Policies::new(set_of(ALL, ALL)));
    let (refused, was_called) = call(&access, set(), Context::anonymous(), ());
    assert!(matches!(refused, Some(Problem::Unauthenticated { .. })));
    assert!(!was_called);
}

#[test]
fn a_transaction_does_nothing_that_its_operations_may_not() {
    let access = Access::governed(Policies::new(set_of(NOT_DEL, ALL)));
    let step = |action| Step {
        action,
        precondition: Expect::Anything,
    };
    let transact = Transact {
        domain: Domain::new("d").unwrap(),
        steps: vec![
            step(Action::Set(set())),
            step(Action::Del(Del { entity: entity() })),
        ],
    };
    let (refused, was_called) = call(&access, transact, context("{}"), Vec::new());
    assert_eq!(refused, Some(Problem::Denied.of_operation(1)));
    assert!(!was_called);
}

#[test]
fn a_write_whose_answer_is_refused_is_said_to_be_written() {
    let access = Access::governed(Policies::new(set_of(
        ALL,
        "allow if input.body.version == \"8\"",
    )));
    assert_eq!(
        call(&access, set(), context("{}"), ()),
        (Some(Problem::ResponseDenied), true)
    );
    let get = || Get {
        entity: entity(),
        at: None,
    };
    let answer = |version| Entity {
        entity: entity(),
        values: values(r#"{"a": 1}"#),
        version: Some(Version::new(version)),
    };
    assert_eq!(
        call(&access, get(), context("{}"), answer(7)),
        (Some(Problem::Denied), true)
    );
    assert_eq!(call(&access, get(), context("{}"), answer(8)), (None, true));
}

#[test]
fn what_cannot_be_shown_or_encoded_after_a_write_may_have_been_written() {
    let damaged = || {
        Values::from_canonical("x")
            .object()
            .map(|_| ())
            .unwrap_err()
    };
    let rules = Access::open().rules();
    let message = rules.message(Document::null);
    let answered = rules.call(set(), message, Context::anonymous(), |_| async {
        Ok(Answer {
            value: (),
            position: None,
            version: None,
            replayed: false,
        })
    });
    let released = answered.now_or_never().unwrap().unwrap();
    let problem = released.encode(|()| Err::<(), _>(damaged()));
    assert!(matches!(problem, Err(Problem::OutcomeUnknown { .. })));
}

fn gate(policies: &Policies, context: Context) -> Gate {
    let glob = |name| Glob::parse(name, "*").unwrap();
    let everything = Subscribe {
        domain: glob("domain"),
        kind: glob("type"),
        key: None,
        methods: Vec::new(),
        filter: Filter::parse_event("").unwrap(),
        start: Start::Live,
        progress: false,
    };
    let rules = Access::governed(policies.clone()).rules();
    let message = rules.subscription(|| Document::object([("domain", Document::from("*"))]));
    let mut gate = None;
    let call = rules.call(everything, message, context, |call| {
        gate = Some(call.gate());
        async { Err(Problem::ShuttingDown) }
    });
    drop(call.now_or_never());
    gate.unwrap()
}

fn event(domain: &str) -> Event {
    Event {
        id: EventId::fresh(Timestamp(1)),
        entity: EntityRef::new(domain, "t", "k").unwrap(),
        values: Values::empty(),
        version: Version::new(1),
        lane: Lane(0),
        position: Position::new(1),
        time: Timestamp(1),
        method: Method::Set,
        claims: Claims::none(),
        trace_parent: None,
    }
}

fn sees(gate: &Gate, event: &Event, verdicts: &Verdicts) -> bool {
    let delivered = gate.deliver(event, verdicts, || Ok(Bytes::new())).unwrap();
    delivered.is_some()
}

const OWN: &str = "allow if input.body.entity.domain == input.claims.tenant";

#[test]
fn a_subscriber_sees_what_the_policy_lets_it_see_and_decisions_are_shared_by_what_it_looks_at() {
    let policies = Policies::new(set_of(ALL, OWN));
    let of = |claims: &str| gate(&policies, context(claims));
    let (a, b) = (event("a"), event("b"));
    let (of_a, of_b) = (Verdicts::default(), Verdicts::default());
    for n in 0..100 {
        let alice = of(&format!(r#"{{"tenant": "a", "sub": "{n}", "iat": {n}}}"#));
        let bob = of(&format!(r#"{{"tenant": "b", "sub": "{n}"}}"#));
        let nobody = of(&format!(r#"{{"sub": "{n}"}}"#));
        assert!(sees(&alice, &a, &of_a) && !sees(&alice, &b, &of_b));
        assert!(!sees(&bob, &a, &of_a) && sees(&bob, &b, &of_b));
        assert!(!sees(&nobody, &a, &of_a) && !sees(&nobody, &b, &of_b));
    }
    assert_eq!(
        (of_a.len(), of_b.len()),
        (3, 3),
        "one decision for each tenant"
    );
    // Another policy is another decision.
    let gate = of(r#"{"tenant": "a"}"#);
    policies.replace(set_of(
        ALL,
        "allow if input.body.entity.domain != input.claims.tenant",
    ));
    assert!(!sees(&gate, &a, &of_a) && sees(&gate, &b, &of_b));
}

#[test]
fn what_does_not_depend_on_the_event_is_decided_once() {
    let policies = Policies::new(set_of(ALL, r#"allow if input.claims.tenant == "a""#));
    let (a, verdicts) = (event("a"), Verdicts::default());
    assert!(sees(
        &gate(&policies, context(r#"{"tenant": "a"}"#)),
        &a,
        &verdicts
    ));
    assert!(!sees(
        &gate(&policies, context(r#"{"tenant": "b"}"#)),
        &a,
        &verdicts
    ));
    assert_eq!(verdicts.len(), 0);
    // The time of day is another for each event.
    let policies = Policies::new(set_of(ALL, "allow if time.now_ns() > input.body.x"));
    assert!(!sees(&gate(&policies, context("{}")), &a, &verdicts));
    assert_eq!(verdicts.len(), 0);
}

#[test]
fn a_policy_that_fails_shows_nothing_and_only_to_those_it_fails_for() {
    let rule = r#"allow if { input.claims.x == 1 }
allow := 7 if { input.claims.x == 2 }"#;
    let policies = Policies::new(set_of(ALL, rule));
    let (a, verdicts) = (event("a"), Verdicts::default());
    assert!(!sees(
        &gate(&policies, context(r#"{"x": 2}"#)),
        &a,
        &verdicts
    ));
    assert!(sees(
        &gate(&policies, context(r#"{"x": 1}"#)),
        &a,
        &verdicts
    ));
}

#[tokio::test]
async fn a_subscription_ends_with_its_token_and_when_policies_no_longer_permit_it() {
    let policies = Policies::new(set_of(ALL, ALL));
    let expired = Context {
        caller: Some(caller("{}", SystemTime::now() - Duration::from_secs(1))),
        ..Context::anonymous()
    };
    let expired = gate(&policies, expired).check();
    assert!(
        matches!(expired, Err(Problem::Unauthenticated { .. })),
        "{expired:?}"
    );
    let gate = gate(&policies, context("{}"));
    let mut watch = gate.watch();
    assert_eq!(gate.check(), Ok(()));
    assert!(watch.changed().now_or_never().is_none(), "nothing changed");
    // This policy looks at the message, which the one before did not.
    policies.replace(set_of(r#"allow if input.body.domain == "*""#, ALL));
    watch.changed().await;
    assert_eq!(gate.check(), Ok(()));
    policies.replace(set_of(r#"allow if input.body.domain == "a""#, ALL));
    watch.changed().await;
    assert_eq!(gate.check(), Err(Problem::Denied));
}

#[tokio::test]
async fn a_subscription_that_waits_is_woken_by_the_end_of_its_token() {
    let policies = Policies::new(set_of(ALL, ALL));
    let soon = Context {
        caller: Some(caller("{}", SystemTime::now() + Duration::from_millis(50))),
        ..Context::anonymous()
    };
    let gate = gate(&policies, soon);
    assert_eq!(gate.check(), Ok(()));
    let mut watch = gate.watch();
    while gate.check().is_ok() {
        watch.changed().await;
    }
}
