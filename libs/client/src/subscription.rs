//! Subscriptions that go on where they were: after a lost connection, a restart, or another process
//! of the stream service.

use std::time::Duration;

use serde_json::Value;
use stategate_model::{Event, Lane, Method, Position, Timestamp, Token};
use stategate_protocol::{event::PROGRESS, pb};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Streaming;

use crate::{
    BearerToken, Client, Error, ErrorKind,
    client::{at_least, request, token_of},
    known::View,
    reads,
    retry::{Retry, Waits},
};

/// How long a subscription may take to be in force before it is tried again.
const OPENING: Duration = Duration::from_secs(10);

/// Where a subscription starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Start {
    /// From now on.
    #[default]
    Live,
    /// At the beginning of the log.
    Beginning,
    /// After a token.
    After(Token),
    /// At a time.
    Since(Timestamp),
}

/// Which changes to deliver, and from where.
#[derive(Debug, Clone)]
pub struct Subscription {
    opts: pb::StreamOpts,
    start: Start,
}

impl Subscription {
    /// Every change of entities whose domain and type match two globs, from now on.
    pub fn new(domain: impl Into<String>, kind: impl Into<String>) -> Self {
        let opts = pb::StreamOpts {
            domain: domain.into(),
            r#type: kind.into(),
            // So that a subscription that matches little resumes near the end of the log.
            progress: true,
            ..Default::default()
        };
        Self {
            opts,
            start: Start::Live,
        }
    }

    /// Only of entities whose key matches a glob.
    #[must_use]
    pub fn key(mut self, glob: impl Into<String>) -> Self {
        self.opts.key = glob.into();
        self
    }

    /// Only events that match a filter.
    #[must_use]
    pub fn filter(mut self, filter: &Value) -> Self {
        self.opts.query_string = filter.to_string();
        self
    }

    /// Only events that match a filter in JSON text, which the gateway parses: it says what is wrong
    /// with it.
    #[must_use]
    pub fn filter_text(mut self, filter: impl Into<String>) -> Self {
        self.opts.query_string = filter.into();
        self
    }

    /// Only changes made by these methods.
    #[must_use]
    pub fn methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.opts.methods = methods
            .into_iter()
            .map(|method| method.as_str().to_owned())
            .collect();
        self
    }

    /// Where to start.
    #[must_use]
    pub fn from(mut self, start: Start) -> Self {
        self.start = start;
        self
    }
}

/// A subscription in force.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    subscription: Subscription,
    stream: Option<Streaming<pb::Event>>,
    token: Option<Token>,
    waits: Waits,
    /// The bearer token that the stream was opened with.
    bearer: Option<BearerToken>,
    /// The one to open it with, where the source was asked for it already.
    other: Option<BearerToken>,
    /// The stream ended because its token is not accepted any more, and the source is being asked for
    /// another; kept here as `resume` is.
    refused: Option<Error>,
    /// When to reconnect; kept here so that dropping a future that waits for it loses nothing.
    resume: Option<Instant>,
}

/// What a subscription comes to next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Step {
    /// A change.
    Event(Event),
    /// The log was read up to this place, and nothing in between matched.
    Progress(Lane, Position),
    /// The connection was lost, or could not be made again; it will be tried again. With
    /// [`ErrorKind::Unauthenticated`], the token is not accepted any more and there is a newer one.
    Lost(Error),
    /// The connection is there again, and the subscription goes on where it was.
    Resumed,
}

impl Client {
    /// Subscribes. When this returns, the subscription is in force: what is written from now on is
    /// delivered.
    ///
    /// ```no_run
    /// # use stategate_client::{Client, Start, Subscription};
    /// # async fn run(client: Client) -> Result<(), stategate_client::Error> {
    /// let mut changes = client.subscribe(Subscription::new("faa", "airport").from(Start::Beginning)).await?;
    /// loop {
    ///     let event = changes.next().await?;
    ///     println!("{} {:?}", event.entity, changes.token());
    /// }
    /// # }
    /// ```
    pub async fn subscribe(&self, subscription: Subscription) -> Result<Watch, Error> {
        // A stream goes on for ever, and so do its tries.
        let waits = Retry {
            tries: u32::MAX,
            ..self.retry()
        }
        .waits();
        let mut watch = Watch {
            client: self.clone(),
            subscription,
            stream: None,
            token: None,
            waits,
            bearer: None,
            other: None,
            refused: None,
            resume: None,
        };
        watch.open().await?;
        Ok(watch)
    }
}

impl Watch {
    /// The next event. Waits as long as it takes, reconnecting as often as it takes; fails only for
    /// what does not pass. A stream whose token has expired goes on with a newer one, if there is one.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Step::Event(event) = self.step().await? {
                return Ok(event);
            }
        }
    }

    /// What comes next, event or not: for those who show how far the log was read, and how the
    /// connection is.
    ///
    /// Dropping the future loses nothing.
    pub async fn step(&mut self) -> Result<Step, Error> {
        if self.refused.is_some() {
            return self.renew().await;
        }
        let Some(stream) = &mut self.stream else {
            return self.reopen().await;
        };
        let lost = match stream.message().await {
            Ok(Some(message)) => return self.arrived(message),
            Ok(None) => Error::new(ErrorKind::Unavailable, "the gateway ended the stream"),
            Err(status) => self.client.stream_error(status),
        };
        self.stream = None;
        self.learn(&lost);
        if *lost.kind() == ErrorKind::Unauthenticated {
            self.refused = Some(lost);
            return self.renew().await;
        }
        self.waits_after(lost)
    }

    /// Asks for another token, to go on with after the last event. Without one, the owner has to know.
    async fn renew(&mut self) -> Result<Step, Error> {
        let Some(refused) = self.refused.clone() else {
            return self.reopen().await;
        };
        let until = Instant::now() + OPENING;
        let client = self.client.clone();
        let other = client.other_token(refused.clone(), self.bearer.as_ref(), until);
        let renewed = other.await;
        self.refused = None;
        match renewed {
            Ok(token) => {
                self.other = Some(token);
                // Not at once, for the newer one may be refused in the same way.
                self.will_resume(&refused);
                Ok(Step::Lost(refused))
            }
            Err(error) => self.waits_after(error),
        }
    }

    /// What the owner of this subscription is told of the log, no other call has to say.
    fn learn(&self, error: &Error) {
        let token = match (&self.token, &self.subscription.start) {
            (Some(token), _) => token,
            // That a place the caller names is beyond the end says nothing of the log.
            (None, Start::After(token)) if *error.kind() == ErrorKind::LogChanged => token,
            _ => return,
        };
        if error.is_log_lost() {
            self.client.told_of(token);
        }
    }

    fn arrived(&mut self, message: pb::Event) -> Result<Step, Error> {
        self.waits.reset();
        let place = u8::try_from(message.lane)
            .ok()
            .map(Lane)
            .zip(Position::from_i64(message.position));
        let (lane, position) = place.ok_or_else(|| reads::unreadable("a position"))?;
        let step = if message.method == PROGRESS {
            Step::Progress(lane, position)
        } else {
            Step::Event(reads::event(message)?)
        };
        if let Some(token) = &mut self.token {
            token.advance(lane, position);
        }
        Ok(step)
    }

    fn waits_after(&mut self, error: Error) -> Result<Step, Error> {
        if !error.passes() && *error.kind() != ErrorKind::DeadlineExceeded {
            return Err(error);
        }
        self.will_resume(&error);
        Ok(Step::Lost(error))
    }

    fn will_resume(&mut self, error: &Error) {
        let wait = self.waits.next(error.retry_delay()).unwrap_or_default();
        self.resume = Some(Instant::now() + wait);
    }

    /// How far the log was read: a subscription that starts after it goes on with the next event.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    async fn reopen(&mut self) -> Result<Step, Error> {
        if let Some(resume) = self.resume {
            sleep_until(resume).await;
        }
        match self.open().await {
            Ok(()) => Ok(Step::Resumed),
            Err(error) => self.waits_after(error),
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        use pb::stream_opts::Start as Wire;
        let mut opts = self.subscription.opts.clone();
        opts.start = match (&self.token, &self.subscription.start) {
            (Some(token), _) | (None, Start::After(token)) => Some(Wire::After(token.to_string())),
            (None, Start::Live) => None,
            (None, Start::Beginning) => Some(Wire::FromBeginning(true)),
            (None, Start::Since(time)) => Some(Wire::Since(time.0)),
        };
        let until = Instant::now() + OPENING;
        let mut is_renewed = false;
        let response = loop {
            let bearer = match &self.other {
                Some(token) => Some(token.clone()),
                None => self.client.bearer(until).await?,
            };
            let mut request = request(opts.clone(), bearer.as_ref());
            let mut view = View::default();
            if self.token.is_none() {
                view = self.client.ask_for_stream(until).await?;
                at_least(view.place.as_ref(), request.metadata_mut());
            }
            let mut events = self.client.streams();
            let error = match timeout_at(until, events.stream(request)).await {
                Ok(Ok(response)) => {
                    self.bearer = bearer;
                    break response;
                }
                Ok(Err(status)) => self.client.stream_error(status),
                Err(_) => Error::new(
                    ErrorKind::DeadlineExceeded,
                    "the subscription was not in force in time",
                ),
            };
            self.learn(&error);
            let Some(error) = self.client.refused(&view, error) else {
                continue;
            };
            // What was given for one that was refused is not kept beyond its use.
            self.other = None;
            if is_renewed {
                return Err(error);
            }
            let other = self.client.other_token(error, bearer.as_ref(), until);
            self.other = Some(other.await?);
            is_renewed = true;
        };
        self.other = None;
        if self.token.is_none() {
            self.token = token_of(response.metadata());
        }
        self.stream = Some(response.into_inner());
        Ok(())
    }
}
