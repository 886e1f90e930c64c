//! Rules that come back to themselves, found in a compiled program.
//!
//! Rego has none, but the compiler does not see all of them, and the machine calls a rule on the stack of
//! its thread: a policy that calls itself would end the process.

use std::collections::{BTreeMap, BTreeSet};

use regorus::{
    Value,
    rvm::{Instruction, instructions::LiteralOrRegister, program::Program},
};

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
        let data = &program.instruction_data;
        let called = match instruction {
            Instruction::RuleInit { rule_index, .. } => {
                owner = Some(*rule_index);
                Vec::new()
            }
            Instruction::CallRule { rule_index, .. } => vec![*rule_index],
            Instruction::FunctionCall { params_index } => data
                .get_function_call_params(*params_index)
                .map(|call| call.func_rule_index)
                .into_iter()
                .collect(),
            Instruction::VirtualDataDocumentLookup { params_index } => data
                .get_virtual_data_document_lookup_params(*params_index)
                .map(|lookup| rules_below(program, &lookup.path_components))
                .unwrap_or_default(),
            _ => Vec::new(),
        };
        if let Some(owner) = owner {
            calls.entry(owner).or_default().extend(called);
        }
    }
    calls
}

/// The rules that a look-up in `data` by a path may reach, where parts of the path are known only later.
fn rules_below(program: &Program, path: &[LiteralOrRegister]) -> Vec<u16> {
    let mut prefix = "data".to_owned();
    for part in path {
        let LiteralOrRegister::Literal(index) = part else {
            break;
        };
        let Some(Value::String(name)) = program.literals.get(usize::from(*index)) else {
            break;
        };
        let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_plain {
            break;
        }
        // Written with or without the root.
        if &**name != "data" || prefix != "data" {
            prefix.push('.');
            prefix.push_str(name);
        }
    }
    let rules = (0_u16..).zip(&program.rule_infos);
    let below = rules.filter(|(_, rule)| {
        let rest = rule.name.strip_prefix(&prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    });
    below.map(|(index, _)| index).collect()
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
