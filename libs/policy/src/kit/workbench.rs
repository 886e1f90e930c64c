//! Modules, parsed and ready to be evaluated by the interpreter, rule by rule and piece by piece.

use std::{
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use regorus::{
    Engine, Value,
    languages::rego::compiler::Compiler,
    rvm::RegoVM,
    unstable::{Expr, Module as Parsed, Ref, Rule, RuleHead, Span},
    utils::limits::ExecutionTimerConfig,
};
use stategate_model::Object;

use super::calls::{self, path};
use crate::{
    program::{ENTRY_POINT, Limits, Module, Policy, PolicyError, add_module},
    recursion, screen,
    tokens::tokens,
};

/// The longest that one evaluation may take: a mistake ends, and what a policy really does is far below.
const TIMER: ExecutionTimerConfig = ExecutionTimerConfig {
    limit: Duration::from_secs(10),
    check_interval: NonZeroU32::new(64).unwrap(),
};
/// The rule that a piece is evaluated as.
const PIECE: &str = "stategate_kit_piece";

/// A rule beside it that has a value.
const PROBE: &str = "stategate_kit_probe";

/// Everything that is wrong with modules as a policy of the gateway; nothing if it would take them.
pub fn refusals(modules: &[Module], data: Option<&Object>) -> Vec<PolicyError> {
    let mut found = Vec::new();
    for module in modules {
        for refusal in screen::refusals(&tokens(&module.text)) {
            found.push(PolicyError::Refused {
                name: module.name.clone(),
                refusal: refusal.to_string(),
            });
        }
    }
    if let Err(error) = Policy::compile(modules, data, Limits::default())
        && !found.contains(&error)
    {
        found.push(error);
    }
    found
}

/// Whether a module defines what the gateway asks a policy for.
pub fn defines_allow(module: &Module) -> bool {
    Workbench::new(std::slice::from_ref(module), None).is_ok_and(|bench| {
        bench
            .rules()
            .any(|(module, rule)| module.package == ENTRY_PACKAGE && is_allow(rule))
    })
}

/// Whether a rule is a definition of what the gateway asks for.
pub(super) fn is_allow(rule: &Rule) -> bool {
    name(rule).is_some_and(|(name, _)| name == "allow")
}

/// The package of [`ENTRY_POINT`].
pub(super) const ENTRY_PACKAGE: &str = "stategate.authz";

/// A module with what is needed to write another beside it.
#[derive(Clone)]
pub(super) struct Parsing {
    pub(super) package: String,
    /// The package and the imports as they stand there.
    head: String,
    is_v0: bool,
    parsed: Ref<Parsed>,
}

impl Parsing {
    /// Whether an expression is what the gateway asks a policy for.
    pub(super) fn is_entry(&self, of: &Expr) -> bool {
        let resolved = path(of).and_then(|path| calls::resolve(&self.parsed, &path));
        resolved.is_some_and(|path| format!("data.{}", path.join(".")) == ENTRY_POINT)
    }
}

/// Modules and data in the interpreter.
#[derive(Clone)]
pub(super) struct Workbench {
    engine: Engine,
    modules: Vec<Parsing>,
}

/// Why something could not be evaluated.
pub(super) type Failed = String;

/// Why a piece has no value.
pub(super) enum NotEvaluated {
    /// It does not stand by itself.
    NotCompiled(Failed),
    /// It failed.
    Failed,
}

impl Workbench {
    pub(super) fn new(modules: &[Module], data: Option<Value>) -> Result<Self, PolicyError> {
        catch_unwind(AssertUnwindSafe(|| Self::build(modules, data))).unwrap_or_else(|_panic| {
            let text = "the parser stopped in the middle of it".to_owned();
            Err(PolicyError::Compile(text))
        })
    }

    fn build(modules: &[Module], data: Option<Value>) -> Result<Self, PolicyError> {
        let mut engine = Engine::new();
        // A function that fails is undefined, as it is in OPA and in the gateway.
        engine.set_strict_builtin_errors(false);
        engine.set_gather_prints(true);
        engine.set_execution_timer_config(TIMER);
        let mut v0 = Vec::new();
        for module in modules {
            v0.push(add_module(&mut engine, module, &tokens(&module.text))?);
        }
        if let Some(data) = data {
            engine
                .add_data(data)
                .map_err(|error| PolicyError::Data(error.to_string()))?;
        }
        if let Some(circle) = calls::circle(engine.get_modules()) {
            return Err(PolicyError::Compile(format!(
                "rules call themselves, which Rego does not have: {}",
                circle.join(" -> ")
            )));
        }
        let parsed = engine.get_modules().iter().zip(v0);
        let parsed = parsed.map(|(parsed, is_v0)| Parsing {
            package: parsed.package.refr.span().text().to_owned(),
            head: head(parsed),
            is_v0,
            parsed: parsed.clone(),
        });
        let modules = parsed.collect();
        Ok(Self { engine, modules })
    }

    /// Every rule of every module.
    pub(super) fn rules(&self) -> impl Iterator<Item = (&Parsing, &Rule)> {
        self.rules_from(0)
    }

    /// The same with more data.
    pub(super) fn with_data(&self, name: &str, data: Value) -> Result<Self, Failed> {
        let mut bench = self.clone();
        let mut whole = Value::new_object();
        if let Ok(members) = whole.as_object_mut() {
            members.insert(Value::from(name), data);
        }
        guarded(|| bench.engine.add_data(whole))?;
        Ok(bench)
    }

    /// The rules of the modules from this one on.
    pub(super) fn rules_from(&self, first: usize) -> impl Iterator<Item = (&Parsing, &Rule)> {
        let modules = self.modules.get(first..).unwrap_or_default();
        modules.iter().flat_map(|module| {
            let rules = module.parsed.policy.iter();
            rules.map(move |rule| (module, &**rule))
        })
    }

    /// The value of a rule by its path, and what was printed meanwhile.
    pub(super) fn rule(
        &self,
        path: &str,
        input: Option<Value>,
    ) -> (Result<Value, Failed>, Vec<String>) {
        let mut engine = self.engine.clone();
        if let Some(input) = input {
            engine.set_input(input);
        }
        let value = guarded(|| engine.eval_rule(path.to_owned()));
        let printed = engine.take_prints().unwrap_or_default();
        (value, printed)
    }

    /// The value of an expression that stands in a module.
    pub(super) fn piece(
        &self,
        module: &Parsing,
        expression: &str,
        input: Option<Value>,
    ) -> Result<Value, NotEvaluated> {
        let mut engine = self.engine.clone();
        let package = &module.package;
        let text = format!("{}\n{PIECE} := {expression}\n{PROBE} := 1\n", module.head);
        let value = guarded(|| {
            engine.set_rego_v0(module.is_v0);
            engine.add_policy(PIECE.to_owned(), text)?;
            if let Some(input) = input {
                engine.set_input(input);
            }
            engine.eval_rule(format!("data.{package}.{PIECE}"))
        });
        value.map_err(|failed| {
            // The rule beside it can be evaluated if both were compiled.
            let probe = guarded(|| engine.eval_rule(format!("data.{package}.{PROBE}")));
            match probe {
                Ok(_) => NotEvaluated::Failed,
                Err(_) => NotEvaluated::NotCompiled(failed),
            }
        })
    }

    /// Whether a rule is `true` by the machine of the gateway, where that can run it at all.
    pub(super) fn machine_says(&self, path: &str) -> Option<bool> {
        let mut engine = self.engine.clone();
        let data = engine.get_data();
        let run = catch_unwind(AssertUnwindSafe(|| {
            let compiled = engine.compile_with_entrypoint(&path.into()).ok()?;
            let program = Compiler::compile_from_policy(&compiled, &[path]).ok()?;
            if recursion::circle(&program).is_some() {
                return None;
            }
            let mut machine = RegoVM::new();
            machine.load_program(program);
            machine.set_data(data).ok()?;
            machine.set_execution_timer_config(Some(TIMER));
            machine.set_input(Value::Undefined);
            let value = machine.execute_entry_point_by_index(0);
            Some(matches!(value, Ok(Value::Bool(true))))
        }));
        run.ok().flatten()
    }

    /// What the interpreter says of the policy.
    pub(super) fn allows(&self, input: Value) -> bool {
        matches!(self.rule(ENTRY_POINT, Some(input)).0, Ok(Value::Bool(true)))
    }
}

/// Runs what might not end well; a panic is a failure like any other.
fn guarded<T, E: std::fmt::Display>(run: impl FnOnce() -> Result<T, E>) -> Result<T, Failed> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string().trim().to_owned()),
        Err(_panic) => Err("the interpreter stopped in the middle of it".to_owned()),
    }
}

/// The package and the imports of a module, as they stand there.
fn head(module: &Parsed) -> String {
    let package = module.package.refr.span().text();
    let imports = module.imports.iter().map(|import| import.span.text());
    let lines = std::iter::once(format!("package {package}"));
    let lines: Vec<_> = lines.chain(imports.map(str::to_owned)).collect();
    lines.join("\n")
}

/// The name of a rule that is no function, without what is indexed; and whether something is.
pub(super) fn name(rule: &Rule) -> Option<(&str, bool)> {
    let refr = match rule {
        Rule::Spec {
            head: RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. },
            ..
        } => refr,
        Rule::Default { refr, args, .. } if args.is_empty() => refr,
        Rule::Spec { .. } | Rule::Default { .. } => return None,
    };
    let mut of: &Expr = refr;
    loop {
        match of {
            Expr::Var { span, .. } => return Some((span.text(), !std::ptr::eq(of, &**refr))),
            Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } => of = refr,
            _ => return None,
        }
    }
}

/// Where something stands.
pub(super) fn line_of(span: &Span) -> (String, u32) {
    (span.source.file().clone(), span.line)
}
