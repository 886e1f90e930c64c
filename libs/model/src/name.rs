//! Names of entities, parsed once at the edge and compared byte for byte ever after.

use std::{cmp::Ordering, fmt, sync::Arc};

use crate::{Invalid, limits::NAME_BYTES};

/// Checks one name against contract §1: 1–255 bytes of UTF-8 without white space or control
/// characters, and not `.` or `..`.
fn check(field: &'static str, name: &str) -> Result<(), Invalid> {
    if name.is_empty() {
        return Err(Invalid::new(field, "must not be empty"));
    }
    if name.len() > NAME_BYTES {
        return Err(Invalid::new(
            field,
            format!(
                "is {} bytes long; at most {NAME_BYTES} are allowed",
                name.len()
            ),
        ));
    }
    if name == "." || name == ".." {
        return Err(Invalid::new(field, "must not be `.` or `..`"));
    }
    if let Some((at, c)) = name
        .char_indices()
        .find(|(_, c)| c.is_whitespace() || c.is_control())
    {
        return Err(Invalid::new(
            field,
            format!(
                "has the character {} at byte {at}; white space and control characters are not allowed",
                c.escape_unicode()
            ),
        ));
    }
    Ok(())
}

/// A business domain or tenant: the unit of order and of transactions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Arc<str>);

impl Domain {
    /// Parses a domain; the field it is refused by is `domain`.
    pub fn new(name: &str) -> Result<Self, Invalid> {
        check("domain", name)?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A kind of entity (`user`): what the wire calls `type`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(Arc<str>);

impl Kind {
    /// Parses a type; the field it is refused by is `type`.
    pub fn new(name: &str) -> Result<Self, Invalid> {
        check("type", name)?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A domain and a type: what a search is over.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KindRef {
    /// The domain.
    pub domain: Domain,
    /// The kind of entity within it.
    pub kind: Kind,
}

impl KindRef {
    /// Parses both names.
    pub fn new(domain: &str, kind: &str) -> Result<Self, Invalid> {
        Ok(Self {
            domain: Domain::new(domain)?,
            kind: Kind::new(kind)?,
        })
    }
}

/// The unique name of an entity: `domain/type/key`.
///
/// All three names share one allocation, since a reference is copied into every batch, cache and
/// event on the way of a write.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EntityRef {
    text: Arc<str>,
    kind_at: u8,
    key_at: u16,
}

impl EntityRef {
    /// Parses the three names; a refusal names the field `domain`, `type` or `key`.
    pub fn new(domain: &str, kind: &str, key: &str) -> Result<Self, Invalid> {
        check("domain", domain)?;
        check("type", kind)?;
        check("key", key)?;
        let mut text = String::with_capacity(domain.len() + kind.len() + key.len());
        text.push_str(domain);
        text.push_str(kind);
        text.push_str(key);
        // Each name is at most 255 bytes, so neither conversion can fail.
        let kind_at = u8::try_from(domain.len()).unwrap_or(u8::MAX);
        let key_at = u16::try_from(domain.len() + kind.len()).unwrap_or(u16::MAX);
        Ok(Self {
            text: text.into(),
            kind_at,
            key_at,
        })
    }

    /// The domain.
    pub fn domain(&self) -> &str {
        &self.text[..usize::from(self.kind_at)]
    }

    /// The type.
    pub fn kind(&self) -> &str {
        &self.text[usize::from(self.kind_at)..usize::from(self.key_at)]
    }

    /// The key, unique within domain and type.
    pub fn key(&self) -> &str {
        &self.text[usize::from(self.key_at)..]
    }

    /// Whether domain and type are the same.
    pub fn is_of_the_kind_of(&self, other: &Self) -> bool {
        self.domain() == other.domain() && self.kind() == other.kind()
    }

    /// Bytes of the three names together.
    pub fn size(&self) -> usize {
        self.text.len()
    }
}

impl Ord for EntityRef {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.domain(), self.kind(), self.key()).cmp(&(other.domain(), other.kind(), other.key()))
    }
}

impl PartialOrd for EntityRef {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for EntityRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.domain(), self.kind(), self.key())
    }
}

impl fmt::Debug for EntityRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_by_their_field() {
        let long = "x".repeat(256);
        for bad in [
            "", ".", "..", "a b", "a\tb", "a\u{0}b", "a\u{85}b", "\u{3000}", &long,
        ] {
            assert_eq!(
                EntityRef::new(bad, "t", "k").unwrap_err().field,
                "domain",
                "{bad:?}"
            );
            assert_eq!(
                EntityRef::new("d", bad, "k").unwrap_err().field,
                "type",
                "{bad:?}"
            );
            assert_eq!(
                EntityRef::new("d", "t", bad).unwrap_err().field,
                "key",
                "{bad:?}"
            );
        }
    }

    #[test]
    fn names_keep_their_bytes() {
        let longest = "é".repeat(127);
        for good in [
            "a", "A", "...", "a/b", "ß", "e\u{301}", "%41", "';--", "$x", &longest,
        ] {
            let entity = EntityRef::new(good, good, good).unwrap();
            assert_eq!(
                (entity.domain(), entity.kind(), entity.key()),
                (good, good, good)
            );
        }
    }

    #[test]
    fn the_borders_between_names_count() {
        let a = EntityRef::new("ab", "c", "d").unwrap();
        let b = EntityRef::new("a", "bc", "d").unwrap();
        assert_ne!(a, b);
        assert!(b < a, "order is by domain first");
    }
}
