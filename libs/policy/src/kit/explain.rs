//! A decision with its reasons: which definitions of `allow` hold, at which statement the others end, and what
//! that looked at.

use regorus::{
    Value,
    unstable::{Expr, Literal, LiteralStmt, Query, Rule, RuleAssign, RuleBody, RuleHead},
};
use stategate_model::Object;

use super::workbench::{ENTRY_PACKAGE, NotEvaluated, Parsing, Workbench, is_allow, line_of, name};
use crate::{
    document::Document,
    program::{Decision, Limits, Module, Policy, PolicyError},
};

/// Most things that one statement is said to have looked at.
const SEEN: usize = 8;

/// A decision with its reasons.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The gateway's decision.
    pub decision: Decision,
    /// The definitions of `allow`, in the order in which they stand.
    pub definitions: Vec<Definition>,
    /// Every other rule that takes no argument, by its path, with its value as JSON; `None` where it is undefined.
    pub rules: Vec<Seen>,
    /// Whether the interpreter, which the reasons are from, decides as the gateway does.
    pub is_agreed: bool,
}

/// One definition of `allow`, or one of its `else`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The file it stands in …
    pub file: String,
    /// … and the line.
    pub line: u32,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// What becomes of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It holds, with this value as JSON.
    Holds(String),
    /// It is the default, with this value as JSON.
    Default(String),
    /// A statement does not hold.
    Ends {
        /// Its line.
        line: u32,
        /// The statement as it stands there.
        statement: String,
        /// What it looks at.
        seen: Vec<Seen>,
    },
    /// It is an `else` of what holds.
    NotReached,
    /// It cannot be told.
    Unknown(String),
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// As it stands in the source, or the path of a rule.
    pub name: String,
    /// Its value as JSON; `None` where it is undefined.
    pub value: Option<String>,
}

/// Decides on an input, and says why. A policy that the gateway would refuse is an error.
pub fn explain(
    modules: &[Module],
    data: Option<&Object>,
    input: &Object,
) -> Result<Explanation, PolicyError> {
    let data = data.map_or_else(Value::new_object, |data| Document::from(data).into_value());
    let policy = Policy::compile_with(modules, data.clone(), Limits::default())?;
    let input = Document::from(input);
    let decision = policy.decide(|| input.clone());
    let input = input.into_value();
    let bench = Workbench::new(modules, Some(data))?;
    let is_agreed = bench.allows(input.clone()) == decision.is_allow();
    let asking = Asking {
        bench: &bench,
        input,
    };
    let mut definitions = Vec::new();
    for (module, rule) in bench.rules() {
        if module.package == ENTRY_PACKAGE && is_allow(rule) {
            asking.definitions(module, rule, &mut definitions);
        }
    }
    Ok(Explanation {
        decision,
        definitions,
        rules: asking.rules(),
        is_agreed,
    })
}

/// An input, and the policy that is asked about it.
struct Asking<'b> {
    bench: &'b Workbench,
    input: Value,
}

impl Asking<'_> {
    fn definitions(&self, module: &Parsing, rule: &Rule, found: &mut Vec<Definition>) {
        let (file, line) = line_of(rule.span());
        let mut define = |line, outcome| {
            found.push(Definition {
                file: file.clone(),
                line,
                outcome,
            });
        };
        let (head, bodies) = match rule {
            Rule::Default { value, .. } => {
                let value = self.value(module, "true", value.span().text());
                let outcome = value.map_or_else(Outcome::Unknown, |value| {
                    Outcome::Default(value.unwrap_or_default())
                });
                return define(line, outcome);
            }
            Rule::Spec { head, bodies, .. } => (head, bodies),
        };
        let value = match head {
            RuleHead::Compr { assign, .. } => assign.as_ref().map(assigned),
            RuleHead::Set { key, .. } => key.as_ref().map(|key| key.span().text()),
            RuleHead::Func { .. } => None,
        };
        let value = value.unwrap_or("true");
        if bodies.is_empty() {
            let outcome = match self.value(module, "true", value) {
                Ok(Some(value)) => Outcome::Holds(value),
                Ok(None) => Outcome::Ends {
                    line,
                    statement: value.to_owned(),
                    seen: Vec::new(),
                },
                Err(failed) => Outcome::Unknown(failed),
            };
            return define(line, outcome);
        }
        let mut holds = false;
        for (index, body) in bodies.iter().enumerate() {
            let line = if index == 0 { line } else { body.span.line };
            if body.is_else && holds {
                define(line, Outcome::NotReached);
                continue;
            }
            let own = body.assign.as_ref().map(assigned);
            let value = match (own, body.is_else) {
                (Some(own), _) => own,
                (None, true) => "true",
                (None, false) => value,
            };
            let outcome = self.body(module, body, value);
            holds = matches!(outcome, Outcome::Holds(_));
            define(line, outcome);
        }
    }

    fn body(&self, module: &Parsing, body: &RuleBody, value: &str) -> Outcome {
        let query: &Query = &body.query;
        let mut before = String::from("true");
        for statement in &query.stmts {
            let with_this = format!("{before}\n{}", statement.span.text());
            let piece = format!("[1 |\n{with_this}]");
            let ends = match self.bench.piece(module, &piece, Some(self.input.clone())) {
                Ok(found) => is_empty(&found),
                // What the interpreter fails at is undefined in OPA and in the gateway.
                Err(NotEvaluated::Failed) => true,
                // Its variables get their values further down.
                Err(NotEvaluated::NotCompiled(_)) => false,
            };
            if ends {
                return Outcome::Ends {
                    line: statement.span.line,
                    statement: statement.span.text().to_owned(),
                    seen: self.seen(module, &before, statement),
                };
            }
            before = with_this;
        }
        match self.value(module, &before, value) {
            Ok(Some(value)) => Outcome::Holds(value),
            Ok(None) => Outcome::Ends {
                line: body.span.line,
                statement: value.to_owned(),
                seen: Vec::new(),
            },
            Err(failed) => Outcome::Unknown(failed),
        }
    }

    /// The first value of an expression where these statements hold.
    fn value(&self, module: &Parsing, before: &str, of: &str) -> Result<Option<String>, String> {
        let piece = format!("[stategate_kit_value |\n{before}\nstategate_kit_value := {of}]");
        let found = match self.bench.piece(module, &piece, Some(self.input.clone())) {
            Ok(found) => found,
            Err(NotEvaluated::Failed) => return Ok(None),
            Err(NotEvaluated::NotCompiled(why)) => return Err(why),
        };
        let found = found.as_array().map_err(|error| error.to_string())?;
        let first = found.iter().next();
        Ok(first.map(|value| Document::of(value.clone()).to_json()))
    }

    fn seen(&self, module: &Parsing, before: &str, statement: &LiteralStmt) -> Vec<Seen> {
        let mut names = Vec::new();
        match &statement.literal {
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => looks(expr, &mut names),
            Literal::SomeIn { collection, .. } => looks(collection, &mut names),
            Literal::Every { domain, .. } => looks(domain, &mut names),
            Literal::SomeVars { .. } => {}
        }
        let mut seen: Vec<Seen> = Vec::new();
        for name in names {
            if seen.len() == SEEN || seen.iter().any(|seen| seen.name == name) {
                continue;
            }
            // A variable of the statement itself has no value before it.
            if let Ok(value) = self.value(module, before, &name) {
                seen.push(Seen { name, value });
            }
        }
        seen
    }

    fn rules(&self) -> Vec<Seen> {
        let mut found: Vec<Seen> = Vec::new();
        for (module, rule) in self.bench.rules() {
            let Some((name, _)) = name(rule) else {
                continue;
            };
            if module.package == ENTRY_PACKAGE && is_allow(rule) {
                continue;
            }
            let path = format!("data.{}.{name}", module.package);
            if found.iter().any(|seen| seen.name == path) {
                continue;
            }
            let (value, _) = self.bench.rule(&path, Some(self.input.clone()));
            let value = match value {
                Ok(Value::Undefined) | Err(_) => None,
                Ok(value) => Some(Document::of(value).to_json()),
            };
            found.push(Seen { name: path, value });
        }
        found
    }
}

/// What stands after `:=`.
fn assigned(assign: &RuleAssign) -> &str {
    let text = assign.span.text().trim_start_matches([':', '=']);
    text.trim_start()
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_ok_and(|items| items.is_empty())
}

/// What an expression looks at: names and paths, as they stand there.
fn looks(of: &Expr, found: &mut Vec<String>) {
    match of {
        Expr::Var { span, .. } => {
            if span.text() != "_" {
                found.push(span.text().to_owned());
            }
        }
        Expr::RefDot { span, .. } | Expr::RefBrack { span, .. } => {
            found.push(span.text().to_owned());
        }
        Expr::Array { items, .. } | Expr::Set { items, .. } => {
            items.iter().for_each(|item| looks(item, found));
        }
        Expr::Object { fields, .. } => {
            fields.iter().for_each(|(_, _, value)| looks(value, found));
        }
        Expr::Call { params, .. } => params.iter().for_each(|param| looks(param, found)),
        Expr::UnaryExpr { expr, .. } => looks(expr, found),
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => {
            looks(lhs, found);
            looks(rhs, found);
        }
        Expr::Membership {
            value, collection, ..
        } => {
            looks(value, found);
            looks(collection, found);
        }
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. }
        | Expr::ArrayCompr { .. }
        | Expr::SetCompr { .. }
        | Expr::ObjectCompr { .. } => {}
    }
}
