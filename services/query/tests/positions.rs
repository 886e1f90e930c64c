//! Searches that wait for a position cost the storage next to nothing, and keep nobody else waiting.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, with a message"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::future::{BoxFuture, join_all};
use stategate_api::Access;
use stategate_model::{
    At, Claims, EntityQuery, EntityRef, Event, EventId, EventQuery, Heads, IdempotencyKey, Lane,
    Limits, Method, Position, State, Timestamp, Token, Values, Version,
};
use stategate_protocol::{headers, pb, server::entity_service_server::EntityService as _};
use stategate_query::QueryService;
use stategate_runtime::Positions;
use stategate_server::{Grpc, Services};
use stategate_storage::{
    Appended, Batch, Found, Info, KeyRecord, Loaded, Memory, MemoryConfig, Page, Read, ReadLimit,
    Result, Storage, Work, heads_of,
};
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

/// What a read takes.
const WAY: Duration = Duration::from_millis(2);

/// A storage that counts how often it is asked.
#[derive(Debug)]
struct Counting {
    inner: Memory,
    reads: AtomicUsize,
    heads: AtomicUsize,
}

impl Counting {
    async fn read(&self) {
        self.reads.fetch_add(1, SeqCst);
        sleep(WAY).await;
    }
}

#[async_trait]
impl Storage for Counting {
    fn info(&self) -> &Info {
        self.inner.info()
    }

    async fn load(
        &self,
        lane: Lane,
        entities: &[EntityRef],
        keys: &[IdempotencyKey],
        bytes: usize,
    ) -> Result<Loaded> {
        self.inner.load(lane, entities, keys, bytes).await
    }

    async fn append(&self, lane: Lane, expected: Position, batch: Arc<Batch>) -> Result<Appended> {
        self.inner.append(lane, expected, batch).await
    }

    fn run_writer(&self, task: BoxFuture<'static, ()>) {
        self.inner.run_writer(task);
    }

    async fn get(&self, entity: &EntityRef) -> Result<Read<State>> {
        self.read().await;
        self.inner.get(entity).await
    }

    async fn get_at(&self, entity: &EntityRef, at: At) -> Result<Read<Option<Event>>> {
        self.read().await;
        self.inner.get_at(entity, at).await
    }

    async fn search_entities(&self, query: &EntityQuery) -> Result<Read<Page<Found>>> {
        self.read().await;
        self.inner.search_entities(query).await
    }

    async fn get_event(&self, entity: &EntityRef, id: EventId) -> Result<Read<Option<Event>>> {
        self.read().await;
        self.inner.get_event(entity, id).await
    }

    async fn get_events(
        &self,
        events: &[(EntityRef, EventId)],
        bytes: usize,
    ) -> Result<Vec<Option<Event>>> {
        self.inner.get_events(events, bytes).await
    }

    async fn search_events(&self, query: &EventQuery) -> Result<Read<Page<Event>>> {
        self.read().await;
        self.inner.search_events(query).await
    }

    async fn read_log(&self, lane: Lane, after: Position, limit: ReadLimit) -> Result<Vec<Event>> {
        self.inner.read_log(lane, after, limit).await
    }

    async fn read_keys(&self, lane: Lane, after: Position, most: usize) -> Result<Vec<KeyRecord>> {
        self.inner.read_keys(lane, after, most).await
    }

    async fn seek(&self, lane: Lane, time: Timestamp) -> Result<Position> {
        self.inner.seek(lane, time).await
    }

    async fn heads(&self) -> Result<Heads> {
        self.heads.fetch_add(1, SeqCst);
        sleep(WAY).await;
        self.inner.heads().await
    }

    async fn check(&self, work: Work) -> Result<()> {
        self.inner.check(work).await
    }

    async fn confirm(&self) -> Result<()> {
        self.inner.confirm().await
    }

    fn concerns(&self) -> Vec<String> {
        self.inner.concerns()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

struct Bench {
    storage: Arc<Counting>,
    service: Grpc,
}

impl Bench {
    fn new() -> Self {
        let storage = Arc::new(Counting {
            inner: Memory::new(&MemoryConfig::default()).unwrap(),
            reads: AtomicUsize::new(0),
            heads: AtomicUsize::new(0),
        });
        let shared: Arc<dyn Storage> = Arc::clone(&storage) as _;
        let heads = Arc::new(heads_of(&shared));
        let positions = Positions::new(storage.info().lanes, 8_192, heads);
        let service = QueryService::new(shared, Arc::new(positions));
        let services = Services {
            query: Some(Arc::new(service)),
            ..Services::default()
        };
        let service = Grpc::new(services, Access::open(), Limits::default());
        Self { storage, service }
    }

    fn asking<T>(&self, message: T, min: u64) -> Request<T> {
        let token = Token::of_lane(self.storage.info().log_id, Lane(0), Position::new(min));
        let mut request = Request::new(message);
        let token = token.to_string().parse().unwrap();
        request.metadata_mut().insert(headers::MIN_POSITION, token);
        request
    }

    async fn search(&self, min: u64) -> std::result::Result<usize, Status> {
        let opts = pb::SearchEntityOpts {
            domain: "d".into(),
            r#type: "t".into(),
            ..pb::SearchEntityOpts::default()
        };
        let found = self.service.search(self.asking(opts, min)).await?;
        Ok(found.get_ref().entities.len())
    }

    async fn get(&self, min: u64) -> std::result::Result<i64, Status> {
        let entity = pb::EntityRef {
            domain: "d".into(),
            r#type: "t".into(),
            key: "k".into(),
            at: None,
        };
        let got = self.service.get(self.asking(entity, min)).await?;
        Ok(got.get_ref().version)
    }

    async fn write(&self, position: u64) {
        let event = Event {
            id: EventId::fresh(Timestamp(0)),
            entity: EntityRef::new("d", "t", "k").unwrap(),
            values: Values::empty(),
            version: Version::new(position),
            lane: Lane(0),
            position: Position::new(position),
            time: Timestamp(i64::try_from(position).unwrap()),
            method: Method::Set,
            claims: Claims::none(),
            trace_parent: None,
        };
        let batch = Arc::new(Batch {
            events: vec![event],
            keys: Vec::new(),
        });
        let expected = Position::new(position - 1);
        let appended = self.storage.append(Lane(0), expected, batch).await.unwrap();
        assert_eq!(appended, Appended::Done);
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_searches_that_wait_in_vain_cost_few_reads() {
    let bench = Bench::new();
    bench.write(1).await;
    let begun = Instant::now();
    let answers = join_all((0..1_000).map(|_| bench.search(2))).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    for answer in answers {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange);
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, "POSITION_AHEAD");
    }
    let reads = bench.storage.reads.load(SeqCst);
    let heads = bench.storage.heads.load(SeqCst);
    println!(
        "1,000 searches waited 10 s with {reads} searches of the storage and {heads} looks at its heads"
    );
    assert!(reads <= 20 && heads <= 200, "{reads} {heads}");
}

#[tokio::test(start_paused = true)]
async fn searches_that_wait_are_answered_when_it_comes_and_keep_nobody_waiting() {
    let bench = Bench::new();
    bench.write(1).await;
    let waiting = join_all((0..1_000).map(|_| bench.search(2)));
    let meanwhile = async {
        sleep(Duration::from_secs(3)).await;
        let before = bench.storage.reads.load(SeqCst);
        let begun = Instant::now();
        for _ in 0..100 {
            assert_eq!(bench.get(1).await.unwrap(), 1);
        }
        assert_eq!(begun.elapsed(), 100 * WAY, "served as if nobody waited");
        assert_eq!(bench.storage.reads.load(SeqCst) - before, 100);
        bench.write(2).await;
        Instant::now()
    };
    let (answers, written) = tokio::join!(waiting, meanwhile);
    assert!(answers.iter().all(|answer| *answer.as_ref().unwrap() == 1));
    let late = written.elapsed();
    assert!(late <= Duration::from_millis(200), "{late:?} late");
    let reads = bench.storage.reads.load(SeqCst);
    assert!(reads <= 1_150, "one for each that was answered: {reads}");
}
