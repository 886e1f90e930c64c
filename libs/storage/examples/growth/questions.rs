//! What is asked of a log again and again while it grows.

use std::time::{Duration, Instant};

use stategate_model::{
    At, Cursor, EntityQuery, EntityRef, EventQuery, Filter, KindRef, PageRequest, Path, Sort, Tie,
    Version,
};
use stategate_storage::{ReadLimit, Storage};

use crate::{
    Outcome, append,
    source::{CUSTOMER, DOMAIN, ORDER, Source},
};

/// Results of a page, and writes of a batch.
const PAGE: i32 = 100;
const WRITES: u64 = 64;

/// A question.
pub(crate) struct Question {
    pub(crate) name: &'static str,
    /// How often it is asked at each length of the log.
    pub(crate) times: usize,
    /// Whether what it is over grows with the log.
    pub(crate) grows: bool,
    what: What,
}

enum What {
    Get,
    Version,
    Time,
    TimeOfFew,
    Id,
    Key(&'static str),
    Rare(&'static str),
    Sorted(&'static str),
    Events,
    EventsSince,
    History,
    Log,
    Seek,
    Load,
    Append,
}

/// All of them.
pub(crate) const QUESTIONS: &[Question] = &[
    fixed("get", What::Get),
    fixed("get_at, a version", What::Version),
    fixed("get_at, a time, histories that grow", What::Time),
    fixed("get_at, a time, histories that do not", What::TimeOfFew),
    fixed("get_event", What::Id),
    fixed(
        "search_entities, 100 by key, fixed type",
        What::Key(CUSTOMER),
    ),
    fixed(
        "search_entities, 1 of the fixed type by value",
        What::Rare(CUSTOMER),
    ),
    fixed(
        "search_entities, 100 sorted, fixed type",
        What::Sorted(CUSTOMER),
    ),
    fixed(
        "search_entities, 100 by key, growing type",
        What::Key(ORDER),
    ),
    growing(
        "search_entities, 1 of the growing type by value",
        What::Rare(ORDER),
    ),
    growing(
        "search_entities, 100 sorted, growing type",
        What::Sorted(ORDER),
    ),
    fixed("search_events, 100 of a type from a place", What::Events),
    fixed(
        "search_events, 100 of a type from a time",
        What::EventsSince,
    ),
    fixed("search_events, an entity's newest", What::History),
    fixed("read_log, 256", What::Log),
    fixed("seek", What::Seek),
    fixed("load, 64 states", What::Load),
    fixed("append, 64", What::Append),
];

const fn fixed(name: &'static str, what: What) -> Question {
    Question {
        name,
        times: 300,
        grows: false,
        what,
    }
}

const fn growing(name: &'static str, what: What) -> Question {
    Question {
        name,
        times: 5,
        grows: true,
        what,
    }
}

impl Question {
    /// Asks once, and answers how long it took. That something was found is checked.
    pub(crate) async fn ask(&self, store: &dyn Storage, source: &mut Source) -> Outcome<Duration> {
        let begun;
        let found = match &self.what {
            What::Get => {
                let (entity, _) = source.order()?;
                begun = Instant::now();
                store.get(&entity).await?.value.values.is_some()
            }
            What::Version => {
                let (entity, newest) = source.customer()?;
                let at = At::Version(Version::new(source.below(newest) + 1));
                begun = Instant::now();
                store.get_at(&entity, at).await?.value.is_some()
            }
            What::Time => {
                let (entity, _) = source.customer()?;
                // Each of them was written before.
                let at = At::Time(source.time().max(Source::made()));
                begun = Instant::now();
                store.get_at(&entity, at).await?.value.is_some()
            }
            What::TimeOfFew => {
                let (entity, _) = source.order()?;
                let at = At::Time(source.newest());
                begun = Instant::now();
                store.get_at(&entity, at).await?.value.is_some()
            }
            What::Id => {
                let (entity, newest) = source.customer()?;
                let at = At::Version(Version::new(newest));
                let event = store.get_at(&entity, at).await?.value;
                let id = event.ok_or("an event is missing")?.id;
                begun = Instant::now();
                store.get_event(&entity, id).await?.value.is_some()
            }
            What::Key(kind) => {
                let (entity, _) = of(source, kind)?;
                let query = entities(kind, "{}", None, Some(Tie::Key(entity.key().to_owned())))?;
                begun = Instant::now();
                store.search_entities(&query).await?.value.items.len() <= PAGE as usize
            }
            What::Rare(kind) => {
                let (entity, _) = of(source, kind)?;
                let filter = format!(r#"{{"mark":"{}"}}"#, entity.key());
                let query = entities(kind, &filter, None, None)?;
                begun = Instant::now();
                store.search_entities(&query).await?.value.items.len() == 1
            }
            What::Sorted(kind) => {
                let query = entities(kind, "{}", Some("amount"), None)?;
                begun = Instant::now();
                store.search_entities(&query).await?.value.items.len() == PAGE as usize
            }
            What::Events => {
                let place = Tie::Place(source.lane(), source.position(1_000));
                let mut query = events("{}")?;
                query.page = PageRequest::new(PAGE, 0, Some(cursor(place)))?;
                begun = Instant::now();
                store.search_events(&query).await?.value.items.len() == PAGE as usize
            }
            What::EventsSince => {
                let mut query = events("{}")?;
                query.min = Some(source.time());
                begun = Instant::now();
                store.search_events(&query).await?.value.items.len() <= PAGE as usize
            }
            What::History => {
                let (entity, newest) = source.order()?;
                let mut query = events(&format!(r#"{{"entity.key":"{}"}}"#, entity.key()))?;
                query.sort = Some(Sort {
                    path: Path::parse_event("sort", "time")?,
                    reverse: true,
                });
                begun = Instant::now();
                store.search_events(&query).await?.value.items.len() as u64 == newest
            }
            What::Log => {
                let after = source.position(256);
                let limit = ReadLimit {
                    events: 256,
                    bytes: 4 << 20,
                };
                begun = Instant::now();
                store.read_log(source.lane(), after, limit).await?.len() == 256
            }
            What::Seek => {
                let time = source.time();
                begun = Instant::now();
                store.seek(source.lane(), time).await?.get() < source.head()
            }
            What::Load => {
                let mut asked = Vec::new();
                while (asked.len() as u64) < WRITES {
                    let (entity, _) = source.order()?;
                    if !asked.contains(&entity) {
                        asked.push(entity);
                    }
                }
                begun = Instant::now();
                let loaded = store.load(source.lane(), &asked, &[], usize::MAX).await?;
                loaded.states.iter().all(|state| state.values.is_some())
            }
            What::Append => return append(store, source, WRITES).await,
        };
        let taken = begun.elapsed();
        match found {
            true => Ok(taken),
            false => Err(format!("{}: an answer is not what it must be", self.name).into()),
        }
    }
}

fn of(source: &mut Source, kind: &str) -> Outcome<(EntityRef, u64)> {
    match kind {
        ORDER => source.order(),
        _ => source.customer(),
    }
}

fn cursor(tie: Tie) -> Cursor {
    Cursor { key: None, tie }
}

fn entities(
    kind: &str,
    filter: &str,
    sort: Option<&str>,
    after: Option<Tie>,
) -> Outcome<EntityQuery> {
    let sort = match sort {
        Some(path) => Some(Sort {
            path: Path::parse_entity("sort", path)?,
            reverse: false,
        }),
        None => None,
    };
    Ok(EntityQuery {
        of: KindRef::new(DOMAIN, kind)?,
        filter: Filter::parse_entity(filter)?,
        sort,
        page: PageRequest::new(PAGE, 0, after.map(cursor))?,
    })
}

fn events(filter: &str) -> Outcome<EventQuery> {
    Ok(EventQuery {
        of: KindRef::new(DOMAIN, ORDER)?,
        filter: Filter::parse_event(filter)?,
        min: None,
        max: None,
        sort: None,
        page: PageRequest::new(PAGE, 0, None)?,
    })
}
