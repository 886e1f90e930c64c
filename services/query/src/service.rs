//! The edge of the query service: calls in, answers out.

use std::sync::Arc;

use async_trait::async_trait;
use prost::Message as _;
use stategate_model::{
    At, Cursor, EntityQuery, EntityRef, Event, EventQuery, Filter, Invalid, KindRef, Lane,
    PageRequest, Path, Position, Sort, SortKey, Timestamp, Token, Version, limits, order::Tie,
    value::Corrupt,
};
use stategate_protocol::{Encoded, EventPage, Problem, convert, encode_event, headers, pb};
use stategate_server::{Freshness, Positions, QueryApi, Unfit};
use stategate_storage::{Found, Kind, Read, Storage, Work};
use tonic::{Request, Response, Status};

use crate::{freshness, page_token::Binding};

/// Answers Get and Search of entities and of events.
#[derive(Debug)]
pub struct QueryService {
    storage: Arc<dyn Storage>,
    positions: Arc<Positions>,
}

fn corrupt(corrupt: Corrupt) -> Problem {
    Problem::internal(&corrupt)
}

impl QueryService {
    /// Reads from `storage`; `positions` are those of its log.
    pub fn new(storage: Arc<dyn Storage>, positions: Arc<Positions>) -> Self {
        Self { storage, positions }
    }

    /// Reads what is of a domain, as new as it is asked for.
    async fn read<T, F>(
        &self,
        fresh: &Freshness,
        domain: &str,
        read: impl Fn() -> F,
    ) -> Result<Read<T>, Problem>
    where
        F: Future<Output = stategate_storage::Result<Read<T>>>,
    {
        let lane = self.storage.info().lanes.of(domain);
        freshness::read(fresh, &self.positions, lane, read).await
    }

    /// How new the answer to a request must be.
    fn fresh<T>(&self, request: &Request<T>) -> Result<Freshness, Problem> {
        let info = self.storage.info();
        Freshness::of(request, info.log_id, info.lanes)
    }

    /// An answer with the token it was read at.
    fn respond<T>(
        &self,
        message: T,
        lane: Lane,
        position: Position,
        version: Option<Version>,
    ) -> Response<T> {
        let mut response = Response::new(message);
        let token = Token::of_lane(self.storage.info().log_id, lane, position).to_string();
        // Tokens and versions are ASCII.
        if let Ok(token) = token.parse() {
            response.metadata_mut().insert(headers::POSITION, token);
        }
        if let Some(etag) = version.and_then(|version| format!("\"{version}\"").parse().ok()) {
            response.metadata_mut().insert(headers::ETAG, etag);
        }
        response
    }

    async fn get_now(
        &self,
        entity: &EntityRef,
        fresh: &Freshness,
    ) -> Result<Response<pb::Entity>, Problem> {
        let read = self
            .read(fresh, entity.domain(), || self.storage.get(entity))
            .await?;
        let version = read.value.version;
        let Some(values) = read.value.values else {
            return Err(Problem::EntityNotFound {
                what: entity.to_string(),
            });
        };
        let message = convert::entity_message(entity, &values, Some(version)).map_err(corrupt)?;
        Ok(self.respond(message, read.lane, read.position, Some(version)))
    }

    async fn get_then(
        &self,
        entity: &EntityRef,
        at: At,
        fresh: &Freshness,
    ) -> Result<Response<pb::Entity>, Problem> {
        let read = self
            .read(fresh, entity.domain(), || self.storage.get_at(entity, at))
            .await?;
        let point = match at {
            At::Version(version) => format!("at version {version}"),
            At::Time(time) => format!("at time {}", time.0),
        };
        let Some(event) = read.value else {
            return Err(Problem::EntityNotFound {
                what: format!("{entity} {point}"),
            });
        };
        let Some(values) = event.state() else {
            let what = format!(
                "{entity} {point}: it was deleted at time {} (version {})",
                event.time.0, event.version
            );
            return Err(Problem::EntityNotFound { what });
        };
        let message =
            convert::entity_message(entity, values, Some(event.version)).map_err(corrupt)?;
        Ok(self.respond(message, read.lane, read.position, Some(event.version)))
    }

    async fn search_entities(
        &self,
        request: &Request<pb::SearchEntityOpts>,
    ) -> Result<Response<pb::Entities>, Problem> {
        let opts = request.get_ref();
        let of = KindRef::new(&opts.domain, &opts.r#type)?;
        if !opts.text.is_empty() {
            return Err(Problem::Unsupported {
                what: "text: full-text search needs an index, which this deployment does not have; use query_string",
            });
        }
        let filter = Filter::parse_entity(&opts.query_string)?;
        let sort = sort(opts.sort.as_ref(), |field| {
            Path::parse_entity("sort.field", field)
        })?;
        let binding = Binding::new(
            "EntityService/Search",
            &[
                opts.domain.as_bytes(),
                opts.r#type.as_bytes(),
                opts.query_string.as_bytes(),
                &sort.bytes,
            ],
        );
        let page = PageRequest::new(opts.limit, opts.offset, binding.cursor(&opts.page_token)?)?;
        let fresh = self.fresh(request)?;
        let query = EntityQuery {
            of,
            filter,
            sort: sort.parsed,
            page,
        };
        let read = self
            .read(&fresh, query.of.domain.as_str(), || {
                self.storage.search_entities(&query)
            })
            .await?;

        let mut entities = Vec::with_capacity(read.value.items.len());
        let mut next = read.value.next;
        let mut bytes = 0;
        let mut last: Option<&Found> = None;
        for found in &read.value.items {
            let message =
                convert::entity_message(&found.entity, &found.values, Some(found.version))
                    .map_err(corrupt)?;
            bytes += message.encoded_len();
            if let (true, Some(last)) = (bytes > limits::PAGE_BYTES, last) {
                next = Some(entity_cursor(&query, last)?);
                break;
            }
            entities.push(message);
            last = Some(found);
        }
        let next_page_token = next.map_or_else(String::new, |cursor| binding.token(&cursor));
        Ok(self.respond(
            pb::Entities {
                entities,
                next_page_token,
            },
            read.lane,
            read.position,
            None,
        ))
    }

    async fn search_history(
        &self,
        request: &Request<pb::SearchEventOpts>,
    ) -> Result<Response<EventPage>, Problem> {
        let opts = request.get_ref();
        let of = KindRef::new(&opts.domain, &opts.r#type)?;
        let filter = Filter::parse_event(&opts.query_string)?;
        let sort = sort(opts.sort.as_ref(), |field| {
            Path::parse_event("sort.field", field)
        })?;
        let (min, max) = (bound("min", opts.min)?, bound("max", opts.max)?);
        let binding = Binding::new(
            "EventService/Search",
            &[
                opts.domain.as_bytes(),
                opts.r#type.as_bytes(),
                opts.query_string.as_bytes(),
                &opts.min.to_be_bytes(),
                &opts.max.to_be_bytes(),
                &sort.bytes,
            ],
        );
        let page = PageRequest::new(opts.limit, opts.offset, binding.cursor(&opts.page_token)?)?;
        let fresh = self.fresh(request)?;
        let query = EventQuery {
            of,
            filter,
            min,
            max,
            sort: sort.parsed,
            page,
        };
        let read = self
            .read(&fresh, query.of.domain.as_str(), || {
                self.storage.search_events(&query)
            })
            .await?;

        let mut events = Vec::with_capacity(read.value.items.len());
        let mut next = read.value.next;
        let mut bytes = 0;
        let mut last: Option<&Event> = None;
        for event in &read.value.items {
            let message = encode_event(event).map_err(corrupt)?;
            bytes += message.encoded_len();
            if let (true, Some(last)) = (bytes > limits::PAGE_BYTES, last) {
                next = Some(event_cursor(&query, last)?);
                break;
            }
            events.push(message);
            last = Some(event);
        }
        let next_page_token = next.map_or_else(String::new, |cursor| binding.token(&cursor));
        Ok(self.respond(
            EventPage {
                events,
                next_page_token,
            },
            read.lane,
            read.position,
            None,
        ))
    }
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

fn sort(
    message: Option<&pb::Sort>,
    path: impl Fn(&str) -> Result<Path, Invalid>,
) -> Result<Sorting, Invalid> {
    // A Sort with nothing set is what many generated clients send for none.
    let Some(sort) = message.filter(|sort| **sort != pb::Sort::default()) else {
        return Ok(Sorting {
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
    Ok(Sorting {
        parsed: Some(Sort {
            path: path(&sort.field)?,
            reverse: sort.reverse,
        }),
        bytes,
    })
}

fn entity_cursor(query: &EntityQuery, found: &Found) -> Result<Cursor, Problem> {
    let key = match &query.sort {
        Some(sort) => Some(SortKey::of_values(
            &sort.path,
            found.values.object().map_err(corrupt)?,
        )),
        None => None,
    };
    Ok(Cursor {
        key,
        tie: Tie::Key(found.entity.key().to_owned()),
    })
}

fn event_cursor(query: &EventQuery, event: &Event) -> Result<Cursor, Problem> {
    let key = match &query.sort {
        Some(sort) => Some(SortKey::of_event(&sort.path, event).map_err(corrupt)?),
        None => None,
    };
    Ok(Cursor {
        key,
        tie: Tie::Place(event.lane, event.position),
    })
}

#[async_trait]
impl QueryApi for QueryService {
    async fn check(&self) -> Result<(), Unfit> {
        let checked = self.storage.check(Work::Read).await;
        checked.map_err(|error| Unfit {
            why: format!("storage: {}", error.words()),
            is_for_good: *error.kind() == Kind::Bug,
            cause: error.to_string(),
        })
    }

    async fn get(&self, request: Request<pb::EntityRef>) -> Result<Response<pb::Entity>, Status> {
        let message = request.get_ref();
        let entity = convert::entity_ref(message).map_err(Problem::from)?;
        let at = convert::at(message).map_err(Problem::from)?;
        let fresh = self.fresh(&request)?;
        Ok(match at {
            None => self.get_now(&entity, &fresh).await?,
            Some(at) => self.get_then(&entity, at, &fresh).await?,
        })
    }

    async fn search(
        &self,
        request: Request<pb::SearchEntityOpts>,
    ) -> Result<Response<pb::Entities>, Status> {
        Ok(self.search_entities(&request).await?)
    }

    async fn search_events(
        &self,
        request: Request<pb::SearchEventOpts>,
    ) -> Result<Response<EventPage>, Status> {
        Ok(self.search_history(&request).await?)
    }

    async fn get_event(&self, request: Request<pb::EventRef>) -> Result<Response<Encoded>, Status> {
        let (entity, id) = convert::event_ref(request.get_ref()).map_err(Problem::from)?;
        let fresh = self.fresh(&request)?;
        let read = self
            .read(&fresh, entity.domain(), || {
                self.storage.get_event(&entity, id)
            })
            .await?;
        let Some(event) = read.value else {
            return Err(Problem::EventNotFound {
                what: format!("{id} of {entity}"),
            }
            .into());
        };
        let encoded = encode_event(&event).map_err(corrupt)?;
        Ok(self.respond(encoded, read.lane, read.position, None))
    }
}
