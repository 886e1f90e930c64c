//! Reads of current states: those that arrive together are answered by one query.
//!
//! A few workers take what waits, each with one query on its way; the more callers there are, the
//! more of them share a round trip, and a single one waits for nobody.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt as _;
use parking_lot::Mutex;
use stategate_model::{EntityRef, Lane, State, Values};
use tokio::{
    sync::{Notify, Semaphore, oneshot},
    task::JoinSet,
};
use tokio_postgres::types::Type;

use crate::{
    Error, ErrorKind, Read, Result,
    answer::{Answer, panicked},
    ended::Ended,
};

use super::{
    failure::{closed, corrupt},
    pool::{Pool, Purpose, Statement},
    rows::Columns,
};

const OPERATION: &str = "get";
/// Queries that may be on their way at once.
const WORKERS: usize = 2;
/// Most reads one query answers.
const READS_PER_QUERY: usize = 256;
/// Reads that may wait.
const WAITING: usize = 4_096;

/// A read that waits for its answer.
struct Get {
    lane: Lane,
    entity: EntityRef,
    answer: Answer<Read<State>>,
}

/// What waits, and those who take it.
pub(super) struct Gets {
    queue: Arc<Queue>,
    workers: Mutex<JoinSet<()>>,
}

struct Queue {
    /// `None` once closed.
    waiting: Mutex<Option<Vec<Get>>>,
    arrived: Notify,
    room: Semaphore,
}

impl Gets {
    /// Starts the workers.
    pub(super) fn start(pool: &Arc<Pool>, schema: &str, ended: &Ended) -> Self {
        let statement = Arc::new(Statement::new(
            format!(
                "SELECT q.n, l.head, e.version, e.vals \
                 FROM unnest($1::smallint[], $2::text[], $3::text[], $4::text[]) \
                   WITH ORDINALITY AS q (lane, domain, type, key, n) \
                 JOIN {schema}.lanes l ON l.lane = q.lane \
                 LEFT JOIN LATERAL ( \
                   SELECT e.version, e.vals FROM {schema}.entities e \
                   WHERE e.domain = q.domain AND e.type = q.type AND e.key = q.key OFFSET 0 \
                 ) e ON true"
            ),
            &[
                Type::INT2_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
                Type::TEXT_ARRAY,
            ],
        ));
        let queue = Arc::new(Queue {
            waiting: Mutex::new(Some(Vec::new())),
            arrived: Notify::new(),
            room: Semaphore::new(WAITING),
        });
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            let (queue, pool) = (Arc::clone(&queue), Arc::clone(pool));
            let statement = Arc::clone(&statement);
            let watched = ended.watch("reader of states");
            workers.spawn(async move {
                let _watched = watched;
                while let Some(gets) = queue.take().await {
                    #[cfg(feature = "faults")]
                    stategate_faults::pass("postgres-gets");
                    // A panic costs these their answers, and nobody else the worker.
                    let answered = answer(&pool, &statement, gets);
                    let _ = AssertUnwindSafe(answered).catch_unwind().await;
                }
            });
        }
        Self {
            queue,
            workers: Mutex::new(workers),
        }
    }

    /// An entity's current state.
    pub(super) async fn get(&self, lane: Lane, entity: &EntityRef) -> Result<Read<State>> {
        let _room = self.queue.room.acquire().await;
        let (answer, answered) = oneshot::channel();
        match &mut *self.queue.waiting.lock() {
            Some(waiting) => waiting.push(Get {
                lane,
                entity: entity.clone(),
                answer: Answer::new(answer, OPERATION),
            }),
            None => return Err(closed(OPERATION)),
        }
        self.queue.arrived.notify_one();
        // A worker answers whatever it took, and whoever closes what is left.
        answered.await.map_err(|_| panicked(OPERATION, None))?
    }

    /// Answers what waits, and nothing after it.
    pub(super) async fn close(&self) {
        let left = self.queue.waiting.lock().take();
        for get in left.into_iter().flatten() {
            get.answer.send(Err(closed(OPERATION)));
        }
        for _ in 0..WORKERS {
            self.queue.arrived.notify_one();
        }
        let mut workers = std::mem::take(&mut *self.workers.lock());
        self.queue.arrived.notify_waiters();
        while workers.join_next().await.is_some() {}
    }
}

impl Queue {
    /// What waits, as soon as something does; `None` once closed.
    async fn take(&self) -> Option<Vec<Get>> {
        loop {
            let arrived = self.arrived.notified();
            {
                let mut waiting = self.waiting.lock();
                let waiting = waiting.as_mut()?;
                waiting.retain(|get| !get.answer.is_unwanted());
                if !waiting.is_empty() {
                    let rest = waiting.split_off(waiting.len().min(READS_PER_QUERY));
                    if !rest.is_empty() {
                        self.arrived.notify_one();
                    }
                    return Some(std::mem::replace(waiting, rest));
                }
            }
            arrived.await;
        }
    }
}

async fn answer(pool: &Pool, statement: &Statement, gets: Vec<Get>) {
    match read(pool, statement, &gets).await {
        Ok(states) => {
            for (get, state) in gets.into_iter().zip(states) {
                get.answer.send(state);
            }
        }
        Err(error) => {
            let (kind, operation, trouble) =
                (error.kind().clone(), error.operation(), error.trouble());
            let error = Arc::new(error);
            for get in gets {
                let error = Error::new(kind.clone(), operation)
                    .with_trouble(trouble)
                    .because(Arc::clone(&error));
                get.answer.send(Err(error));
            }
        }
    }
}

async fn read(
    pool: &Pool,
    statement: &Statement,
    gets: &[Get],
) -> Result<Vec<Result<Read<State>>>> {
    #[cfg(feature = "faults")]
    stategate_faults::pass("postgres-get");
    let lanes: Vec<i16> = gets.iter().map(|get| i16::from(get.lane.0)).collect();
    let domains: Vec<&str> = gets.iter().map(|get| get.entity.domain()).collect();
    let kinds: Vec<&str> = gets.iter().map(|get| get.entity.kind()).collect();
    let keys: Vec<&str> = gets.iter().map(|get| get.entity.key()).collect();
    let mut lease = pool.lease(OPERATION, Purpose::Read).await?;
    let rows = lease
        .query(statement, &[&lanes, &domains, &kinds, &keys])
        .await
        .map_err(|failure| failure.of_read(OPERATION))?;
    drop(lease);
    let mut states: Vec<_> = gets
        .iter()
        .map(|_| Err(corrupt(OPERATION, "a lane is missing")))
        .collect();
    for row in &rows {
        let columns = Columns {
            row,
            operation: OPERATION,
        };
        let n = usize::try_from(columns.get::<i64>(0)?).unwrap_or(0);
        let Some((state, get)) = n
            .checked_sub(1)
            .and_then(|n| states.get_mut(n).zip(gets.get(n)))
        else {
            return Err(
                Error::new(ErrorKind::Corrupt, OPERATION).because("a state nobody asked for")
            );
        };
        let value = match columns.get::<Option<i64>>(2)? {
            None => State::default(),
            Some(_) => State {
                version: columns.version(2)?,
                values: columns.get::<Option<&str>>(3)?.map(Values::from_canonical),
            },
        };
        *state = Ok(Read {
            value,
            lane: get.lane,
            position: columns.position(1)?,
        });
    }
    Ok(states)
}
