//! What a glob's wildcards are matched by: an automaton simulated on all its states at once, so that a
//! match takes time in proportion to the name whatever the glob is.
//!
//! Written here rather than translated to a regular expression because a subscriber brings three of
//! them: it is built in microseconds, takes a few kilobytes and needs no cache at match time.

use super::{Node, Token};
use crate::limits::GLOB_BYTES;

/// Words that hold a bit for each state: a state for each character of a glob.
const WORDS: usize = GLOB_BYTES.div_ceil(64);

/// A set of states, and whether a name may end there.
#[derive(Clone, Copy)]
struct States {
    bits: [u64; WORDS],
    end: bool,
}

impl States {
    const NONE: Self = Self {
        bits: [0; WORDS],
        end: false,
    };
    const END: Self = Self {
        bits: [0; WORDS],
        end: true,
    };

    fn insert(&mut self, state: usize) {
        if let Some(word) = self.bits.get_mut(state / 64) {
            *word |= 1 << (state % 64);
        }
    }

    fn join(&mut self, other: &Self) {
        for (word, more) in self.bits.iter_mut().zip(&other.bits) {
            *word |= more;
        }
        self.end |= other.end;
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.bits.iter().enumerate().flat_map(|(i, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros() as usize;
                (left != 0).then(|| {
                    left &= left - 1;
                    i * 64 + bit
                })
            })
        })
    }
}

/// A position automaton (Glushkov): a state waits for one character of the glob, and knows the states
/// that wait for what may come next. It has no empty moves.
pub(super) struct Automaton {
    start: States,
    states: Vec<(Token, States)>,
}

impl Automaton {
    pub(super) fn of(nodes: &[Node]) -> Self {
        let mut automaton = Self {
            start: States::NONE,
            states: Vec::new(),
        };
        automaton.start = automaton.sequence(nodes, States::END);
        automaton
    }

    /// Adds nodes that `next` follows, last first, and answers the states that wait for their
    /// beginning.
    fn sequence(&mut self, nodes: &[Node], next: States) -> States {
        nodes.iter().rev().fold(next, |next, node| match node {
            Node::One(token) => {
                let mut first = States::NONE;
                first.insert(self.add(token, next));
                first
            }
            Node::Run => {
                let mut first = next;
                let state = self.add(&Token::Any, next);
                first.insert(state);
                if let Some((_, follow)) = self.states.get_mut(state) {
                    *follow = first;
                }
                first
            }
            Node::Either(alternatives) => {
                let mut first = States::NONE;
                for alternative in alternatives {
                    first.join(&self.sequence(alternative, next));
                }
                first
            }
        })
    }

    fn add(&mut self, token: &Token, follow: States) -> usize {
        self.states.push((token.clone(), follow));
        self.states.len() - 1
    }

    pub(super) fn accepts(&self, text: &str) -> bool {
        let mut now = self.start;
        for c in text.chars() {
            let mut after = States::NONE;
            for state in now.iter() {
                if let Some((token, follow)) = self.states.get(state)
                    && token.takes(c)
                {
                    after.join(follow);
                }
            }
            now = after;
            if now.bits == [0; WORDS] && !now.end {
                return false;
            }
        }
        now.end
    }
}
