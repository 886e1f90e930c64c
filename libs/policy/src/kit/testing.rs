//! The tests of a policy, by the conventions of OPA: a rule `test_…` passes if it is `true`, and one `todo_test_…` is
//! passed over.
//!
//! Each input that a test gives with `with` is judged by the machine of the gateway as well.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use regorus::{
    Value,
    unstable::{Expr, Literal, LiteralStmt, Query, Rule, RuleHead, Span},
};
use stategate_model::Object;

use super::{
    calls::path,
    workbench::{Parsing, Workbench, defines_allow, line_of, name},
};
use crate::{
    document::Document,
    program::{Decision, Limits, Module, Policy, PolicyError},
    tokens::{Token, tokens},
};

/// Most inputs of one `with` that both engines are asked about.
const INPUTS: usize = 10_000;

/// What became of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is `true`.
    Passed,
    /// It is anything else, or undefined.
    Failed,
    /// It is to be done.
    Skipped,
    /// It could not be run, or the engines do not agree.
    Broken(String),
}

/// A test that was run.
#[derive(Debug, Clone)]
pub struct Tested {
    /// The package, with `data.` before it.
    pub package: String,
    /// The rule.
    pub name: String,
    /// The file it stands in …
    pub file: String,
    /// … and the line.
    pub line: u32,
    /// What became of it.
    pub verdict: Verdict,
    /// How long it took.
    pub time: Duration,
    /// What it printed.
    pub printed: Vec<String>,
    /// How many decisions of it the gateway's machine made, too.
    pub compared: usize,
}

/// A policy and its tests, ready to be run.
pub struct Suite {
    bench: Workbench,
    /// How many of the bench's modules are the policy's.
    policies: usize,
    /// The policy, if it is one for the gateway and not a library.
    gateway: Option<Gateway>,
}

/// The policy as the gateway has it.
struct Gateway {
    modules: Vec<Module>,
    data: Value,
    policy: Policy,
}

/// What the gateway would decide of an input, with other data if the test says so.
struct Given {
    input: Value,
    data: Option<Value>,
    /// What the interpreter says.
    allows: bool,
}

impl fmt::Debug for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suite").finish_non_exhaustive()
    }
}

/// The instructions of the gateway, and time enough for a busy machine.
fn limits() -> Limits {
    Limits {
        time: Duration::from_secs(10),
        ..Limits::default()
    }
}

impl Suite {
    /// A policy with tests. A policy that the gateway would refuse is an error.
    pub fn new(
        policies: &[Module],
        tests: &[Module],
        data: Option<&Object>,
    ) -> Result<Self, PolicyError> {
        let data = data.map_or_else(Value::new_object, |data| Document::from(data).into_value());
        let all: Vec<_> = policies.iter().chain(tests).cloned().collect();
        let bench = Workbench::new(&all, Some(data.clone()))?;
        let gateway = match policies.iter().any(defines_allow) {
            true => Some(Gateway::new(policies.to_vec(), data)?),
            false => None,
        };
        Ok(Self {
            bench,
            policies: policies.len(),
            gateway,
        })
    }

    /// Runs every test, in the order in which they stand.
    pub fn run(&self) -> Vec<Tested> {
        let mut times = BTreeMap::new();
        let tests: Vec<_> = self.tests().collect();
        for (module, (name, _), _) in &tests {
            *times.entry((&module.package, *name)).or_insert(0) += 1;
        }
        let run = |(module, (name, is_indexed), rule): &(&Parsing, (&str, bool), &Rule)| {
            let is_alone = times.get(&(&module.package, *name)) == Some(&1);
            self.test(module, name, rule, *is_indexed, is_alone)
        };
        tests.iter().map(run).collect()
    }

    fn tests(&self) -> impl Iterator<Item = (&Parsing, (&str, bool), &Rule)> {
        let rules = self.bench.rules_from(self.policies);
        rules.filter_map(|(module, rule)| {
            let name = name(rule)?;
            let is_test = name.0.starts_with("test_") || name.0.starts_with("todo_test_");
            let is_spec = matches!(rule, Rule::Spec { .. });
            (is_test && is_spec).then_some((module, name, rule))
        })
    }

    fn test(
        &self,
        module: &Parsing,
        name: &str,
        rule: &Rule,
        is_indexed: bool,
        is_alone: bool,
    ) -> Tested {
        let (file, line) = line_of(rule.span());
        let mut tested = Tested {
            package: format!("data.{}", module.package),
            name: name.to_owned(),
            file,
            line,
            verdict: Verdict::Skipped,
            time: Duration::ZERO,
            printed: Vec::new(),
            compared: 0,
        };
        let broken = |why: &str| Verdict::Broken(why.to_owned());
        if name.starts_with("todo_") {
            return tested;
        }
        if !is_alone {
            tested.verdict = broken("two tests have this name; give each a name of its own");
            return tested;
        }
        if is_indexed {
            tested.verdict = broken(
                "a test with cases is not run here; write `every` over the cases, or a rule for each",
            );
            return tested;
        }
        let began = Instant::now();
        let path = format!("data.{}.{name}", module.package);
        let (value, printed) = self.bench.rule(&path, None);
        tested.time = began.elapsed();
        tested.printed = printed;
        tested.verdict = match value {
            Ok(Value::Bool(true)) => Verdict::Passed,
            Ok(_) => Verdict::Failed,
            // What is undefined in OPA and in the gateway may be an error to the interpreter, such as the items of a
            // text: then the decisions of the gateway stand in the place of its own.
            Err(failed) => match self.by_gateway(module, rule) {
                Some((passes, decisions)) => {
                    tested.compared = decisions;
                    tested.verdict = if passes {
                        Verdict::Passed
                    } else {
                        Verdict::Failed
                    };
                    return tested;
                }
                None => Verdict::Broken(failed),
            },
        };
        if let Some(passes) = self.bench.machine_says(&path) {
            tested.compared += 1;
            if passes != (tested.verdict == Verdict::Passed) {
                tested.verdict = broken(
                    "the engine of the gateway does not agree: there the test has another result",
                );
            }
        }
        self.compare(module, rule, &mut tested);
        tested
    }

    /// Whether a test passes with the decisions that the gateway makes, and how many those are; `None` where it
    /// asks for something else than decisions.
    fn by_gateway(&self, module: &Parsing, rule: &Rule) -> Option<(bool, usize)> {
        let gateway = self.gateway.as_ref()?;
        let Rule::Spec {
            head: RuleHead::Compr { assign: None, .. },
            bodies,
            ..
        } = rule
        else {
            return None;
        };
        let (mut passes, mut decisions) = (false, 0);
        for body in bodies {
            let (first, last) = (body.query.stmts.first()?, body.query.stmts.last()?);
            if body.is_else {
                return None;
            }
            let mut asked: Vec<Option<Asked>> = Vec::new();
            withs(&body.query, &mut Vec::new(), &mut |before, statement| {
                asked.push(Asked::new(module, asked.len(), before, statement));
            });
            let asked = asked.into_iter().collect::<Option<Vec<_>>>()?;
            let whole = Span {
                end: last.span.end,
                ..first.span.clone()
            };
            let mut text = whole.text().to_owned();
            let mut allowed = Vec::new();
            // From the end, so that places before stay where they are.
            for asked in asked.iter().rev() {
                let found = self.bench.piece(module, &asked.piece, None).ok()?;
                for item in found.as_array().ok()?.iter().take(INPUTS) {
                    let given = gateway.given(item, &asked.replaced)?;
                    decisions += 1;
                    if gateway.decide(&given)?.is_allow() {
                        allowed.push(item.clone());
                    }
                }
                let from = usize::try_from(asked.span.start.checked_sub(whole.start)?).ok()?;
                let to = usize::try_from(asked.span.end.checked_sub(whole.start)?).ok()?;
                text.get(from..to)?;
                text.replace_range(from..to, &asked.replacement);
            }
            if tokens(&text).contains(&Token::Word("with")) {
                return None;
            }
            let bench = self.bench.with_data(DECIDED, Value::from(allowed)).ok()?;
            let found = bench
                .piece(module, &format!("[1 |\n{text}\ntrue]"), None)
                .ok()?;
            passes |= !found.as_array().ok()?.is_empty();
        }
        Some((passes, decisions))
    }

    /// Has the gateway's machine judge every input of a test.
    fn compare(&self, module: &Parsing, rule: &Rule, tested: &mut Tested) {
        let (Some(gateway), Rule::Spec { bodies, .. }) = (&self.gateway, rule) else {
            return;
        };
        let mut pieces = Vec::new();
        for body in bodies {
            withs(&body.query, &mut Vec::new(), &mut |before, statement| {
                pieces.extend(piece(before, statement));
            });
        }
        for (piece, replaced) in pieces {
            // One that cannot be had by itself is judged by the test alone.
            let Ok(found) = self.bench.piece(module, &piece, None) else {
                continue;
            };
            let Ok(items) = found.as_array() else {
                continue;
            };
            for item in items.iter().take(INPUTS) {
                let Some(given) = gateway.given(item, &replaced) else {
                    continue;
                };
                let Some(decision) = gateway.decide(&given) else {
                    continue;
                };
                tested.compared += 1;
                if decision.is_allow() != given.allows {
                    let says = match &decision {
                        Decision::Allow => "it is allowed".to_owned(),
                        Decision::Deny(why) => why.to_string(),
                    };
                    let input = Document::of(given.input).to_json();
                    tested.verdict = Verdict::Broken(format!(
                        "the engine of the gateway decides otherwise ({says}) on the input {input}"
                    ));
                    return;
                }
            }
        }
    }
}

impl Gateway {
    fn new(modules: Vec<Module>, data: Value) -> Result<Self, PolicyError> {
        let policy = Policy::compile_with(&modules, data.clone(), limits())?;
        Ok(Self {
            modules,
            data,
            policy,
        })
    }

    /// What a piece found: the input, what is in the place of data, and what the interpreter says.
    fn given(&self, item: &Value, replaced: &[Vec<String>]) -> Option<Given> {
        let parts = item.as_array().ok()?;
        let mut parts = parts.iter();
        let (input, values, allows) = (parts.next()?, parts.next()?, parts.next()?);
        let mut data = None;
        for (path, value) in replaced.iter().zip(values.as_array().ok()?.iter()) {
            let whole = data.get_or_insert_with(|| self.data.clone());
            put(whole, path, value.clone())?;
        }
        Some(Given {
            input: input.clone(),
            data,
            allows: !allows.as_array().ok()?.is_empty(),
        })
    }

    /// What the gateway decides; `None` where it could not have such data.
    fn decide(&self, given: &Given) -> Option<Decision> {
        let input = || Document::of(given.input.clone());
        match &given.data {
            None => Some(self.policy.decide(input)),
            Some(data) => {
                let policy = Policy::compile_with(&self.modules, data.clone(), limits()).ok()?;
                Some(policy.decide(input))
            }
        }
    }
}

/// Puts a value in the place of what is there.
fn put(data: &mut Value, path: &[String], value: Value) -> Option<()> {
    let Some((first, rest)) = path.split_first() else {
        *data = value;
        return Some(());
    };
    if data.as_object().is_err() {
        *data = Value::new_object();
    }
    let members = data.as_object_mut().ok()?;
    let name = Value::from(first.as_str());
    let mut member = members
        .get(&name)
        .cloned()
        .unwrap_or_else(Value::new_object);
    put(&mut member, rest, value)?;
    members.insert(name, member);
    Some(())
}

/// Finds every statement with a `with`, and what has to hold before it for its variables to have values.
fn withs(query: &Query, before: &mut Vec<String>, found: &mut impl FnMut(&[String], &LiteralStmt)) {
    let depth = before.len();
    for statement in &query.stmts {
        if !statement.with_mods.is_empty() {
            found(before, statement);
        }
        match &statement.literal {
            Literal::Every { span, query, .. } => {
                // `every x in xs {` gives its variables their values as `some x in xs` does.
                let until = Span {
                    end: query.span.start,
                    ..span.clone()
                };
                let each = until.text().strip_prefix("every").unwrap_or_default();
                before.push(format!("some{each}"));
                withs(query, before, found);
                before.pop();
            }
            // These give no variable a value.
            Literal::NotExpr { .. } => {}
            Literal::Expr { expr, .. } if !statement.with_mods.is_empty() => {
                if matches!(&**expr, Expr::AssignExpr { .. }) {
                    before.push(statement.span.text().to_owned());
                }
            }
            Literal::Expr { .. } | Literal::SomeIn { .. } | Literal::SomeVars { .. } => {
                before.push(statement.span.text().to_owned());
            }
        }
    }
    before.truncate(depth);
}

/// Where the inputs are that the gateway allows.
const DECIDED: &str = "stategate_kit_decided";

/// A statement that asks for a decision.
struct Asked {
    span: Span,
    /// An expression for every input that it is asked on.
    piece: String,
    /// The data that it replaces.
    replaced: Vec<Vec<String>>,
    /// What it is where the decisions are data.
    replacement: String,
}

impl Asked {
    /// The number tells statements apart that put equal values into different places.
    fn new(
        module: &Parsing,
        number: usize,
        before: &[String],
        statement: &LiteralStmt,
    ) -> Option<Self> {
        let (expr, compared) = match &statement.literal {
            Literal::Expr { expr, .. } => (expr, "> 0"),
            Literal::NotExpr { expr, .. } => (expr, "== 0"),
            Literal::SomeVars { .. } | Literal::SomeIn { .. } | Literal::Every { .. } => {
                return None;
            }
        };
        if !module.is_entry(expr) {
            return None;
        }
        let With {
            input,
            values,
            replaced,
            ..
        } = With::new(statement)?;
        let item = format!("[{input}, [{values}], [], {number}]");
        Some(Self {
            span: statement.span.clone(),
            piece: format!("[{item} |\n{}\ntrue]", before.join("\n")),
            replaced,
            replacement: format!("count([1 | data.{DECIDED}[_] == {item}]) {compared}"),
        })
    }
}

/// An expression for all inputs that a `with` gives, what it puts in the place of data, and what the
/// interpreter decides; and the paths of that data. `None` where something else is replaced.
fn piece(before: &[String], statement: &LiteralStmt) -> Option<(String, Vec<Vec<String>>)> {
    let With {
        input,
        values,
        replaced,
        modifiers,
    } = With::new(statement)?;
    let before = before.join("\n");
    let piece = format!(
        "[[{input}, [{values}], [1 | data.stategate.authz.allow == true{modifiers}]] |\n{before}\ntrue]"
    );
    Some((piece, replaced))
}

/// What a `with` gives.
struct With {
    input: String,
    /// What is put in the place of data, with commas between …
    values: String,
    /// … and where.
    replaced: Vec<Vec<String>>,
    /// As it stands there.
    modifiers: String,
}

impl With {
    /// `None` where something else than input and data is replaced.
    fn new(statement: &LiteralStmt) -> Option<Self> {
        let mut input = None;
        let (mut values, mut replaced) = (Vec::new(), Vec::new());
        let mut modifiers = String::new();
        for modifier in &statement.with_mods {
            // The spans of objects do not begin where these do.
            let refr = modifier.refr.span();
            let rest = Span {
                start: refr.end,
                ..modifier.span.clone()
            };
            let value = rest.text().trim_start().strip_prefix("as")?.to_owned();
            match path(&modifier.refr)?.split_first()? {
                (first, []) if first == "input" => input = Some(value),
                (first, rest @ [_, ..]) if first == "data" => {
                    values.push(value);
                    replaced.push(rest.to_vec());
                }
                _ => return None,
            }
            modifiers.push(' ');
            modifiers.push_str(modifier.span.text());
        }
        Some(Self {
            input: input?,
            values: values.join(", "),
            replaced,
            modifiers,
        })
    }
}
