//! Globs against answers by hand and against a naive matcher.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn glob(text: &str) -> Glob {
    Glob::parse("key", text).unwrap()
}

#[test]
fn globs_match_characters() {
    for (text, matching, other) in [
        ("a", &["a"][..], &["", "A", "aa", "b"][..]),
        ("*", &["", "a", "a/b", "é😀"], &[]),
        ("**", &["", "a", "a/b"], &[]),
        ("a*", &["a", "ab", "a/b"], &["", "ba"]),
        ("*a", &["a", "ba", "aa"], &["", "ab"]),
        ("a*b*c", &["abc", "aXbYc", "abcbc"], &["ab", "acb", "abcd"]),
        ("a**c", &["ac", "abc"], &["a"]),
        ("?", &["a", "é", "😀"], &["", "ab", "e\u{301}"]),
        ("a?c", &["abc", "a?c", "a\u{10ffff}c"], &["ac", "abbc"]),
        ("[abc]", &["a", "b", "c"], &["", "d", "ab", "A"]),
        ("[a-c]x", &["ax", "bx"], &["dx", "-x", "x"]),
        ("[!a-c]", &["d", "A", "é"], &["", "a", "b", "dd"]),
        ("[^a-c]", &["d", "^", "é"], &["a", "b"]),
        ("[a^]", &["a", "^"], &["b"]),
        ("[a!]", &["a", "!"], &["b"]),
        ("[а-я]", &["б", "я"], &["ё", "b"]),
        ("[a-]", &["a", "-"], &["b"]),
        ("[-a]", &["a", "-"], &["b"]),
        ("[!-a]", &["b"], &["a", "-"]),
        (r"[\]\\\-]", &["]", "\\", "-"], &["a"]),
        (r"[a\-c]", &["a", "-", "c"], &["b"]),
        ("[*?{,}]", &["*", "?", "{", ",", "}"], &["a", ""]),
        ("[[]", &["["], &["]"]),
        ("{a,b}", &["a", "b"], &["", "ab", "c", ","]),
        ("{a,b}{c,d}", &["ac", "bd"], &["a", "cb"]),
        ("x{,y}", &["x", "xy"], &["y", "xyy", ""]),
        ("{a}", &["a"], &["", "{a}"]),
        ("{a,{b,c}d}e", &["ae", "bde", "cde"], &["be", "ade", "ce"]),
        (
            "{*.eu,us-?}",
            &[".eu", "x.eu", "us-1"],
            &["us-", "us-12", "eu"],
        ),
        ("{[,]a,\\,}", &[",a", ","], &["a", ""]),
        (r"\*", &["*"], &["a", r"\*"]),
        (r"\a\\", &[r"a\"], &["a"]),
        (r"a\{b,c\}", &["a{b,c}"], &["ab"]),
        ("a]b}c,d", &["a]b}c,d"], &["abcd"]),
        ("😀*", &["😀", "😀x"], &["x😀", "\u{1f601}"]),
    ] {
        let glob = glob(text);
        for name in matching {
            assert!(glob.matches(name), "{text} {name}");
        }
        for name in other {
            assert!(!glob.matches(name), "{text} {name}");
        }
    }
}

#[test]
fn malformed_globs_are_refused_by_their_field() {
    let long = "a".repeat(257);
    let many = "?".repeat(17);
    let mixed = "*?[a]{a}".repeat(4) + "*";
    for (text, problem) in [
        ("", "must not be empty"),
        (&long, "at most 256"),
        (&many, "more than 16"),
        (&mixed, "more than 16"),
        ("[a", "without its `]`"),
        ("a[", "without its `]`"),
        ("[!", "without its `]`"),
        ("[a-", "without its `]`"),
        (r"[a\]", "without its `]`"),
        ("[]", "empty class"),
        ("[!]", "empty class"),
        ("[]]", "empty class"),
        ("[b-a]", "wrong way round"),
        ("{a", "without its `}`"),
        ("{a,b", "without its `}`"),
        ("{a,{b}", "without its `}`"),
        ("{a,[}]", "without its `}`"),
        ("a\\", "backslash"),
        ("{a\\", "backslash"),
        ("[a\\", "backslash"),
    ] {
        let refused = Glob::parse("domain", text).unwrap_err();
        assert_eq!(refused.field, "domain", "{text}");
        assert!(refused.problem.contains(problem), "{text}: {refused}");
    }
    assert!(Glob::parse("key", &"a".repeat(256)).is_ok());
    assert!(Glob::parse("key", &"*?[a]{a}".repeat(4)).is_ok());
}

#[test]
fn exact_names_and_every_name_are_known_as_such() {
    assert_eq!(glob("a.b").exact(), Some("a.b"));
    assert_eq!(glob(r"a\*\\").exact(), Some(r"a*\"));
    assert_eq!(glob("a]},").exact(), Some("a]},"));
    for pattern in ["*", "a*", "?", "[a]", "{a}"] {
        assert_eq!(glob(pattern).exact(), None, "{pattern}");
    }
    assert!(glob("*").is_any() && glob("**").is_any());
    assert!(!glob("*?").is_any() && !glob("a").is_any() && !glob(r"\*").is_any());
}

/// Alternatives are multiplied out, stars are tried everywhere.
mod naive {
    pub(super) fn matches(glob: &str, name: &str) -> bool {
        let glob: Vec<char> = glob.chars().collect();
        let name: Vec<char> = name.chars().collect();
        expand(&glob).iter().any(|glob| simple(glob, &name))
    }

    /// The globs without braces that the first brace pair stands for, and so on for the rest.
    fn expand(glob: &[char]) -> Vec<Vec<char>> {
        let mut at = 0;
        while at < glob.len() {
            match glob[at] {
                '\\' => at += 2,
                '[' => at = class_end(glob, at),
                '{' => {
                    let (parts, end) = split(glob, at);
                    return parts
                        .into_iter()
                        .flat_map(|part| expand(&[&glob[..at], &part, &glob[end..]].concat()))
                        .collect();
                }
                _ => at += 1,
            }
        }
        vec![glob.to_vec()]
    }

    fn class_end(glob: &[char], open: usize) -> usize {
        let mut at = open + 1;
        while glob[at] != ']' {
            at += if glob[at] == '\\' { 2 } else { 1 };
        }
        at + 1
    }

    fn split(glob: &[char], open: usize) -> (Vec<Vec<char>>, usize) {
        let (mut parts, mut start, mut depth, mut at) = (Vec::new(), open + 1, 1, open + 1);
        loop {
            match glob[at] {
                '\\' => at += 1,
                '[' => at = class_end(glob, at) - 1,
                '{' => depth += 1,
                ',' if depth == 1 => {
                    parts.push(glob[start..at].to_vec());
                    start = at + 1;
                }
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        parts.push(glob[start..at].to_vec());
                        return (parts, at + 1);
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn simple(glob: &[char], name: &[char]) -> bool {
        match (glob, name) {
            ([], _) => name.is_empty(),
            (['*', rest @ ..], _) => (0..=name.len()).any(|taken| simple(rest, &name[taken..])),
            (_, []) => false,
            (['?', rest @ ..], [_, after @ ..]) => simple(rest, after),
            (['\\', c, rest @ ..], [d, after @ ..]) => c == d && simple(rest, after),
            (['[', ..], [d, after @ ..]) => {
                let end = class_end(glob, 0);
                class(&glob[1..end - 1], *d) && simple(&glob[end..], after)
            }
            ([c, rest @ ..], [d, after @ ..]) => c == d && simple(rest, after),
        }
    }

    fn class(items: &[char], c: char) -> bool {
        let negated = matches!(items[0], '!' | '^');
        let mut items = if negated { &items[1..] } else { items };
        let mut found = false;
        while let Some(a) = one(&mut items) {
            let mut b = a;
            if items.len() > 1 && items[0] == '-' {
                items = &items[1..];
                b = one(&mut items).unwrap();
            }
            found |= a <= c && c <= b;
        }
        found != negated
    }

    fn one(items: &mut &[char]) -> Option<char> {
        match **items {
            ['\\', c, ref rest @ ..] | [c, ref rest @ ..] => {
                *items = rest;
                Some(c)
            }
            [] => None,
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => "[abé]",
        2 => Just("*".to_owned()),
        1 => Just("?".to_owned()),
        2 => r"\[[!^]?(a|b|é|a-c|a-é|\\\]|\\-|[*?{},!^\[]){1,3}\]",
        1 => r"\\[abé*?{}\[\],\\-]",
        1 => r"[,\]}]",
    ];
    let sequence = prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat());
    sequence.prop_recursive(3, 8, 3, |inner| {
        let braces = prop::collection::vec(inner.clone(), 1..4)
            .prop_map(|parts| format!("{{{}}}", parts.join(",")));
        prop::collection::vec(prop_oneof![inner, braces], 1..3).prop_map(|pieces| pieces.concat())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn agrees_with_a_naive_matcher(text in text(), names in prop::collection::vec("[abcé*,-]{0,6}", 1..8)) {
        // Some are over the number of wildcards, which the naive matcher does not know.
        if let Ok(glob) = Glob::parse("key", &text) {
            for name in names {
                prop_assert_eq!(glob.matches(&name), naive::matches(&text, &name), "{} {}", text, name);
            }
        }
    }

    #[test]
    fn no_text_panics(text in r"[a*?\[\]{},!^\\-]{0,30}|.*", name in ".*") {
        if let Ok(glob) = Glob::parse("key", &text) {
            let _ = glob.matches(&name);
        }
    }

    #[test]
    fn text_without_syntax_is_itself(text in r"[^*?\[{\\]{1,20}") {
        let glob = glob(&text);
        prop_assert_eq!(glob.exact(), Some(text.as_str()));
        prop_assert!(glob.matches(&text));
    }
}

#[test]
fn hostile_globs_are_compiled_and_matched_quickly() {
    let fill = |start: &str, unit: &str, end: &str| {
        let times = (GLOB_BYTES - start.len() - end.len()) / unit.len();
        format!("{start}{}{end}", unit.repeat(times))
    };
    let name = "a".repeat(255);
    let (mut slowest_parse, mut slowest_match) = (Duration::ZERO, Duration::ZERO);
    for text in [
        "*a".repeat(16),
        "*".repeat(16) + "b",
        "*?".repeat(8) + "b",
        "{*a,*}".repeat(5) + "b",
        "[!\u{1}-\u{10fffe}]*".repeat(8),
        "[a-яА-Яぁ-ん一-龥]?".repeat(8),
        fill("*{", "a,", "b}"),
        fill("*{a,", ",", "b}b"),
        fill("*[", "é", "]*b"),
        fill("*[!", "é", "]*b"),
        fill(&("{".repeat(15) + "*"), "a", &"}".repeat(15)),
        fill(&"{a*,".repeat(8), "a", &"}".repeat(8)),
    ] {
        let started = Instant::now();
        let glob = glob(&text);
        slowest_parse = slowest_parse.max(started.elapsed());
        let started = Instant::now();
        let _ = glob.matches(&name);
        slowest_match = slowest_match.max(started.elapsed());
    }
    println!("slowest: {slowest_parse:?} to compile, {slowest_match:?} to match");
    // Unoptimised and on a busy machine; backtracking or expansion would take years.
    assert!(slowest_parse < Duration::from_millis(50));
    assert!(slowest_match < Duration::from_millis(200));
}
