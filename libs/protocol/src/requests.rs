//! Messages parsed into the requests that services take. A refusal names the field as the client
//! knows it.

use stategate_api::{
    Action, Del, Edit, Get, GetEvent, Operation, Problem, Revert, Search, SearchEvents, Set, Start,
    Step, Subscribe, Transact, page_token::Binding,
};
use stategate_model::{
    Domain, EntityQuery, EventQuery, Expect, Filter, Glob, Invalid, KindRef, Limits, Method,
    PageRequest, Path, Sort, Timestamp, Version, limits,
};

use crate::{convert, pb};

/// Most methods a subscription may name.
const METHODS: usize = 16;

/// The request of a Set.
pub fn set(message: pb::Entity, limits: &Limits) -> Result<Set, Problem> {
    let (entity, values) = convert::entity(message, limits)?;
    Ok(Set { entity, values })
}

/// The request of an Edit.
pub fn edit(message: pb::Entity, limits: &Limits) -> Result<Edit, Problem> {
    let (entity, values) = convert::entity(message, limits)?;
    Ok(Edit { entity, values })
}

/// The request of a Revert.
pub fn revert(message: &pb::EventRef) -> Result<Revert, Problem> {
    let (entity, event) = convert::event_ref(message)?;
    Ok(Revert { entity, event })
}

/// The request of a Del.
pub fn del(message: &pb::EntityRef) -> Result<Del, Problem> {
    let entity = convert::entity_ref(message)?;
    if message.at.is_some() {
        return Err(present_only().into());
    }
    Ok(Del { entity })
}

/// The request of a Transact.
pub fn transact(message: pb::TransactRequest, limits: &Limits) -> Result<Transact, Problem> {
    let domain = Domain::new(&message.domain)?;
    let count = message.operations.len();
    if !(1..=limits::TRANSACTION_OPERATIONS).contains(&count) {
        let problem = format!(
            "are {count}; a transaction has 1 to {}",
            limits::TRANSACTION_OPERATIONS
        );
        return Err(Invalid::new("operations", problem).into());
    }
    let steps = message.operations.into_iter().enumerate();
    let steps = steps.map(|(index, operation)| {
        step(index, &domain, operation, limits).map_err(|problem| problem.of_operation(index))
    });
    let steps = steps.collect::<Result<_, _>>()?;
    Ok(Transact { domain, steps })
}

fn step(
    index: usize,
    domain: &Domain,
    message: pb::Operation,
    limits: &Limits,
) -> Result<Step, Problem> {
    use pb::operation::{Operation as Wire, Precondition};
    let within = |given: String| match given.as_str() {
        "" => Ok(domain.as_str().to_owned()),
        same if same == domain.as_str() => Ok(given),
        _ => Err(Invalid::new(
            "domain",
            "is not that of the transaction; leave it empty or make it equal",
        )),
    };
    if !message.name.is_empty() || message.data.is_some() {
        return Err(Problem::Unsupported {
            what: "name, data: events have no words of the application yet; leave both out",
        });
    }
    let precondition = match message.precondition {
        None => Expect::Anything,
        Some(Precondition::IfAbsent(true)) => Expect::Absent,
        Some(Precondition::IfAbsent(false)) => {
            return Err(Invalid::new("if_absent", "must be true when set").into());
        }
        Some(Precondition::IfVersion(version)) => match Version::from_i64(version) {
            Some(version) if version > Version::ZERO => Expect::Versions(vec![version]),
            _ => {
                return Err(Invalid::new(
                    "if_version",
                    format!("is {version}; versions start at 1"),
                )
                .into());
            }
        },
    };
    let entity = |entity: pb::Entity| {
        let domain = within(entity.domain)?;
        convert::entity(pb::Entity { domain, ..entity }, limits)
    };
    let action = match message.operation {
        None => {
            return Err(Invalid::new(
                format!("operations[{index}]"),
                "must be one of set, edit, revert, del",
            )
            .into());
        }
        Some(Wire::Set(message)) => {
            let (entity, values) = entity(message).map_err(|invalid| invalid.within("set"))?;
            Action::Set(Set { entity, values })
        }
        Some(Wire::Edit(message)) => {
            let (entity, values) = entity(message).map_err(|invalid| invalid.within("edit"))?;
            Action::Edit(Edit { entity, values })
        }
        Some(Wire::Revert(message)) => {
            let parse = |message: pb::EventRef| {
                let domain = within(message.domain)?;
                convert::event_ref(&pb::EventRef { domain, ..message })
            };
            let (entity, event) = parse(message).map_err(|invalid| invalid.within("revert"))?;
            Action::Revert(Revert { entity, event })
        }
        Some(Wire::Del(message)) => {
            let parse = |message: pb::EntityRef| {
                let domain = within(message.domain)?;
                if message.at.is_some() {
                    return Err(present_only());
                }
                convert::entity_ref(&pb::EntityRef { domain, ..message })
            };
            let entity = parse(message).map_err(|invalid| invalid.within("del"))?;
            Action::Del(Del { entity })
        }
    };
    Ok(Step {
        action,
        precondition,
    })
}

fn present_only() -> Invalid {
    Invalid::new("at", "is for Get alone; a write changes the present")
}

/// The request of a Get.
pub fn get(message: &pb::EntityRef) -> Result<Get, Problem> {
    Ok(Get {
        entity: convert::entity_ref(message)?,
        at: convert::at(message)?,
    })
}

/// The request of a search of entities.
pub fn search(message: &pb::SearchEntityOpts) -> Result<Search, Problem> {
    let of = KindRef::new(&message.domain, &message.r#type)?;
    no_key(&message.key)?;
    let takes_an_index = [
        ("text", !message.text.is_empty()),
        ("facets", !message.facets.is_empty()),
        ("highlight", message.highlight),
    ];
    if let Some((field, _)) = takes_an_index.into_iter().find(|(_, is_set)| *is_set) {
        return Err(Problem::IndexDisabled { field });
    }
    let filter = Filter::parse_entity(&message.query_string)?;
    let sort = Sorting::parse(message.sort.as_ref(), Path::parse_entity)?;
    let binding = Binding::new(
        method_name(Search::METHOD),
        &[
            message.domain.as_bytes(),
            message.r#type.as_bytes(),
            message.query_string.as_bytes(),
            &sort.bytes,
        ],
    );
    let after = binding.cursor(&message.page_token)?;
    let page = PageRequest::new(message.limit, message.offset, after)?;
    Ok(Search {
        query: EntityQuery {
            of,
            filter,
            sort: sort.parsed,
            page,
        },
        binding,
    })
}

/// The request of a search of events.
pub fn search_events(message: &pb::SearchEventOpts) -> Result<SearchEvents, Problem> {
    let of = KindRef::new(&message.domain, &message.r#type)?;
    no_key(&message.key)?;
    let filter = Filter::parse_event(&message.query_string)?;
    let sort = Sorting::parse(message.sort.as_ref(), Path::parse_event)?;
    let (min, max) = (bound("min", message.min)?, bound("max", message.max)?);
    let binding = Binding::new(
        method_name(SearchEvents::METHOD),
        &[
            message.domain.as_bytes(),
            message.r#type.as_bytes(),
            message.query_string.as_bytes(),
            &message.min.to_be_bytes(),
            &message.max.to_be_bytes(),
            &sort.bytes,
        ],
    );
    let after = binding.cursor(&message.page_token)?;
    let page = PageRequest::new(message.limit, message.offset, after)?;
    Ok(SearchEvents {
        query: EventQuery {
            of,
            filter,
            min,
            max,
            sort: sort.parsed,
            page,
        },
        binding,
    })
}

fn no_key(key: &str) -> Result<(), Problem> {
    match key {
        "" => Ok(()),
        _ => Err(Problem::Unsupported {
            what: "key: searches do not select by key yet; search events with {\"entity.key\": …} in query_string, or subscribe with a key",
        }),
    }
}

/// `EntityService/Search`: page tokens are bound to the method without its package.
fn method_name(method: &'static str) -> &'static str {
    method.trim_start_matches("/stategate.")
}

/// A bound in time; 0 is none.
fn bound(field: &'static str, time: i64) -> Result<Option<Timestamp>, Invalid> {
    match time {
        0 => Ok(None),
        1.. => Ok(Some(Timestamp(time))),
        _ => Err(Invalid::new(
            field,
            format!("is {time}; it must be 0 (no bound) or nanoseconds since 1970"),
        )),
    }
}

/// A sort, parsed and as the bytes a page token is bound to.
struct Sorting {
    parsed: Option<Sort>,
    bytes: Vec<u8>,
}

impl Sorting {
    fn parse(
        message: Option<&pb::Sort>,
        path: impl Fn(&'static str, &str) -> Result<Path, Invalid>,
    ) -> Result<Self, Invalid> {
        // A Sort with nothing set is what many generated clients send for none.
        let Some(sort) = message.filter(|sort| **sort != pb::Sort::default()) else {
            return Ok(Self {
                parsed: None,
                bytes: Vec::new(),
            });
        };
        if sort.field.is_empty() {
            return Err(Invalid::new(
                "sort.field",
                "must be given with `reverse`; name the value to sort by",
            ));
        }
        let mut bytes = vec![u8::from(sort.reverse)];
        bytes.extend(sort.field.as_bytes());
        Ok(Self {
            parsed: Some(Sort {
                path: path("sort.field", &sort.field)?,
                reverse: sort.reverse,
            }),
            bytes,
        })
    }
}

/// The request of a Get of an event.
pub fn get_event(message: &pb::EventRef) -> Result<GetEvent, Problem> {
    let (entity, event) = convert::event_ref(message)?;
    Ok(GetEvent { entity, event })
}

/// The request of a Stream.
pub fn subscribe(message: &pb::StreamOpts) -> Result<Subscribe, Problem> {
    let domain = Glob::parse("domain", &message.domain)?;
    let kind = Glob::parse("type", &message.r#type)?;
    if !message.consumer_group.is_empty() {
        return Err(Problem::Unsupported {
            what: "consumer_group: durable consumers do not exist yet; leave it empty and keep the token of the last event",
        });
    }
    let key = match message.key.as_str() {
        "" => None,
        key => Some(Glob::parse("key", key)?),
    };
    if message.methods.len() > METHODS {
        let count = message.methods.len();
        let problem = format!("are {count}; at most {METHODS} are allowed");
        return Err(Invalid::new("methods", problem).into());
    }
    let methods = message.methods.iter().enumerate().map(|(index, name)| {
        Method::parse(name).ok_or_else(|| {
            let known = Method::ALL.map(Method::as_str).join(", ");
            Invalid::new(
                format!("methods[{index}]"),
                format!("is not a method that makes events; those are {known}"),
            )
        })
    });
    let methods = methods.collect::<Result<_, _>>()?;
    let filter = Filter::parse_event(&message.query_string)?;
    Ok(Subscribe {
        domain,
        kind,
        key: key.filter(|glob| !glob.is_any()),
        methods,
        filter,
        start: start(message.start.as_ref())?,
        progress: message.progress,
    })
}

fn start(message: Option<&pb::stream_opts::Start>) -> Result<Start, Invalid> {
    use pb::stream_opts::Start as Wire;
    Ok(match message {
        None => Start::Live,
        Some(Wire::FromBeginning(true)) => Start::Beginning,
        Some(Wire::FromBeginning(false)) => {
            return Err(Invalid::new(
                "from_beginning",
                "must be true when set; leave it out to start live",
            ));
        }
        Some(Wire::Since(..=0)) => Start::Beginning,
        Some(Wire::Since(time)) => Start::Since(Timestamp(*time)),
        Some(Wire::After(token)) => Start::After(
            token
                .parse()
                .map_err(|problem: String| Invalid::new("after", problem))?,
        ),
    })
}
