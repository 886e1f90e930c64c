//! Objects that are taken apart by a pattern, found in a policy's tokens.
//!
//! The engine lets `{"a": x}` match an object that has further members, where OPA lets it match one
//! that has exactly these. A policy that relies on the difference would allow more here, so patterns of
//! objects are refused: left of `:=`, between `some` and `in`, as a parameter of a function, and unified
//! with something else by `=`.

use crate::tokens::Token::{self, Mark, Text, Word};

/// Whether a source takes an object apart by a pattern.
pub(super) fn has_object_pattern(tokens: &[Token<'_>]) -> bool {
    (0..tokens.len()).any(|at| {
        let rest = &tokens[at..];
        match rest {
            [Mark(':'), Mark('='), ..] => is_pattern(before(&tokens[..at])),
            [Mark('='), Mark('='), ..] => false,
            [Mark('='), ..]
                if !matches!(
                    at.checked_sub(1).map(|at| tokens[at]),
                    Some(Mark(':' | '=' | '!' | '<' | '>'))
                ) =>
            {
                is_unified(&tokens[..at], &rest[1..])
            }
            [Word("some"), names @ ..] => is_pattern_of_some(names),
            [Word(_), Mark('('), ..] => is_parameter(&tokens[..at], &rest[1..]),
            _ => false,
        }
    })
}

/// The brackets that the tokens begin with, if they do.
fn group<'t, 's>(tokens: &'t [Token<'s>]) -> Option<&'t [Token<'s>]> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Mark('(' | '[' | '{') => depth += 1,
            Mark(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return (at > 0).then(|| &tokens[..=at]);
        }
    }
    None
}

/// The brackets that the tokens end with, if they do and are no index of something.
fn before<'t, 's>(tokens: &'t [Token<'s>]) -> &'t [Token<'s>] {
    let mut depth = 0_usize;
    for at in (0..tokens.len()).rev() {
        match tokens[at] {
            Mark(')' | ']' | '}') => depth += 1,
            Mark('(' | '[' | '{') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            let is_index = tokens[at] == Mark('[')
                && matches!(at.checked_sub(1).map(|at| tokens[at]), Some(Word(name)) if name != "if");
            let is_index = is_index
                || tokens[at] == Mark('[')
                    && matches!(at.checked_sub(1).map(|at| tokens[at]), Some(Mark(']')));
            return if is_index { &[] } else { &tokens[at..] };
        }
    }
    &[]
}

fn is_pattern(group: &[Token<'_>]) -> bool {
    group.len() > 1 && group.contains(&Mark('{'))
}

/// Whether an object within is given by variables, and not only by what is known.
fn binds(group: &[Token<'_>]) -> bool {
    is_pattern(group)
        && group.windows(3).any(|three| match three {
            [Mark(':'), Word(name), Mark(',' | '}')] => {
                let is_number = name.starts_with(|c: char| c.is_ascii_digit());
                !is_number && !matches!(*name, "true" | "false" | "null")
            }
            _ => false,
        })
}

/// `left = right` in a body; in the head of a rule it gives a value.
fn is_unified(left: &[Token<'_>], right: &[Token<'_>]) -> bool {
    if binds(before(left)) {
        return true;
    }
    let Some(group) = group(right) else {
        return false;
    };
    let is_head = matches!(right.get(group.len()), Some(Mark('{') | Word("if")));
    let of_part = matches!(left, [.., Mark('.'), Word(_)] | [.., Mark(']')]);
    !is_head && of_part && binds(group)
}

/// `some a, {"b": c} in …`.
fn is_pattern_of_some(mut names: &[Token<'_>]) -> bool {
    let mut found = false;
    loop {
        let length = match names {
            [Word("in"), ..] => return found,
            [Word(_) | Text(_) | Mark(','), ..] => 1,
            [Mark('[' | '{'), ..] => match group(names) {
                Some(group) => {
                    found |= is_pattern(group);
                    group.len()
                }
                None => return false,
            },
            _ => return false,
        };
        names = &names[length..];
    }
}

/// `f({"a": x})` in the head of a function, and not in a call of it.
fn is_parameter(left: &[Token<'_>], right: &[Token<'_>]) -> bool {
    let Some(group) = group(right) else {
        return false;
    };
    let is_head = match right.get(group.len()..).unwrap_or_default() {
        [Mark('='), Mark('='), ..] => false,
        [Mark('=' | '{') | Word("if"), ..] | [Mark(':'), Mark('='), ..] => true,
        _ => false,
    };
    let is_value = matches!(
        left.last(),
        Some(Mark('=' | '.' | '(' | ',')) | Some(Word("if" | "not"))
    );
    is_head && !is_value && is_pattern(group)
}

#[cfg(test)]
mod tests {
    use super::{super::tokens::tokens, *};

    #[test]
    fn patterns_are_told_from_objects() {
        for pattern in [
            r#"allow if { {"a": x} := input.b; x }"#,
            r#"allow if { [k, {"a": x}] := input.b; x }"#,
            r#"allow if { some {"a": x} in input.b }"#,
            r#"allow if { some i, [{"a": x}] in input.b }"#,
            r#"f({"a": x}) := x"#,
            r#"f({"a": x}) if x"#,
            r#"f(y, [{"a": x}]) = x { x }"#,
            r#"allow if { input.b = {"a": x}; x }"#,
            r#"allow if { {"a": x, "b": 1} = input.b; x }"#,
            r#"allow if { input.b[0] = [{"a": x}]; x }"#,
        ] {
            assert!(has_object_pattern(&tokens(pattern)), "{pattern}");
        }
        for object in [
            r#"x := {"a": y} if y"#,
            r#"x = {"a": y} { y := 1 }"#,
            r#"x[y] = {"a": y} { y := 1 }"#,
            r#"x[y] := {"a": y} if y := 1"#,
            r#"allow if { [k, v] := input.b; x := {k: v} }"#,
            r#"allow if input.b == {"a": input.c}"#,
            r#"allow if f({"a": input.c})"#,
            r#"allow if f({"a": x}) == {"b": x}"#,
            r#"allow := f({"a": x}) if x := 1"#,
            r#"allow if { some x in {"a", "b"}; y := {"k": x} }"#,
            r#"allow if { some i; input.l[i] in {1, 2} }"#,
            r#"x := y if { z[{"a": 1}] := 2 }"#,
            r#"allow if input.b = {"a": 1, "b": true}"#,
            r#"r := {x: y | some x, y in input.o}"#,
            r#"allow if not f({"a": x})"#,
        ] {
            assert!(!has_object_pattern(&tokens(object)), "{object}");
        }
    }
}
