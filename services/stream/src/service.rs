//! The stream service: typed subscriptions in, events out.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::StreamExt as _;
use stategate_api::{
    Answer, Permitted, Problem, Start, Stream as StreamApi, Subscribe, Subscription as Subscribed,
};
use stategate_channel::Channel;
use stategate_model::{Heads, Invalid, Lane, Position, Token};
use stategate_runtime::{Config, Freshness, Positions, Tasks, of_read};
use stategate_storage::Storage;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{Admission, SubscriptionLimits},
    catchup::Budget,
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
            channel,
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
        start: &Start,
        lanes: &[Lane],
        heads: &Heads,
    ) -> Result<Heads, Problem> {
        let mut at = heads.clone();
        match start {
            Start::Live => {}
            Start::Beginning => lanes.iter().for_each(|lane| at.set(*lane, Position::ZERO)),
            Start::Since(time) => {
                for lane in lanes {
                    let position = self.storage.seek(*lane, *time).await;
                    at.set(*lane, position.map_err(|error| of_read(&error))?);
                }
            }
            Start::After(token) => {
                let info = self.storage.info();
                if token.log_id != info.log_id {
                    return Err(Problem::LogChanged);
                }
                let refused = |problem| Problem::from(Invalid::new("after", problem));
                if let Some((unknown, _)) =
                    token.iter().find(|(lane, _)| !info.lanes.contains(*lane))
                {
                    return Err(refused(format!(
                        "names the unknown lane {unknown}; this log has {}",
                        info.lanes.get()
                    )));
                }
                for lane in lanes {
                    let position = token.get(*lane).ok_or_else(|| {
                        refused(format!(
                            "lacks lane {lane}, which this subscription needs; merge the tokens of a stream's start and events lane by lane"
                        ))
                    })?;
                    if position > heads.get(*lane) {
                        return Err(Problem::PositionAhead);
                    }
                    at.set(*lane, position);
                }
            }
        }
        Ok(at)
    }

    /// The heads, once they are as new as the subscriber asks for.
    async fn heads(&self, fresh: &Freshness) -> Result<Heads, Problem> {
        let look = || async { self.storage.heads().await.map_err(|error| of_read(&error)) };
        let heads = fresh.read_all(&self.positions, look, Heads::get);
        tokio::select! {
            () = self.end.cancelled() => Err(Problem::ShuttingDown),
            heads = heads => heads,
        }
    }
}

#[async_trait]
impl StreamApi for StreamService {
    async fn stream(&self, call: Permitted<'_, Subscribe>) -> Result<Answer<Subscribed>, Problem> {
        let gate = call.gate();
        let (request, context) = call.into_parts();
        let (start, progress) = (request.start.clone(), request.progress);
        let selection = Selection::of(request);
        let info = self.storage.info();
        let lanes = selection.lanes(info.lanes);
        let fresh = Freshness::of(&context, info.log_id, info.lanes)?;
        let caller = context.caller.as_ref();
        let caller = caller.map(|caller| Arc::clone(caller.key()));
        let permit = self.admission.admit(caller)?;
        let heads = self.heads(&fresh).await?;
        let start = self.start_of(&start, &lanes, &heads).await?;
        let token = Token::of_heads(info.log_id, &start);
        let epoch = self.hub.enter(&heads);
        let shared = Shared {
            hub: Arc::clone(&self.hub),
            storage: Arc::clone(&self.storage),
            budget: Arc::clone(&self.budget),
            end: self.end.clone(),
        };
        let subscription = Subscription::new(
            shared,
            Subscriber::new(selection, gate),
            lanes,
            start,
            epoch,
            permit,
            progress,
        );
        let deliveries = subscription.into_stream().boxed();
        Ok(Answer::at(Subscribed { deliveries }, token))
    }
}
