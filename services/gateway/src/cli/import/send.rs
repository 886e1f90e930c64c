//! Sends rows: many at once, those of one entity in the order of the file.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use stategate_client::{Client, EntityRef, ErrorKind, Outcome, Retry, Terms, Written};
use tokio::task::JoinSet;

use super::row::{Place, Row};
use crate::cli::{
    connection::Connection,
    failure::{self, Failure},
};

/// How long a row is sent again and again before the gateway counts as gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// How rows are sent again within that.
const RETRY: Retry = Retry {
    first: Duration::from_millis(50),
    longest: Duration::from_secs(5),
    tries: u32::MAX,
};
/// Connections, where there are rows enough in flight to use them.
const CONNECTIONS: usize = 4;

/// What became of a row.
#[derive(Debug)]
pub(crate) enum Became {
    /// It is written.
    Written(Written),
    /// It is not, as far as is known, and why.
    Failed(Outcome, String),
    /// Nor will any other be.
    Over(Outcome, Failure),
}

/// A row that was dealt with.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) place: Place,
    pub(crate) entity: EntityRef,
    pub(crate) became: Became,
}

/// Rows on their way.
pub(crate) struct Flight {
    client: Client,
    /// What the idempotency keys of the rows begin with.
    id: String,
    /// The entities in flight, each with its later rows.
    waiting: HashMap<EntityRef, VecDeque<Row>>,
    tasks: JoinSet<Sent>,
    held: usize,
    most: usize,
}

/// A client that rides out what takes long.
pub(super) async fn patient(connection: &Connection, most: usize) -> Result<Client, Failure> {
    let builder = connection.builder()?;
    let client = builder
        .connections(CONNECTIONS.min(most.div_ceil(8)))
        .deadline(PATIENCE.max(connection.timeout))
        .retry(RETRY)
        .open()
        .await?;
    Ok(client)
}

impl Flight {
    /// For the import of that id, with at most `most` rows on their way.
    pub(crate) fn new(client: Client, id: &str, most: usize) -> Self {
        Self {
            client,
            id: id.to_owned(),
            waiting: HashMap::new(),
            tasks: JoinSet::new(),
            held: 0,
            most,
        }
    }

    /// Whether another row may be pushed.
    pub(crate) fn has_room(&self) -> bool {
        self.held < self.most
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// How many rows are on their way.
    pub(crate) fn len(&self) -> usize {
        self.held
    }

    /// Forgets the rows that wait for earlier ones of their entities: none of them was sent, nor will be.
    pub(crate) fn keep_back(&mut self) {
        for later in self.waiting.values_mut() {
            self.held = self.held.saturating_sub(later.len());
            later.clear();
        }
    }

    /// Sends a row, once the earlier ones of its entity were answered.
    pub(crate) fn push(&mut self, row: Row) {
        self.held += 1;
        match self.waiting.get_mut(&row.entity) {
            Some(later) => later.push_back(row),
            None => {
                self.waiting.insert(row.entity.clone(), VecDeque::new());
                self.send(row);
            }
        }
    }

    /// The next row that is dealt with; `None` when there is none on its way.
    pub(crate) async fn next(&mut self) -> Option<Sent> {
        let sent = loop {
            match self.tasks.join_next().await? {
                Ok(sent) => break sent,
                // Nothing in a task panics or is cancelled; were it otherwise, the count would say.
                Err(_) => self.held = self.held.saturating_sub(1),
            }
        };
        self.held = self.held.saturating_sub(1);
        if let Became::Over(..) = sent.became {
            self.keep_back();
        }
        let later = self
            .waiting
            .get_mut(&sent.entity)
            .and_then(VecDeque::pop_front);
        match later {
            Some(row) => self.send(row),
            None => {
                self.waiting.remove(&sent.entity);
            }
        }
        Some(sent)
    }

    fn send(&mut self, row: Row) {
        let client = self.client.clone();
        // The same for the same row of the same import, so that neither a lost answer nor a second
        // run makes a second event.
        let terms = Terms::new().key(format!("import-{}-{}", self.id, row.number));
        self.tasks.spawn(async move {
            let became = set(&client, terms, &row).await;
            Sent {
                place: row.place,
                entity: row.entity,
                became,
            }
        });
    }
}

async fn set(client: &Client, terms: Terms, row: &Row) -> Became {
    let values = row.values.clone();
    let error = match client.set_payload(terms, &row.entity, values).await {
        // Of a log that was replaced, the tokens say so, and what went with it.
        Ok(written) => match client.check_log() {
            Err(error) if *error.kind() == ErrorKind::LogRewound => {
                return Became::Over(Outcome::Written, error.into());
            }
            _ => return Became::Written(written),
        },
        Err(error) => error,
    };
    let outcome = error.outcome();
    match error.kind() {
        // The patience is over, what is refused for one row is refused for all, or what was written
        // before is not where the rest would go.
        ErrorKind::Unreachable
        | ErrorKind::Unavailable
        | ErrorKind::OutcomeUnknown
        | ErrorKind::DeadlineExceeded
        | ErrorKind::Unauthenticated
        | ErrorKind::Unsupported
        | ErrorKind::LogChanged
        | ErrorKind::LogRewound => Became::Over(outcome, error.into()),
        ErrorKind::KeyReused => Became::Failed(
            outcome,
            "another row stood here when this import began; leave out --resume to import anew"
                .to_owned(),
        ),
        _ => Became::Failed(outcome, failure::explain(&error)),
    }
}
