//! Dotted paths: where in an entity's values or in an event a filter or a sort looks.
//!
//! A path is split and its escapes are resolved once. A path into an event is also checked to name
//! something that events have, since a misspelt one would be a filter that silently finds nothing.

use std::fmt;

use crate::{Invalid, limits::FILTER_BYTES};

/// A dotted path, escapes resolved.
///
/// Segments are separated by `.`; `\.`, `\\` and `\$` are the escapes; empty segments name empty
/// keys. Segments name keys of objects and never index arrays.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Path {
    segments: Vec<String>,
    root: Root,
    /// How many segments led to the root.
    rooted: usize,
}

/// What a path starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Root {
    /// The values: `x` of an entity, `entity.values.x` of an event.
    Values,
    /// `claims` of an event.
    Claims,
    /// `entity.domain` of an event, a string.
    Domain,
    /// `entity.type` of an event, a string.
    Kind,
    /// `entity.key` of an event, a string.
    Key,
    /// `method` of an event, a string.
    Method,
    /// `id` of an event, a string: the lower-case hyphenated form.
    Id,
    /// `time` of an event, an int64.
    Time,
    /// `version` of an event, an int64.
    Version,
    /// `position` of an event, an int64.
    Position,
    /// `lane` of an event, an int64.
    Lane,
}

impl Root {
    /// Whether it is one of the int64 fields, which are compared as exact integers.
    pub fn is_integer(self) -> bool {
        match self {
            Self::Time | Self::Version | Self::Position | Self::Lane => true,
            Self::Values
            | Self::Claims
            | Self::Domain
            | Self::Kind
            | Self::Key
            | Self::Method
            | Self::Id => false,
        }
    }

    /// Whether it is always one string.
    pub fn is_text(self) -> bool {
        match self {
            Self::Domain | Self::Kind | Self::Key | Self::Method | Self::Id => true,
            Self::Values
            | Self::Claims
            | Self::Time
            | Self::Version
            | Self::Position
            | Self::Lane => false,
        }
    }
}

impl Path {
    /// Parses a path into values; the field it is refused by is `field`.
    pub fn parse_entity(field: &'static str, text: &str) -> Result<Self, Invalid> {
        Ok(Self {
            segments: split(field, text)?,
            root: Root::Values,
            rooted: 0,
        })
    }

    /// Parses a path into an event; the field it is refused by is `field`.
    ///
    /// It is one of `entity.domain`, `entity.type`, `entity.key`, `method`, `id`, `time`,
    /// `version`, `position`, `lane`, or `entity.values` or `claims` with or without a path below.
    /// Anything else names nothing that an event has, and is refused.
    pub fn parse_event(field: &'static str, text: &str) -> Result<Self, Invalid> {
        let segments = split(field, text)?;
        let mut names = segments.iter().map(String::as_str);
        let (root, rooted) = match (names.next(), names.next()) {
            (Some("entity"), Some("values")) => (Root::Values, 2),
            (Some("entity"), Some("domain")) => (Root::Domain, 2),
            (Some("entity"), Some("type")) => (Root::Kind, 2),
            (Some("entity"), Some("key")) => (Root::Key, 2),
            (Some("entity"), _) => {
                return Err(refuse(
                    field,
                    text,
                    "of an entity, an event has `entity.domain`, `entity.type`, `entity.key` and `entity.values`",
                ));
            }
            (Some("claims"), _) => (Root::Claims, 1),
            (Some("method"), _) => (Root::Method, 1),
            (Some("id"), _) => (Root::Id, 1),
            (Some("time"), _) => (Root::Time, 1),
            (Some("version"), _) => (Root::Version, 1),
            (Some("position"), _) => (Root::Position, 1),
            (Some("lane"), _) => (Root::Lane, 1),
            _ => {
                return Err(refuse(
                    field,
                    text,
                    "a path at an event starts with `entity`, `claims`, `method`, `id`, `time`, `version`, `position` or `lane`",
                ));
            }
        };
        if segments.len() > rooted && (root.is_integer() || root.is_text()) {
            return Err(refuse(
                field,
                text,
                "nothing lies below a string or an integer of an event",
            ));
        }
        Ok(Self {
            segments,
            root,
            rooted,
        })
    }

    /// The segments, escapes resolved.
    pub fn segments(&self) -> &[String] {
        &self.segments
    }

    /// What the path starts from.
    pub fn root(&self) -> Root {
        self.root
    }

    /// The segments below the root: keys to follow from [`Root::Values`] or [`Root::Claims`] (none:
    /// the object itself), and none below any other root.
    pub fn below(&self) -> &[String] {
        self.segments.get(self.rooted..).unwrap_or_default()
    }
}

/// The path as it would be written in a filter.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.segments.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            for (at, c) in segment.char_indices() {
                match c {
                    '.' | '\\' => write!(f, "\\{c}")?,
                    '$' if i == 0 && at == 0 => f.write_str("\\$")?,
                    _ => write!(f, "{c}")?,
                }
            }
        }
        Ok(())
    }
}

/// Splits a path at its dots and resolves the escapes.
fn split(field: &'static str, text: &str) -> Result<Vec<String>, Invalid> {
    if text.len() > FILTER_BYTES {
        return Err(Invalid::new(
            field,
            format!(
                "is {} bytes long; at most {FILTER_BYTES} are allowed",
                text.len()
            ),
        ));
    }
    if text.starts_with('$') {
        return Err(refuse(
            field,
            text,
            "a path starts with `$` only as `\\$`, since `$` starts an operator",
        ));
    }
    let mut segments = Vec::new();
    let mut segment = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '.' => segments.push(std::mem::take(&mut segment)),
            '\\' => match chars.next() {
                Some(escaped @ ('.' | '\\' | '$')) => segment.push(escaped),
                _ => {
                    return Err(refuse(
                        field,
                        text,
                        "the escapes are `\\.`, `\\\\` and `\\$`, and no other backslash is allowed",
                    ));
                }
            },
            '\0' => {
                return Err(refuse(
                    field,
                    text,
                    "no key has the character U+0000, so no path may",
                ));
            }
            _ => segment.push(c),
        }
    }
    segments.push(segment);
    Ok(segments)
}

fn refuse(field: &'static str, text: &str, problem: &str) -> Invalid {
    Invalid::new(field, format!("has the path `{}`: {problem}", shown(text)))
}

/// The beginning of a text from the caller: enough to find it by.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(64).filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_and_empty_segments() {
        for (text, segments) in [
            ("a", vec!["a"]),
            ("a.b", vec!["a", "b"]),
            ("", vec![""]),
            (".", vec!["", ""]),
            ("a.", vec!["a", ""]),
            ("a..b", vec!["a", "", "b"]),
            (r"a\.b", vec!["a.b"]),
            (r"a\\.b", vec!["a\\", "b"]),
            (r"\$a.$b", vec!["$a", "$b"]),
            (r"a.\$b", vec!["a", "$b"]),
            ("0.1", vec!["0", "1"]),
        ] {
            let path = Path::parse_entity("sort.field", text).unwrap();
            assert_eq!(path.segments(), segments, "{text}");
            assert_eq!(path.below(), segments, "{text}");
        }
    }

    #[test]
    fn malformed_paths_are_refused_by_their_field() {
        let long = "a".repeat(FILTER_BYTES + 1);
        for bad in [r"a\", r"\a", "$a", "a\0b", r"a\n", &long] {
            let refused = Path::parse_entity("sort.field", bad).unwrap_err();
            assert_eq!(refused.field, "sort.field", "{bad}");
        }
    }

    #[test]
    fn event_paths_name_what_events_have() {
        for (text, root, below) in [
            ("entity.key", Root::Key, vec![]),
            ("entity.type", Root::Kind, vec![]),
            ("entity.domain", Root::Domain, vec![]),
            ("entity.values", Root::Values, vec![]),
            ("entity.values.a.b", Root::Values, vec!["a", "b"]),
            (r"entity.values.a\.b", Root::Values, vec!["a.b"]),
            ("claims", Root::Claims, vec![]),
            ("claims.sub", Root::Claims, vec!["sub"]),
            ("method", Root::Method, vec![]),
            ("id", Root::Id, vec![]),
            ("time", Root::Time, vec![]),
            ("version", Root::Version, vec![]),
            ("position", Root::Position, vec![]),
            ("lane", Root::Lane, vec![]),
        ] {
            let path = Path::parse_event("sort.field", text).unwrap();
            assert_eq!(path.root(), root, "{text}");
            assert_eq!(path.below(), below, "{text}");
        }
        for bad in [
            "",
            "name",
            "entity",
            "entity.name",
            "entity.version",
            "values.x",
            "Entity.key",
            "entity.key.x",
            "method.x",
            "version.",
            "time.x",
            "trace_parent",
            r"entity\.key",
        ] {
            assert!(Path::parse_event("sort.field", bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_displayed_parses_back(segments in prop::collection::vec(r"[a.\\$é]{0,4}", 1..5)) {
            let text = Path { segments: segments.clone(), root: Root::Values, rooted: 0 }.to_string();
            let path = Path::parse_entity("f", &text).unwrap();
            prop_assert_eq!(path.segments(), segments);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = Path::parse_entity("f", &text);
            let _ = Path::parse_event("f", &text);
        }
    }
}
