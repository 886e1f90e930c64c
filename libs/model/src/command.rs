//! What a write does: `decide(state, command)` is the one answer that every storage gives.
//!
//! The function knows no storage, network or clock. The lane writer feeds it the states it holds and
//! stamps the changes it returns with positions and times.

use crate::{Invalid, Limits, Method, Values, Version};

/// An entity as a write finds it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The entity's last version; zero if it never was.
    pub version: Version,
    /// Its values; `None` if it never was or was deleted.
    pub values: Option<Values>,
}

impl State {
    /// Bytes of its values.
    pub fn size(&self) -> usize {
        self.values.as_ref().map_or(0, Values::size)
    }

    /// The version a precondition compares with: that of an entity that is there.
    pub fn current_version(&self) -> Option<Version> {
        self.values.is_some().then_some(self.version)
    }
}

/// What a write asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Replace the values, creating the entity if absent.
    Set(Values),
    /// Overwrite the top-level keys given.
    Edit(Values),
    /// Set the values to those of an event of this entity; `None` when there is no such event.
    Revert(Option<Values>),
    /// Remove the values from the current state.
    Del,
}

impl Command {
    /// The method an event of this command has.
    pub fn method(&self) -> Method {
        match self {
            Self::Set(_) => Method::Set,
            Self::Edit(_) => Method::Edit,
            Self::Revert(_) => Method::Revert,
            Self::Del => Method::Del,
        }
    }

    /// Bytes the command brings along.
    pub fn size(&self) -> usize {
        match self {
            Self::Set(values) | Self::Edit(values) | Self::Revert(Some(values)) => values.size(),
            Self::Revert(None) | Self::Del => 0,
        }
    }
}

/// What must hold of the entity for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Expect {
    /// Nothing.
    #[default]
    Anything,
    /// The entity exists (`if-match: *`).
    Exists,
    /// The entity does not exist (`if-none-match: *`, `if_absent`).
    Absent,
    /// The entity exists at one of these versions (`if-match: "3", "4"`, `if_version`).
    Versions(Vec<Version>),
}

impl Expect {
    /// Whether it holds of an entity in this state.
    pub fn holds(&self, state: &State) -> bool {
        match self {
            Self::Anything => true,
            Self::Exists => state.values.is_some(),
            Self::Absent => state.values.is_none(),
            Self::Versions(versions) => state
                .current_version()
                .is_some_and(|current| versions.contains(&current)),
        }
    }
}

/// What a write does to its entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The version after the change.
    pub version: Version,
    /// What was done.
    pub method: Method,
    /// What the event holds: the values after the change; before it, for Del.
    pub values: Values,
}

impl Change {
    /// The entity's state after the change.
    pub fn state(&self) -> State {
        State {
            version: self.version,
            values: (self.method != Method::Del).then(|| self.values.clone()),
        }
    }
}

/// Why a write is not done. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The entity does not exist.
    #[error("the entity does not exist")]
    EntityNotFound,
    /// The event to revert to is not one of this entity.
    #[error("the event is not one of this entity")]
    EventNotFound,
    /// The precondition does not hold.
    #[error("the entity is at another version than the precondition asks for")]
    VersionMismatch {
        /// The version the entity is at; `None` when it does not exist.
        current: Option<Version>,
    },
    /// The values after the write would be illegal.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The stored values cannot be read.
    #[error(transparent)]
    Corrupt(#[from] crate::value::Corrupt),
}

/// Decides one write on the state it finds.
///
/// Preconditions are judged before absence (contract §3).
pub fn decide(
    state: &State,
    expect: &Expect,
    command: &Command,
    limits: &Limits,
) -> Result<Change, Refusal> {
    if !expect.holds(state) {
        return Err(Refusal::VersionMismatch {
            current: state.current_version(),
        });
    }
    let values = match (command, &state.values) {
        (Command::Set(values), _) => values.clone(),
        (Command::Revert(Some(values)), _) => {
            // They were legal when they were written; the limit may be lower now. And what cannot be read
            // must not become the entity's state again.
            values.check_size(limits)?;
            // Looked at and let go of: a tree would be kept with whatever holds these values.
            values.to_object()?;
            values.clone()
        }
        (Command::Revert(None), _) => return Err(Refusal::EventNotFound),
        (Command::Edit(_) | Command::Del, None) => return Err(Refusal::EntityNotFound),
        (Command::Edit(edit), Some(values)) => {
            let mut object = values.to_object()?;
            object.extend(edit.to_object()?);
            Values::new(object, limits)?
        }
        (Command::Del, Some(values)) => values.clone(),
    };
    Ok(Change {
        version: state.version.next(),
        method: command.method(),
        values,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{Object, Value};

    fn values(members: &BTreeMap<String, i32>) -> Values {
        let object: Object = members
            .iter()
            .map(|(k, v)| (k.clone(), Value::Number(f64::from(*v))))
            .collect();
        Values::new(object, &Limits::default()).unwrap()
    }

    /// The naive model: a map or nothing, and how often it changed.
    #[derive(Debug, Clone, Default)]
    struct Naive {
        changes: u64,
        now: Option<BTreeMap<String, i32>>,
        past: Vec<BTreeMap<String, i32>>,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Set(BTreeMap<String, i32>),
        Edit(BTreeMap<String, i32>),
        Revert(usize),
        Del,
    }

    fn step() -> impl Strategy<Value = (Step, Option<u64>)> {
        let members = || prop::collection::btree_map("[abc]", any::<i32>(), 0..3);
        let step = prop_oneof![
            members().prop_map(Step::Set),
            members().prop_map(Step::Edit),
            (0usize..12).prop_map(Step::Revert),
            Just(Step::Del),
        ];
        (step, prop::option::of(0u64..8))
    }

    proptest! {
        #[test]
        fn decide_agrees_with_a_naive_map(steps in prop::collection::vec(step(), 1..40)) {
            let limits = Limits::default();
            let mut naive = Naive::default();
            let mut state = State::default();
            for (step, expected) in steps {
                let expect = match expected {
                    None => Expect::Anything,
                    Some(0) => Expect::Absent,
                    Some(version) => Expect::Versions(vec![Version::new(version)]),
                };
                let command = match &step {
                    Step::Set(members) => Command::Set(values(members)),
                    Step::Edit(members) => Command::Edit(values(members)),
                    Step::Revert(i) => Command::Revert(naive.past.get(*i).map(values)),
                    Step::Del => Command::Del,
                };
                let met = match expected {
                    None => true,
                    Some(0) => naive.now.is_none(),
                    Some(version) => naive.now.is_some() && naive.changes == version,
                };
                let after = match (&step, &naive.now) {
                    (Step::Set(members), _) => Some(members.clone()),
                    (Step::Edit(members), Some(now)) => {
                        let mut now = now.clone();
                        now.extend(members.clone());
                        Some(now)
                    }
                    (Step::Revert(i), _) => naive.past.get(*i).cloned(),
                    (Step::Del, Some(now)) => Some(now.clone()),
                    (Step::Edit(_) | Step::Del, None) => None,
                };
                match decide(&state, &expect, &command, &limits) {
                    Ok(change) => {
                        prop_assert!(met);
                        let event_values = after.expect("the model accepts what decide accepts");
                        naive.changes += 1;
                        prop_assert_eq!(change.version.get(), naive.changes);
                        prop_assert_eq!(&change.values, &values(&event_values));
                        naive.past.push(event_values.clone());
                        naive.now = (!matches!(step, Step::Del)).then_some(event_values);
                        state = change.state();
                    }
                    Err(Refusal::VersionMismatch { current }) => {
                        prop_assert!(!met);
                        prop_assert_eq!(current.map(Version::get), naive.now.as_ref().map(|_| naive.changes));
                    }
                    Err(Refusal::EntityNotFound | Refusal::EventNotFound) => {
                        prop_assert!(met && after.is_none());
                    }
                    Err(other) => prop_assert!(false, "unexpected {other:?}"),
                }
                let expected = naive.now.as_ref().map(values);
                prop_assert_eq!(state.values.as_ref(), expected.as_ref());
            }
        }
    }

    #[test]
    fn an_edit_may_not_grow_values_over_their_limit() {
        let limits = Limits { value_bytes: 24 };
        let state = State {
            version: Version::new(1),
            values: Some(Values::from_canonical(r#"{"a":"0123456789"}"#)),
        };
        let edit = Command::Edit(Values::from_canonical(r#"{"b":"0123456789"}"#));
        let refused = decide(&state, &Expect::Anything, &edit, &limits).unwrap_err();
        assert!(matches!(refused, Refusal::Invalid(invalid) if invalid.field == "values"));
    }

    #[test]
    fn a_revert_is_held_to_what_is_legal_now() {
        let limits = Limits { value_bytes: 24 };
        let revert = |text: &str| {
            let command = Command::Revert(Some(Values::from_canonical(text)));
            decide(&State::default(), &Expect::Anything, &command, &limits)
        };
        let change = revert(r#"{"a":"0123456789"}"#).unwrap();
        assert!(change.values.holds_no_tree(), "it waits for its answer");
        let refused = revert(r#"{"a":"01234567890123456789"}"#).unwrap_err();
        assert!(
            matches!(&refused, Refusal::Invalid(invalid) if invalid.field == "values"),
            "{refused}"
        );
        let refused = revert(r#"{"a":"#).unwrap_err();
        assert!(matches!(refused, Refusal::Corrupt(_)), "{refused}");
    }

    #[test]
    fn a_deleted_entity_matches_no_version() {
        let state = State {
            version: Version::new(4),
            values: None,
        };
        let expect = Expect::Versions(vec![Version::new(4)]);
        let refused = decide(
            &state,
            &expect,
            &Command::Set(Values::empty()),
            &Limits::default(),
        );
        assert_eq!(refused, Err(Refusal::VersionMismatch { current: None }));
        let created = decide(
            &state,
            &Expect::Absent,
            &Command::Set(Values::empty()),
            &Limits::default(),
        );
        assert_eq!(created.unwrap().version, Version::new(5));
    }
}
