//! The channel over Kafka: one topic of one partition a log, which every process reads by itself from
//! its end, with no consumer group and no committed offset.

mod config;
mod connection_state;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt as _, future::try_join_all};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    consumer::{BaseConsumer, Consumer as _, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{FutureProducer, FutureRecord, Producer as _},
};
use stategate_model::LogId;
use tokio::{task::spawn_blocking, time::sleep};

pub use self::config::{KafkaConfig, KafkaMechanism, KafkaSecurity};
use self::{config::KAFKA, connection_state::ConnectionState};
use crate::{
    Error,
    link::{Carrier, CarrierError, Listener, Received, Sender},
};

/// Largest frame. What a broker takes by default is 1 MiB, what surrounds a frame included.
const FRAME: usize = 960 << 10;
/// The one partition. Every process reads everything, so a second would share no work, and one keeps the
/// order of every lane.
const PARTITION: i32 = 0;
/// How long the driver may look for an answer at a time, in a thread of its own, which nothing can end.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a message may wait in the driver: less than the link lets it take.
const SEND: &str = "4000";
/// How long making a topic may take.
const MAKE: Duration = Duration::from_secs(3);

/// A question to the brokers, for a thread that may wait.
type Question<T> = Box<dyn FnOnce() -> Result<T, KafkaError> + Send>;

/// Kafka as a carrier.
#[derive(Clone)]
pub(crate) struct Kafka {
    config: KafkaConfig,
    client: ClientConfig,
    topic: String,
}

/// The client's would have the password.
impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Kafka").field(&self.config).finish()
    }
}

impl From<KafkaError> for CarrierError {
    fn from(error: KafkaError) -> Self {
        Self::new(error)
    }
}

impl Kafka {
    /// A carrier of one log's messages.
    pub(crate) async fn new(config: &KafkaConfig, log_id: LogId) -> Result<Self, Error> {
        let client = config.client()?;
        // The driver reads the files when a client is made.
        let made = spawn_blocking({
            let client = client.clone();
            move || client.create::<BaseConsumer>().map(drop)
        });
        match made.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return KAFKA.refuse(error),
            Err(_) => return Err(Error::Closed),
        }
        Ok(Self {
            client,
            topic: format!("{}.{log_id}", config.topic),
            config: config.clone(),
        })
    }

    /// Makes the topic, or finds that it is there.
    async fn make_topic(&self) -> Result<(), CarrierError> {
        let admin = DropInThread::new(self.client.create::<AdminClient<_>>()?);
        let bytes = self.config.max_bytes.get();
        let milliseconds = u64::from(self.config.retention_seconds.get()) * 1_000;
        let (retention, segment) = (milliseconds.to_string(), (bytes / 4).to_string());
        let bytes = bytes.to_string();
        let replicas = self.config.replicas.map_or(-1, |n| n.get().into());
        let topic = NewTopic::new(&self.topic, 1, TopicReplication::Fixed(replicas))
            .set("cleanup.policy", "delete")
            .set("retention.ms", &retention)
            .set("retention.bytes", &bytes)
            // Only what is full or old enough is let go of.
            .set("segment.ms", &retention)
            .set("segment.bytes", &segment)
            // A writer whose clock is wrong would have its messages go at once, or refused.
            .set("message.timestamp.type", "LogAppendTime")
            // What the broker makes smaller this build might not be able to read.
            .set("compression.type", "producer")
            // What is lost here is in the log, so one that has it will do.
            .set("min.insync.replicas", "1");
        let options = AdminOptions::new().operation_timeout(Some(MAKE));
        for made in admin.get()?.create_topics([&topic], &options).await? {
            match made {
                // Two processes may make it at once.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => {
                    return Err(CarrierError::new(format_args!(
                        "the topic is not made: {code}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Asks something of the brokers until they know the topic, which is made if they do not.
    async fn until_there<T: Send + 'static>(
        &self,
        state: &ConnectionState,
        mut ask: impl FnMut() -> Question<T>,
    ) -> Result<T, CarrierError> {
        let begun = Instant::now();
        let mut is_made = false;
        loop {
            match spawn_blocking(ask()).await.map_err(CarrierError::new)? {
                Ok(answer) => {
                    state.up();
                    return Ok(answer);
                }
                Err(error) if is_missing(&error) => {
                    if !std::mem::replace(&mut is_made, true) {
                        self.make_topic().await?;
                    }
                }
                // A name may have several addresses, of which not all lead there; so no single failure
                // to connect says that the brokers are away.
                Err(error) if begun.elapsed() >= LOOK && state.is_down() => {
                    return Err(state.failure(&error));
                }
                Err(error) if !is_passing(&error) => return Err(state.failure(&error)),
                Err(_) => {}
            }
            sleep(PAUSE).await;
        }
    }
}

impl Carrier for Kafka {
    fn provider(&self) -> &'static str {
        "kafka"
    }

    fn sender(&self) -> Box<dyn Sender> {
        Box::new(Publisher {
            kafka: self.clone(),
            producer: DropInThread(None),
            state: ConnectionState::default(),
        })
    }

    fn listener(&self) -> Box<dyn Listener> {
        Box::new(Reader {
            kafka: self.clone(),
            consumer: DropInThread(None),
            next: None,
        })
    }
}

/// Whether the brokers do not know the topic, or not yet.
fn is_missing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

/// Whether what was to be read next is no longer there.
fn is_behind(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset)
}

/// Whether the driver may come over it by itself.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::NotLeaderForPartition
        )
    )
}

/// Something of the driver's, let go of in a thread of its own: it waits for its own threads to end.
struct DropInThread<T: Send + Sync + 'static>(Option<Arc<T>>);

impl<T: Send + Sync + 'static> DropInThread<T> {
    fn new(client: T) -> Self {
        Self(Some(Arc::new(client)))
    }

    fn get(&self) -> Result<&Arc<T>, CarrierError> {
        self.0
            .as_ref()
            .ok_or_else(|| CarrierError::new("not connected"))
    }
}

impl<T: Send + Sync + 'static> Drop for DropInThread<T> {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            // Where no thread is to be had, it is let go of here.
            let _ = thread::Builder::new().spawn(move || drop(client));
        }
    }
}

/// The sending side.
struct Publisher {
    kafka: Kafka,
    producer: DropInThread<FutureProducer<ConnectionState>>,
    state: ConnectionState,
}

impl Publisher {
    /// Asks the brokers for the topic, as nothing else says that they are there.
    fn ask(&self, producer: &Arc<FutureProducer<ConnectionState>>) -> Question<()> {
        let (producer, topic) = (Arc::clone(producer), self.kafka.topic.clone());
        Box::new(move || {
            let metadata = producer.client().fetch_metadata(Some(&topic), LOOK)?;
            let error = match metadata.topics() {
                [topic] => topic.error().map(RDKafkaErrorCode::from),
                _ => Some(RDKafkaErrorCode::UnknownTopicOrPartition),
            };
            error.map_or(Ok(()), |error| Err(KafkaError::MetadataFetch(error)))
        })
    }
}

#[async_trait]
impl Sender for Publisher {
    async fn connect(&mut self) -> Result<(), CarrierError> {
        self.producer = DropInThread(None);
        let mut client = self.kafka.client.clone();
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // What waits is sent together already; waiting for more would only be later.
            .set("linger.ms", "0")
            .set("message.timeout.ms", SEND);
        let state = ConnectionState::default();
        let producer = DropInThread::new(client.create_with_context(state.clone())?);
        let shared = producer.get()?;
        self.kafka.until_there(&state, || self.ask(shared)).await?;
        (self.producer, self.state) = (producer, state);
        Ok(())
    }

    fn limit(&self) -> usize {
        FRAME
    }

    async fn send(&mut self, frames: Vec<Bytes>) -> Result<(), CarrierError> {
        let producer = self.producer.get()?;
        let mut deliveries = Vec::with_capacity(frames.len());
        for frame in &frames {
            let record = FutureRecord::<(), [u8]>::to(&self.kafka.topic)
                .partition(PARTITION)
                .payload(frame);
            let delivery = producer.send_result(record);
            deliveries.push(delivery.map_err(|(error, _)| error)?);
        }
        let delivered = async {
            for delivery in try_join_all(deliveries).await.map_err(CarrierError::new)? {
                delivery.map_err(|(error, _)| error)?;
            }
            Ok(())
        };
        tokio::select! {
            biased;
            delivered = delivered => delivered,
            failure = self.state.down() => Err(failure),
        }
    }

    async fn probe(&mut self) -> Result<(), CarrierError> {
        let asked = spawn_blocking(self.ask(self.producer.get()?));
        tokio::select! {
            biased;
            failure = self.state.down() => Err(failure),
            answer = asked => Ok(answer.map_err(CarrierError::new)??),
        }
    }
}

/// A listening side.
struct Reader {
    kafka: Kafka,
    consumer: DropInThread<StreamConsumer<ConnectionState>>,
    /// The offset to read next; after a reconnection it goes on from there.
    next: Option<i64>,
}

impl Reader {
    fn read_from(&self, offset: Offset) -> Result<(), CarrierError> {
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&self.kafka.topic, PARTITION, offset)?;
        Ok(self.consumer.get()?.assign(&from)?)
    }
}

#[async_trait]
impl Listener for Reader {
    async fn connect(&mut self) -> Result<(), CarrierError> {
        self.consumer = DropInThread(None);
        let mut client = self.kafka.client.clone();
        client
            // The driver wants a name, but a process that neither joins nor commits is in no group.
            .set("group.id", &self.kafka.topic)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("fetch.min.bytes", "1")
            .set("fetch.queue.backoff.ms", "20")
            .set("queued.max.messages.kbytes", "16384");
        let state = ConnectionState::default();
        let consumer: DropInThread<StreamConsumer<ConnectionState>> =
            DropInThread::new(client.create_with_context(state.clone())?);
        let shared = consumer.get()?;
        let ask = || -> Question<(i64, i64)> {
            let (consumer, topic) = (Arc::clone(shared), self.kafka.topic.clone());
            Box::new(move || {
                let ends = consumer.fetch_watermarks(&topic, PARTITION, LOOK);
                // Connection errors are kept by `ConnectionState`, which is asked where it matters.
                while consumer.recv().now_or_never().is_some() {}
                ends
            })
        };
        let (first, end) = self.kafka.until_there(&state, ask).await?;
        let start = match self.next {
            Some(next) if (first..=end).contains(&next) => next,
            // Let go of in the meantime, or another topic than before: all of it is new.
            Some(_) => first,
            None => end,
        };
        self.next = Some(start);
        self.consumer = consumer;
        self.read_from(Offset::Offset(start))
    }

    async fn next(&mut self) -> Result<Received, CarrierError> {
        let consumer = self.consumer.get()?;
        loop {
            match consumer.recv().await {
                Ok(message) => {
                    self.next = Some(message.offset() + 1);
                    if let Some(frame) = message.payload() {
                        return Ok(Received::Frame(Bytes::copy_from_slice(frame)));
                    }
                }
                Err(error) if is_behind(&error) => {
                    self.read_from(Offset::Beginning)?;
                    return Ok(Received::Lagged);
                }
                // The driver comes over one broker that leaves others; that no broker is left is reported, too.
                Err(error) if is_passing(&error) && !consumer.context().is_down() => {}
                Err(error) => return Err(consumer.context().failure(&error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use stategate_servers::{Broker as _, PATIENCE};
    use tokio::time::timeout;

    use super::*;

    async fn next(reader: &mut Reader) -> Received {
        let next = timeout(PATIENCE, reader.next()).await;
        next.expect("something comes")
            .expect("the connection holds")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_reader_goes_on_from_where_it_was_and_says_what_it_lost() {
        let started = spawn_blocking(stategate_servers::Kafka::start)
            .await
            .unwrap();
        let server = match started {
            Ok(server) => server,
            Err(missing) => return missing.report("reading a topic of Kafka"),
        };
        let config = KafkaConfig::new(server.url());
        let kafka = Kafka::new(&config, LogId::random()).await.unwrap();
        let mut reader = Reader {
            kafka: kafka.clone(),
            consumer: DropInThread(None),
            next: None,
        };
        reader.connect().await.unwrap();
        let mut sender = kafka.sender();
        sender.connect().await.unwrap();
        let frames: Vec<Bytes> = ["one", "two", "three"].map(Bytes::from).into();
        sender.send(frames.clone()).await.unwrap();
        let seen = async |reader: &mut Reader, expected: &[Bytes]| {
            for expected in expected {
                let next = next(reader).await;
                assert!(
                    matches!(&next, Received::Frame(frame) if frame == expected),
                    "{next:?}"
                );
            }
        };
        seen(&mut reader, &frames[..1]).await;
        // Another connection, and the rest.
        reader.connect().await.unwrap();
        seen(&mut reader, &frames[1..]).await;
        // Another topic than it was: all of it is new.
        reader.next = Some(1_000);
        reader.connect().await.unwrap();
        seen(&mut reader, &frames).await;
        // What it was to read next is no longer there.
        reader.read_from(Offset::Offset(1_000)).unwrap();
        assert!(matches!(next(&mut reader).await, Received::Lagged));
        seen(&mut reader, &frames).await;
    }
}
