//! The edge of the stream service: subscriptions in, events out.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::StreamExt as _;
use stategate_channel::{Channel, Reach};
use stategate_model::{Claims, Heads, Invalid, Lane, Position, Timestamp, Token};
use stategate_protocol::{Problem, headers, pb};
use stategate_server::{Config, EventStream, Freshness, Positions, StreamApi, Tasks, Unfit};
use stategate_storage::{Kind, Storage, Work};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    admission::{Admission, SubscriptionLimits},
    catchup::Budget,
    failure::failed,
    follower::Follower,
    hub::{Hub, Subscriber, TailBounds},
    selection::Selection,
    subscription::{Shared, Subscription},
};

/// The bounds an operator may set.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How often the lane heads are looked at, at least, whatever the channel says.
    pub look: Duration,
    /// Most subscriptions at once.
    pub subscriptions: SubscriptionLimits,
    /// Most events of the log kept in memory.
    pub tail_events: usize,
    /// Most bytes of them.
    pub tail_bytes: usize,
    /// Most bytes that all those hold who read the log from the storage.
    pub catchup_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(1),
            subscriptions: SubscriptionLimits::default(),
            tail_events: 65_536,
            tail_bytes: 64 << 20,
            catchup_bytes: 64 << 20,
        }
    }
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            look: config.heads_interval,
            subscriptions: SubscriptionLimits {
                total: config.max_subscribers,
                per_caller: config.max_caller_subscribers,
            },
            tail_bytes: config.tail_bytes,
            catchup_bytes: config.catchup_bytes,
            ..Self::default()
        }
    }
}

/// Serves subscriptions.
#[derive(Debug)]
pub struct StreamService {
    hub: Arc<Hub>,
    storage: Arc<dyn Storage>,
    channel: Arc<dyn Channel>,
    budget: Arc<Budget>,
    end: CancellationToken,
    admission: Arc<Admission>,
    positions: Arc<Positions>,
    follower: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

impl StreamService {
    /// Follows the log until the process ends. Needs a tokio runtime.
    pub fn start(
        storage: Arc<dyn Storage>,
        channel: Arc<dyn Channel>,
        settings: &Settings,
        tasks: &Tasks,
    ) -> Self {
        let end = tasks.end();
        #[cfg(feature = "faults")]
        let channel = crate::faults::wanted(channel);
        let lanes = storage.info().lanes;
        let share = usize::from(lanes.get());
        let bounds = TailBounds {
            events: settings.tail_events / share,
            bytes: settings.tail_bytes / share,
        };
        let hub = Arc::new(Hub::new(lanes, bounds));
        let follower = Follower::new(
            Arc::clone(&hub),
            Arc::clone(&storage),
            Arc::clone(&channel),
            settings.look,
            end.clone(),
        );
        // Without it every live stream would stand still, and no one would know.
        let follower = tasks.essential("the follower of the log", follower.run());
        let heads = Arc::new(stategate_storage::heads_of(&storage));
        let positions = Positions::new(lanes, settings.subscriptions.total, heads);
        Self {
            positions: Arc::new(positions),
            hub,
            storage,
            channel,
            budget: Budget::new(settings.catchup_bytes),
            end,
            admission: Arc::new(Admission::new(settings.subscriptions)),
            follower: Some(follower).into(),
        }
    }

    /// The same service, which waits for positions of the log together with others of its process.
    #[must_use]
    pub fn sharing(self, positions: Arc<Positions>) -> Self {
        Self { positions, ..self }
    }

    /// Ends every stream and waits for the follower.
    pub async fn finish(&self) {
        self.end.cancel();
        let follower = self.follower.lock().take();
        if let Some(follower) = follower {
            // How it ended, if not well, was seen when it did.
            let _ = follower.await;
        }
    }

    /// Where a subscription starts: the heads for live, a place in the past for the rest.
    async fn start_of(
        &self,
        opts: &pb::StreamOpts,
        lanes: &[Lane],
        heads: &Heads,
    ) -> Result<Heads, Problem> {
        use pb::stream_opts::Start;
        let mut start = heads.clone();
        match &opts.start {
            None => {}
            Some(Start::FromBeginning(false)) => {
                return Err(Invalid::new(
                    "from_beginning",
                    "must be true when set; leave it out to start live",
                )
                .into());
            }
            Some(Start::FromBeginning(true)) => lanes
                .iter()
                .for_each(|lane| start.set(*lane, Position::ZERO)),
            Some(Start::Since(time)) => {
                for lane in lanes {
                    let position = match *time {
                        ..=0 => Position::ZERO,
                        time => self
                            .storage
                            .seek(*lane, Timestamp(time))
                            .await
                            .map_err(|error| failed(&error))?,
                    };
                    start.set(*lane, position);
                }
            }
            Some(Start::After(token)) => {
                let token: Token = token
                    .parse()
                    .map_err(|problem: String| Invalid::new("after", problem))?;
                let info = self.storage.info();
                if token.log_id != info.log_id {
                    return Err(Problem::LogChanged);
                }
                if let Some((unknown, _)) =
                    token.iter().find(|(lane, _)| !info.lanes.contains(*lane))
                {
                    return Err(Invalid::new(
                        "after",
                        format!(
                            "names the unknown lane {unknown}; this log has {}",
                            info.lanes.get()
                        ),
                    )
                    .into());
                }
                for lane in lanes {
                    let Some(position) = token.get(*lane) else {
                        return Err(Invalid::new("after", format!("lacks lane {lane}, which this subscription needs; merge the tokens of a stream's start and events lane by lane")).into());
                    };
                    if position > heads.get(*lane) {
                        return Err(Problem::PositionAhead);
                    }
                    start.set(*lane, position);
                }
            }
        }
        Ok(start)
    }

    /// The heads, once they are as new as the subscriber asks for.
    async fn heads(&self, fresh: &Freshness) -> Result<Heads, Problem> {
        let look = || async { self.storage.heads().await.map_err(|error| failed(&error)) };
        let heads = fresh.read_all(&self.positions, look, Heads::get);
        tokio::select! {
            () = self.end.cancelled() => Err(Problem::ShuttingDown),
            heads = heads => heads,
        }
    }

    async fn subscribe(
        &self,
        request: &Request<pb::StreamOpts>,
    ) -> Result<Response<EventStream>, Problem> {
        let opts = request.get_ref();
        let selection = Selection::parse(opts)?;
        let info = self.storage.info();
        let lanes = selection.lanes(info.lanes);
        let fresh = Freshness::of(request, info.log_id, info.lanes)?;
        let claims = request.extensions().get::<Claims>();
        let permit = self.admission.admit(claims.and_then(Claims::caller))?;
        let heads = self.heads(&fresh).await?;
        let start = self.start_of(opts, &lanes, &heads).await?;
        let token = Token::of_heads(self.storage.info().log_id, &start);
        let epoch = self.hub.enter(&heads);
        let shared = Shared {
            hub: Arc::clone(&self.hub),
            storage: Arc::clone(&self.storage),
            budget: Arc::clone(&self.budget),
            end: self.end.clone(),
        };
        let subscription = Subscription::new(
            shared,
            Subscriber::new(selection),
            lanes,
            start,
            epoch,
            permit,
            opts.progress,
        );
        let mut response = Response::new(subscription.into_stream().boxed());
        // Tokens are ASCII.
        if let Ok(token) = token.to_string().parse() {
            response.metadata_mut().insert(headers::POSITION, token);
        }
        Ok(response)
    }
}

#[async_trait]
impl StreamApi for StreamService {
    async fn stream(
        &self,
        request: Request<pb::StreamOpts>,
    ) -> Result<Response<EventStream>, Status> {
        Ok(self.subscribe(&request).await?)
    }

    async fn check(&self) -> Result<(), Unfit> {
        let checked = self.storage.check(Work::Read).await;
        checked.map_err(|error| Unfit {
            why: format!("storage: {}", error.words()),
            is_for_good: *error.kind() == Kind::Bug,
            cause: error.to_string(),
        })
    }

    fn degraded(&self) -> Option<&'static str> {
        (self.channel.reach() == Reach::Down).then_some("channel")
    }
}
