//! Sends rows: many at once, those of one key in the order of the file.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use stategate_model::Token;
use stategate_protocol::{
    headers,
    pb::{self, entity_service_client::EntityServiceClient},
};
use tokio::{task::JoinSet, time::Instant};
use tonic::{Code, Status, transport::Channel};
use uuid::Uuid;

use super::row::{Place, Row};
use crate::cli::{
    client::Gateway,
    failure::{self, Failure, Kind},
};

/// The first and the longest wait before a row is sent again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How long a row is sent again and again before the gateway counts as gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// Connections, where there are rows enough in flight to use them.
const CONNECTIONS: usize = 4;

/// What became of a row.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is written; the token says where.
    Written(Option<Token>),
    /// It surely is not.
    Refused(String),
    /// Nor will any other be.
    Over(Failure),
}

/// A row that was dealt with.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) place: Place,
    pub(crate) key: String,
    pub(crate) outcome: Outcome,
}

/// Rows on their way.
pub(crate) struct Flight {
    target: Target,
    connections: Vec<EntityServiceClient<Channel>>,
    /// The keys in flight, each with the later rows of the same key.
    waiting: HashMap<String, VecDeque<Row>>,
    tasks: JoinSet<Sent>,
    held: usize,
    most: usize,
    next: usize,
}

#[derive(Debug, Clone)]
struct Target {
    gateway: Gateway,
    domain: String,
    kind: String,
    patience: Duration,
}

impl Flight {
    /// Towards one domain and type, with at most `most` rows on their way.
    pub(crate) fn new(
        gateway: &Gateway,
        domain: &str,
        kind: &str,
        most: usize,
    ) -> Result<Self, Failure> {
        let mut connections = vec![gateway.entities()];
        while connections.len() < CONNECTIONS.min(most.div_ceil(8)) {
            connections.push(gateway.another_connection()?.entities());
        }
        Ok(Self {
            target: Target {
                gateway: gateway.clone(),
                domain: domain.to_owned(),
                kind: kind.to_owned(),
                patience: PATIENCE,
            },
            connections,
            waiting: HashMap::new(),
            tasks: JoinSet::new(),
            held: 0,
            most,
            next: 0,
        })
    }

    #[cfg(test)]
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.target.patience = patience;
    }

    /// Whether another row may be pushed.
    pub(crate) fn has_room(&self) -> bool {
        self.held < self.most
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Sends a row, once the earlier ones of its key were answered.
    pub(crate) fn push(&mut self, row: Row) {
        self.held += 1;
        match self.waiting.get_mut(&row.key) {
            Some(later) => later.push_back(row),
            None => {
                self.waiting.insert(row.key.clone(), VecDeque::new());
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
        let later = self
            .waiting
            .get_mut(&sent.key)
            .and_then(VecDeque::pop_front);
        match later {
            Some(row) => self.send(row),
            None => {
                self.waiting.remove(&sent.key);
            }
        }
        Some(sent)
    }

    fn send(&mut self, row: Row) {
        let client = self.connections[self.next % self.connections.len()].clone();
        self.next = self.next.wrapping_add(1);
        let target = self.target.clone();
        self.tasks.spawn(async move {
            let outcome = target.set(client, &row).await;
            Sent {
                place: row.place,
                key: row.key,
                outcome,
            }
        });
    }
}

impl Target {
    /// Sets one entity, trying until it is written, refused, or the patience is over. Every try has
    /// the row's idempotency key, so that a lost answer does not make a second event.
    async fn set(&self, mut client: EntityServiceClient<Channel>, row: &Row) -> Outcome {
        let key = Uuid::new_v4().to_string();
        let began = Instant::now();
        let mut wait = BACK_OFF.0;
        loop {
            let mut request = self.gateway.request(pb::Entity {
                domain: self.domain.clone(),
                r#type: self.kind.clone(),
                key: row.key.clone(),
                values: Some(row.values.clone()),
                version: 0,
            });
            // Hexadecimal digits and hyphens are a legal header.
            if let Ok(key) = key.parse() {
                request.metadata_mut().insert(headers::IDEMPOTENCY_KEY, key);
            }
            let call = tokio::time::timeout(self.gateway.timeout(), client.set(request));
            let status = match call.await {
                Ok(Ok(answer)) => {
                    let token = answer.metadata().get(headers::POSITION);
                    let token = token.and_then(|token| token.to_str().ok()?.parse().ok());
                    return Outcome::Written(token);
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(""),
            };
            let asked = match failure::retry_delay(&status) {
                Some(asked) => asked,
                None if is_lost(&status) => Duration::ZERO,
                None => return self.settled(&status),
            };
            if began.elapsed() >= self.patience {
                let gateway = self.gateway.address();
                return Outcome::Over(Failure::of_status(&status, Kind::Read, gateway));
            }
            tokio::time::sleep(spread(wait, row).max(asked)).await;
            wait = (wait * 2).min(BACK_OFF.1);
        }
    }

    fn settled(&self, status: &Status) -> Outcome {
        let gateway = self.gateway.address();
        let words = || failure::explain(status, Kind::Write, gateway);
        match status.code() {
            // What is refused for one row for these reasons is refused for all.
            Code::Unauthenticated | Code::Unimplemented => {
                Outcome::Over(Failure::of_status(status, Kind::Write, gateway))
            }
            _ => Outcome::Refused(words()),
        }
    }
}

/// Whether nobody said what became of a call: the connection was lost, or the time ran out.
fn is_lost(status: &Status) -> bool {
    match status.code() {
        Code::DeadlineExceeded => true,
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal => {
            !failure::is_answer(status)
        }
        _ => false,
    }
}

/// Half to all of the wait, by row, so that rows which failed together do not come back together.
fn spread(wait: Duration, row: &Row) -> Duration {
    let part = u32::try_from(row.place.line.wrapping_mul(7_919) % 512).unwrap_or(0);
    wait / 2 + wait / 1024 * part
}
