//! What of its input a policy looks at, read off its source.
//!
//! Decisions may be shared between calls and subscribers whose input is equal in what the policy looks
//! at. The answer errs on the side of more: a use that is not a plain `input.name` counts as a use of
//! everything.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use crate::{document::Document, tokens::Token};

/// Which members of an object are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Members {
    /// Those of these names, and whether each is there.
    Named(BTreeSet<String>),
    /// All, or how many there are.
    All,
}

/// What of the input a policy looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reads {
    /// `input.claims`.
    pub claims: Members,
    /// `input.metadata`.
    pub metadata: Members,
    /// `input.method`.
    pub method: bool,
    /// `input.body`: the request, the answer or the event.
    pub body: bool,
    /// `input.client_certificate`.
    pub certificate: bool,
    /// `input.client_stream` or `input.server_stream`.
    pub streams: bool,
    /// The input in another way, or members of it that it does not have.
    pub other: bool,
    /// The time of day, or anything else that is different from one evaluation to the next.
    pub ambient: bool,
}

/// Equal for two callers and a policy exactly if the policy cannot tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Class([u8; 16]);

impl Reads {
    pub(super) fn nothing() -> Self {
        Self {
            claims: Members::Named(BTreeSet::new()),
            metadata: Members::Named(BTreeSet::new()),
            method: false,
            body: false,
            certificate: false,
            streams: false,
            other: false,
            ambient: false,
        }
    }

    /// Adds what a source looks at.
    pub(super) fn add(&mut self, tokens: &[Token<'_>]) {
        for (at, token) in tokens.iter().enumerate() {
            // Rego has no interpolated strings yet; if it gets them, a use within must not be missed.
            if let Token::Text(text) = token
                && at > 0
                && tokens.get(at - 1) == Some(&Token::Mark('$'))
                && text.contains("input")
            {
                self.add_everything();
            }
            if *token != Token::Word("input")
                || (at > 0 && tokens.get(at - 1) == Some(&Token::Mark('.')))
            {
                continue;
            }
            match member(&tokens[at + 1..]) {
                Some(("claims", rest)) => self.claims.add(rest),
                Some(("metadata", rest)) => self.metadata.add(rest),
                Some(("method", _)) => self.method = true,
                Some(("body", _)) => self.body = true,
                Some(("client_certificate", _)) => self.certificate = true,
                Some(("client_stream" | "server_stream", _)) => self.streams = true,
                _ => self.add_everything(),
            }
        }
    }

    fn add_everything(&mut self) {
        self.claims = Members::All;
        self.metadata = Members::All;
        self.method = true;
        self.body = true;
        self.certificate = true;
        self.streams = true;
        self.other = true;
    }

    /// Whether the input is not looked at, so that none has to be made.
    pub fn is_nothing(&self) -> bool {
        *self == Self::nothing()
    }

    /// What callers share the decisions of a policy by, where method and body are equal.
    pub(super) fn class(
        &self,
        policy: u64,
        claims: Option<&Document>,
        metadata: &Document,
        certificate: Option<&str>,
    ) -> Class {
        let mut digest = Sha256::new();
        let mut part = |text: &str| {
            digest.update(text.len().to_le_bytes());
            digest.update(text);
        };
        part(&policy.to_string());
        for (members, document) in [(&self.claims, claims), (&self.metadata, Some(metadata))] {
            match members {
                Members::All => part(&document.map_or_else(String::new, Document::to_json)),
                Members::Named(names) => {
                    for name in names {
                        // What is not there has no JSON.
                        let member = document.and_then(|document| document.member(name));
                        part(&member.map_or_else(String::new, |member| member.to_json()));
                    }
                }
            }
        }
        if self.certificate {
            part(if certificate.is_some() { "shown" } else { "" });
            part(certificate.unwrap_or_default());
        }
        let digest: [u8; 32] = digest.finalize().into();
        let mut class = [0; 16];
        class.copy_from_slice(&digest[..16]);
        Class(class)
    }
}

impl Members {
    /// Whether none is looked at.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Named(names) if names.is_empty())
    }

    fn add(&mut self, rest: &[Token<'_>]) {
        match (member(rest), &mut *self) {
            (Some((name, _)), Self::Named(names)) => {
                names.insert(name.to_owned());
            }
            (None, _) => *self = Self::All,
            (_, Self::All) => {}
        }
    }
}

/// The member that is taken of what stands before, by a name that stands in the source.
fn member<'t, 's>(tokens: &'t [Token<'s>]) -> Option<(&'s str, &'t [Token<'s>])> {
    match tokens {
        [Token::Mark('.'), Token::Word(name), rest @ ..] => Some((name, rest)),
        [
            Token::Mark('['),
            Token::Text(name),
            Token::Mark(']'),
            rest @ ..,
        ] if !name.contains('\\') => Some((name, rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tokens;

    fn reads(source: &str) -> Reads {
        let mut reads = Reads::nothing();
        reads.add(&tokens(source));
        reads
    }

    #[test]
    fn what_is_looked_at_is_found() {
        let names = |names: &[&str]| Members::Named(names.iter().map(|&n| n.to_owned()).collect());
        assert!(reads("allow := true # input.body").is_nothing());
        assert!(reads("allow if data.input.body").is_nothing());
        assert!(reads("allow if \"input\" in data.x").is_nothing());
        let some =
            reads(r#"allow if { input.claims.sub == input["claims"]["org"]; input.method }"#);
        assert_eq!(some.claims, names(&["org", "sub"]));
        assert!(some.method && !some.body && !some.other && !some.streams);
        assert_eq!(reads("x := input.metadata[y]").metadata, Members::All);
        assert_eq!(reads("import input.claims as c").claims, Members::All);
        assert_eq!(reads("x := input.claims\ny := 1").claims, Members::All);
        for everything in [
            "f(input)",
            "input[x]",
            "import input as i",
            "input.nonsense",
            "input[\"bo\\u0064y\"]",
            "x := $\"{input.body}\"",
            "walk(input, [p, v])",
            "input\n",
        ] {
            assert!(reads(everything).other, "{everything}");
            assert!(reads(everything).body, "{everything}");
        }
    }
}
