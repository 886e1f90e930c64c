//! The words of a policy's source, for those who look for names in it.
//!
//! Not a parser: that is the engine's. It knows comments and strings, so that a name in a comment is
//! not taken for a use of it, and a use in code is never missed.

/// A piece of Rego.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'s> {
    /// A name, keyword or number: letters, digits and `_`.
    Word(&'s str),
    /// A string, without its quotes and with its escapes as they stand.
    Text(&'s str),
    /// Any other character but white space.
    Mark(char),
}

/// The pieces of a source, in order.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let of_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = match first {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '"' | '`' => {
                let inner = &rest[1..];
                let end = closing(inner, first);
                tokens.push(Token::Text(&inner[..end]));
                (end + 2).min(rest.len())
            }
            c if of_word(c) => {
                let end = rest.find(|c| !of_word(c)).unwrap_or(rest.len());
                tokens.push(Token::Word(&rest[..end]));
                end
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token::Mark(c));
                }
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    tokens
}

/// Where a string ends that began with this quote. Raw strings know no escapes.
fn closing(inner: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return at,
            _ => {}
        }
    }
    inner.len()
}

#[cfg(test)]
mod tests {
    use super::{Token::*, *};

    #[test]
    fn comments_are_left_out_and_strings_are_whole() {
        let source = "a.b # c \"d\n\"e # \\\" f\" `g\\` h_1 \"";
        assert_eq!(
            tokens(source),
            [
                Word("a"),
                Mark('.'),
                Word("b"),
                Text("e # \\\" f"),
                Text("g\\"),
                Word("h_1"),
                Text("")
            ]
        );
        assert_eq!(tokens("é\u{a0}→\"é"), [Word("é"), Mark('→'), Text("é")]);
    }
}
