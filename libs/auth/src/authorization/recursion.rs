//! Rules that come back to themselves, found in a compiled program.
//!
//! Rego has none, but the compiler does not see all of them, and the machine calls a rule on the stack of
//! its thread: a policy that calls itself would end the process.

use std::collections::{BTreeMap, BTreeSet};

use regorus::rvm::{Instruction, program::Program};

/// The names of the rules of a circle, if there is one.
pub(super) fn circle(program: &Program) -> Option<Vec<String>> {
    let calls = calls(program);
    let mut done = BTreeSet::new();
    for start in calls.keys() {
        let mut path = Vec::new();
        if let Some(circle) = visit(*start, &calls, &mut path, &mut done) {
            let name = |rule: &u16| {
                let info = program.rule_infos.get(usize::from(*rule));
                info.map_or_else(String::new, |info| info.name.clone())
            };
            return Some(circle.iter().map(name).collect());
        }
    }
    None
}

/// Which rules each rule calls. The code of a rule follows its [`Instruction::RuleInit`].
fn calls(program: &Program) -> BTreeMap<u16, BTreeSet<u16>> {
    let mut calls = BTreeMap::<u16, BTreeSet<u16>>::new();
    let mut owner = None;
    for instruction in &program.instructions {
        let called = match instruction {
            Instruction::RuleInit { rule_index, .. } => {
                owner = Some(*rule_index);
                None
            }
            Instruction::CallRule { rule_index, .. } => Some(*rule_index),
            Instruction::FunctionCall { params_index } => program
                .instruction_data
                .get_function_call_params(*params_index)
                .map(|call| call.func_rule_index),
            _ => None,
        };
        if let (Some(owner), Some(called)) = (owner, called) {
            calls.entry(owner).or_default().insert(called);
        }
    }
    calls
}

/// Follows the calls from a rule; the depth is bounded by the number of rules a program may have.
fn visit(
    rule: u16,
    calls: &BTreeMap<u16, BTreeSet<u16>>,
    path: &mut Vec<u16>,
    done: &mut BTreeSet<u16>,
) -> Option<Vec<u16>> {
    if let Some(at) = path.iter().position(|on_path| *on_path == rule) {
        let mut circle = path.split_off(at);
        circle.push(rule);
        return Some(circle);
    }
    if !done.insert(rule) {
        return None;
    }
    path.push(rule);
    let found = calls
        .get(&rule)
        .into_iter()
        .flatten()
        .find_map(|called| visit(*called, calls, path, done));
    path.pop();
    found
}
