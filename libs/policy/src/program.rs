//! One policy, compiled, and what it decides.
//!
//! The compiled program is shared; each thread evaluates it on a machine of its own, so that no
//! evaluation waits for another. An evaluation that reaches a limit, fails or panics denies.

use std::{
    cell::RefCell,
    fmt,
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use regorus::{
    Engine, Value,
    languages::rego::compiler::Compiler,
    rvm::{RegoVM, program::Program, vm::VmError},
    utils::limits::ExecutionTimerConfig,
};
use stategate_model::Object;

use crate::document::Document;
use crate::{
    reads::{Class, Reads},
    recursion, screen,
    tokens::{self, Token},
};

/// What a policy has to answer.
pub(crate) const ENTRY_POINT: &str = "data.stategate.authz.allow";
/// Instructions between two looks at the clock: some microseconds.
const CLOCK_INTERVAL: NonZeroU32 = NonZeroU32::new(256).unwrap();
/// Most bytes of a policy's modules together.
const SOURCE_BYTES: usize = 1 << 20;
/// Machines a thread keeps: for the policies of requests and answers, and for those they replace while
/// calls still hold them.
const MACHINES: usize = 4;

/// One file of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// What it is called in messages.
    pub name: String,
    /// Its Rego.
    pub text: String,
}

/// How much one decision may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest it may take (`STATEGATE_POLICY_TIMEOUT_MS`).
    pub time: Duration,
    /// The most instructions it may execute.
    pub instructions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::from_millis(10),
            instructions: 1_000_000,
        }
    }
}

/// Why a policy was not accepted. For the operator: it may quote the policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Nothing to compile.
    #[error("the policy has no module")]
    Empty,
    /// Too much to compile.
    #[error("the policy has {0} bytes; at most {SOURCE_BYTES} are accepted")]
    TooLarge(usize),
    /// Not Rego, neither v1 nor v0.
    #[error("{name} is not Rego: {error}")]
    Syntax {
        /// The module.
        name: String,
        /// What the parser says, of v1.
        error: String,
    },
    /// Uses what no policy may use.
    #[error("{name} {refusal}")]
    Refused {
        /// The module.
        name: String,
        /// What it uses and why that is refused.
        refusal: String,
    },
    /// Rego that cannot be compiled.
    #[error("the policy cannot be compiled: {0}")]
    Compile(String),
    /// The data document defines what a rule defines.
    #[error("the data document and the policy define the same: {0}")]
    Data(String),
}

/// What a policy says of a call or an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Exactly `true`.
    Allow,
    /// Anything else.
    Deny(Denied),
}

impl Decision {
    /// Whether it is [`Decision::Allow`].
    pub fn is_allow(&self) -> bool {
        matches!(self, Self::Allow)
    }
}

/// Why a policy denied. For the log: the caller is told that it was denied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No policy is configured.
    #[error("no policy is configured")]
    NotConfigured,
    /// `allow` is false or undefined.
    #[error("the policy does not allow it")]
    NotAllowed,
    /// `allow` is neither true nor false.
    #[error("the policy's answer is not a boolean")]
    NotBoolean,
    /// Over [`Limits::time`].
    #[error("the policy took longer than its limit of time")]
    TooSlow,
    /// Over [`Limits::instructions`].
    #[error("the policy took more than its limit of instructions")]
    TooLong,
    /// The evaluation failed.
    #[error("the policy failed")]
    Failed,
}

/// A compiled policy. Cheap to clone.
#[derive(Clone)]
pub struct Policy(Arc<Inner>);

struct Inner {
    /// Tells the machines of one policy from those of another.
    id: u64,
    program: Arc<Program>,
    data: Value,
    limits: Limits,
    reads: Reads,
    constant: Option<Decision>,
}

impl Policy {
    /// Compiles modules, each in Rego v1 or, if it is not, in v0, together with a data document.
    pub fn compile(
        modules: &[Module],
        data: Option<&Object>,
        limits: Limits,
    ) -> Result<Self, PolicyError> {
        let data = data.map_or_else(Value::new_object, |data| Document::from(data).into_value());
        Self::compile_with(modules, data, limits)
    }

    /// The same with a data document that the engine has already.
    pub(crate) fn compile_with(
        modules: &[Module],
        data: Value,
        limits: Limits,
    ) -> Result<Self, PolicyError> {
        // A policy that the compiler does not survive is refused like any other that is wrong.
        let compiled = AssertUnwindSafe(|| Self::compile_unguarded(modules, data, limits));
        catch_unwind(compiled).unwrap_or_else(|_panic| {
            let text = "the compiler stopped in the middle of it".to_owned();
            Err(PolicyError::Compile(text))
        })
    }

    fn compile_unguarded(
        modules: &[Module],
        data: Value,
        limits: Limits,
    ) -> Result<Self, PolicyError> {
        let bytes = modules.iter().map(|module| module.text.len()).sum();
        if modules.is_empty() {
            return Err(PolicyError::Empty);
        }
        if bytes > SOURCE_BYTES {
            return Err(PolicyError::TooLarge(bytes));
        }
        let mut reads = Reads::nothing();
        let mut engine = Engine::new();
        let mut known = Vec::new();
        for module in modules {
            let tokens = tokens::tokens(&module.text);
            screen::screen(&tokens).map_err(|refusal| PolicyError::Refused {
                name: module.name.clone(),
                refusal: refusal.to_string(),
            })?;
            reads.add(&tokens);
            add_module(&mut engine, module, &tokens)?;
            known.push(tokens);
        }
        let program = compile(&mut engine)?;
        if let Some(circle) = recursion::circle(&program) {
            return Err(PolicyError::Compile(format!(
                "rules call themselves, which Rego does not have: {}",
                circle.join(" -> ")
            )));
        }
        for builtin in &program.builtin_info_table {
            let name = builtin.name.as_str();
            // Called in a way that its arguments were not seen.
            if screen::is_screened(name) && !known.iter().any(|tokens| screen::uses(tokens, name)) {
                return Err(PolicyError::Compile(format!(
                    "{name} has to be called by its plain name"
                )));
            }
            reads.ambient |= matches!(name, "time.now_ns" | "uuid.rfc4122" | "rand.intn");
        }
        static IDS: AtomicU64 = AtomicU64::new(0);
        let mut inner = Inner {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            program,
            data,
            limits,
            reads,
            constant: None,
        };
        // Also tells whether data and rules agree.
        inner.machine()?;
        if inner.reads.is_nothing() {
            // What a busy machine did not let it decide in time is decided when it is asked.
            let decision = inner.evaluate(Value::Null);
            inner.constant = Some(decision).filter(|d| *d != Decision::Deny(Denied::TooSlow));
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Decides. The input is asked for only if the policy looks at it.
    pub fn decide(&self, input: impl FnOnce() -> Document) -> Decision {
        match &self.0.constant {
            Some(decision) => decision.clone(),
            None => self.0.evaluate(input().into_value()),
        }
    }

    /// What it says of everything, if that does not depend on the input.
    pub fn constant(&self) -> Option<&Decision> {
        self.0.constant.as_ref()
    }

    /// What of its input it looks at.
    pub fn reads(&self) -> &Reads {
        &self.0.reads
    }

    /// What callers share its decisions by, where method and body are equal.
    pub fn class(
        &self,
        claims: Option<&Document>,
        metadata: &Document,
        certificate: Option<&str>,
    ) -> Class {
        self.0.reads.class(self.0.id, claims, metadata, certificate)
    }
}

impl Denied {
    /// As metrics name it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotConfigured => "not_configured",
            Self::NotAllowed => "not_allowed",
            Self::NotBoolean => "not_boolean",
            Self::TooSlow => "too_slow",
            Self::TooLong => "too_long",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("reads", &self.0.reads)
            .field("constant", &self.0.constant)
            .finish_non_exhaustive()
    }
}

thread_local! {
    /// The machines of this thread, last used last, each with its policy's id.
    static KEPT: RefCell<Vec<(u64, RegoVM)>> = const { RefCell::new(Vec::new()) };
}

impl Inner {
    fn machine(&self) -> Result<RegoVM, PolicyError> {
        let mut machine = RegoVM::new();
        machine.load_program(Arc::clone(&self.program));
        machine
            .set_data(self.data.clone())
            .map_err(|error| PolicyError::Data(error.to_string()))?;
        machine.set_max_instructions(self.limits.instructions);
        machine.set_execution_timer_config(Some(ExecutionTimerConfig {
            limit: self.limits.time,
            check_interval: CLOCK_INTERVAL,
        }));
        Ok(machine)
    }

    fn evaluate(&self, input: Value) -> Decision {
        let first = self.run(input.clone());
        // The clock goes on while the thread is not: a busy machine must not deny. A policy that really
        // takes so long does so twice.
        match first {
            Decision::Deny(Denied::TooSlow) => self.run(input),
            decision => decision,
        }
    }

    fn run(&self, input: Value) -> Decision {
        let kept = KEPT.with_borrow_mut(|kept| {
            let at = kept.iter().position(|(id, _)| *id == self.id)?;
            Some(kept.remove(at).1)
        });
        let machine = match kept {
            Some(machine) => Ok(machine),
            None => self.machine(),
        };
        let Ok(mut machine) = machine else {
            return Decision::Deny(Denied::Failed);
        };
        let began = std::time::Instant::now();
        // A machine that panicked is not used again.
        let ran = catch_unwind(AssertUnwindSafe(|| {
            machine.set_input(input);
            let result = machine.execute_entry_point_by_index(0);
            machine.set_input(Value::Null);
            (result, machine)
        }));
        let Ok((result, machine)) = ran else {
            tracing::error!("the evaluation of a policy panicked; it denies");
            return Decision::Deny(Denied::Failed);
        };
        KEPT.with_borrow_mut(|kept| {
            if kept.len() >= MACHINES {
                kept.remove(0);
            }
            kept.push((self.id, machine));
        });
        // One instruction may take longer than the limit.
        if began.elapsed() > self.limits.time {
            return Decision::Deny(Denied::TooSlow);
        }
        match result {
            Ok(Value::Bool(true)) => Decision::Allow,
            Ok(Value::Bool(false) | Value::Undefined) => Decision::Deny(Denied::NotAllowed),
            Ok(_) => Decision::Deny(Denied::NotBoolean),
            Err(VmError::TimeLimitExceeded { .. }) => Decision::Deny(Denied::TooSlow),
            Err(VmError::InstructionLimitExceeded { .. }) => Decision::Deny(Denied::TooLong),
            Err(error) => {
                // The error may quote values of the input.
                tracing::debug!(kind = kind(&error), "the evaluation of a policy failed");
                Decision::Deny(Denied::Failed)
            }
        }
    }
}

/// The name of an error without what it quotes.
fn kind(error: &VmError) -> String {
    let text = format!("{error:?}");
    let name = text.split(|c: char| !c.is_alphanumeric()).next();
    name.unwrap_or_default().to_owned()
}

fn compile(engine: &mut Engine) -> Result<Arc<Program>, PolicyError> {
    let compiled = engine
        .compile_with_entrypoint(&ENTRY_POINT.into())
        .map_err(|error| {
            let text = error.to_string();
            match text.contains("not a valid rule") {
                true => PolicyError::Compile(format!(
                    "it defines no `allow` in the package stategate.authz ({text})"
                )),
                false => PolicyError::Compile(text),
            }
        })?;
    Compiler::compile_from_policy(&compiled, &[ENTRY_POINT])
        .map_err(|error| PolicyError::Compile(error.to_string()))
}

/// Adds a module in v1 or, if it is not, in v0; whether it is in v0.
pub(crate) fn add_module(
    engine: &mut Engine,
    module: &Module,
    known: &[Token<'_>],
) -> Result<bool, PolicyError> {
    let mut add = |v0: bool| {
        engine.set_rego_v0(v0);
        engine.add_policy(module.name.clone(), module.text.clone())
    };
    let Err(v1) = add(false) else {
        return Ok(false);
    };
    let syntax = |error: String| PolicyError::Syntax {
        name: module.name.clone(),
        error,
    };
    // Plain v0 has no `if`. A v1 policy with a mistake, or the first half of one, must not be taken for
    // v0: the parser is lenient there and would find a policy in it that nobody wrote.
    let words = |word: &str| known.contains(&Token::Word(word));
    if words("if") && !words("future") {
        return Err(syntax(v1.to_string()));
    }
    add(true)
        .map(|_| true)
        .map_err(|v0| syntax(format!("{v1}; and as Rego v0: {v0}")))
}
