//! Globs over names (contract §6): which domains, types and keys a stream is about.

mod automaton;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use automaton::Automaton;

use crate::{
    Invalid,
    limits::{GLOB_BYTES, GLOB_WILDCARDS},
};

/// A parsed glob, cheap to clone.
///
/// - `*` is any run of characters, none included; `**` is the same.
/// - `?` is one character.
/// - `[a-z_]` is one of these characters, `[!a-z]` and `[^a-z]` one other character. A `-` that is
///   first or last is itself; a `]` is written `\]`; an empty class is refused.
/// - `{a,b}` is one of these globs; they may be empty and may hold anything, braces included.
/// - `\` takes the next character as it is, in a class too.
///
/// A `]`, `}` or `,` that closes or parts nothing is itself. Characters are Unicode scalar values.
#[derive(Clone)]
pub struct Glob(Arc<Inner>);

struct Inner {
    text: String,
    shape: Shape,
}

enum Shape {
    /// Every name.
    Any,
    /// One name.
    Exact(String),
    /// Names with this beginning whose rest the automaton accepts.
    Pattern(String, Automaton),
}

impl Glob {
    /// Parses a glob; the field it is refused by is `field`. Empty is refused: what it would mean is
    /// for the caller to say.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new(field, "must not be empty; `*` is every name"));
        }
        if text.len() > GLOB_BYTES {
            return Err(Invalid::new(
                field,
                format!(
                    "is {} bytes long; at most {GLOB_BYTES} are allowed in a glob",
                    text.len()
                ),
            ));
        }
        let nodes = Parser::new(text)
            .parse()
            .map_err(|problem| Invalid::new(field, problem))?;
        Ok(Self(Arc::new(Inner {
            text: text.to_owned(),
            shape: Shape::of(&nodes),
        })))
    }

    /// Whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        match &self.0.shape {
            Shape::Any => true,
            Shape::Exact(exact) => exact == name,
            Shape::Pattern(prefix, automaton) => name
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| automaton.accepts(rest)),
        }
    }

    /// The name, if the glob is one exact name (escapes resolved).
    pub fn exact(&self) -> Option<&str> {
        match &self.0.shape {
            Shape::Exact(exact) => Some(exact),
            Shape::Any | Shape::Pattern(..) => None,
        }
    }

    /// Whether it is written as every name (`*`).
    pub fn is_any(&self) -> bool {
        matches!(self.0.shape, Shape::Any)
    }

    /// The glob as it was written.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Glob({:?})", self.0.text)
    }
}

/// Equal as written.
impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for Glob {}

impl std::hash::Hash for Glob {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

/// One part of a glob.
enum Node {
    One(Token),
    Run,
    Either(Vec<Vec<Node>>),
}

/// What one character may be.
#[derive(Clone)]
enum Token {
    Literal(char),
    Any,
    Class(Vec<(char, char)>),
    NotClass(Vec<(char, char)>),
}

impl Token {
    fn takes(&self, c: char) -> bool {
        let within = |ranges: &[(char, char)]| ranges.iter().any(|(a, b)| (*a..=*b).contains(&c));
        match self {
            Self::Literal(literal) => *literal == c,
            Self::Any => true,
            Self::Class(ranges) => within(ranges),
            Self::NotClass(ranges) => !within(ranges),
        }
    }
}

impl Shape {
    fn of(nodes: &[Node]) -> Self {
        if nodes.iter().all(|node| matches!(node, Node::Run)) {
            return Self::Any;
        }
        let mut prefix = String::new();
        let mut rest = nodes;
        while let [Node::One(Token::Literal(c)), after @ ..] = rest {
            prefix.push(*c);
            rest = after;
        }
        if rest.is_empty() {
            Self::Exact(prefix)
        } else {
            Self::Pattern(prefix, Automaton::of(rest))
        }
    }
}

struct Parser<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    wildcards: usize,
    /// Open braces.
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            chars: text.chars().peekable(),
            wildcards: 0,
            depth: 0,
        }
    }

    fn parse(mut self) -> Result<Vec<Node>, String> {
        self.sequence()
    }

    /// Reads up to the end, or up to the `,` or `}` of the innermost open brace.
    fn sequence(&mut self) -> Result<Vec<Node>, String> {
        let mut nodes = Vec::new();
        while let Some(&c) = self.chars.peek() {
            if self.depth > 0 && matches!(c, ',' | '}') {
                break;
            }
            self.chars.next();
            nodes.push(match c {
                '*' => {
                    self.wildcard()?;
                    Node::Run
                }
                '?' => {
                    self.wildcard()?;
                    Node::One(Token::Any)
                }
                '[' => {
                    self.wildcard()?;
                    Node::One(self.class()?)
                }
                '{' => {
                    self.wildcard()?;
                    Node::Either(self.alternatives()?)
                }
                '\\' => Node::One(Token::Literal(self.escaped()?)),
                _ => Node::One(Token::Literal(c)),
            });
        }
        Ok(nodes)
    }

    /// Braces count as wildcards, so this also bounds how deep they nest.
    fn wildcard(&mut self) -> Result<(), String> {
        self.wildcards += 1;
        if self.wildcards > GLOB_WILDCARDS {
            return Err(format!(
                "has more than {GLOB_WILDCARDS} wildcards; every `*`, `?`, class and brace is one"
            ));
        }
        Ok(())
    }

    fn escaped(&mut self) -> Result<char, String> {
        self.chars
            .next()
            .ok_or_else(|| "ends with a backslash that escapes nothing; write `\\\\`".to_owned())
    }

    fn alternatives(&mut self) -> Result<Vec<Vec<Node>>, String> {
        self.depth += 1;
        let mut alternatives = Vec::new();
        loop {
            alternatives.push(self.sequence()?);
            match self.chars.next() {
                Some(',') => {}
                Some(_) => break,
                None => {
                    return Err(
                        "has a `{` without its `}`; a brace itself is written `\\{`".to_owned()
                    );
                }
            }
        }
        self.depth -= 1;
        Ok(alternatives)
    }

    fn class(&mut self) -> Result<Token, String> {
        const OPEN: &str = "has a `[` without its `]`; a bracket itself is written `\\[`";
        let negated = self.chars.next_if(|c| matches!(c, '!' | '^')).is_some();
        let mut ranges = Vec::new();
        loop {
            let first = match self.chars.next().ok_or(OPEN)? {
                ']' => break,
                '\\' => self.escaped()?,
                c => c,
            };
            let mut ahead = self.chars.clone();
            let ranged = ahead.next() == Some('-') && ahead.next().is_some_and(|c| c != ']');
            let last = if ranged {
                self.chars.next();
                match self.chars.next().ok_or(OPEN)? {
                    '\\' => self.escaped()?,
                    c => c,
                }
            } else {
                first
            };
            if last < first {
                return Err(format!(
                    "has the range `{first}-{last}`, which is the wrong way round"
                ));
            }
            ranges.push((first, last));
        }
        if ranges.is_empty() {
            return Err(
                "has an empty class; `[` and `]` themselves are written `\\[` and `\\]`".to_owned(),
            );
        }
        Ok(if negated {
            Token::NotClass(ranges)
        } else {
            Token::Class(ranges)
        })
    }
}
