//! The log from a place in it to where it ends now: what `stats` and `export` read.

use stategate_client::{Client, Event, Start, Step, Subscription, Token, Watch};

use super::{
    failure::{self, Exit, Failure},
    output::Note,
};

/// A reading of the log that comes to an end.
pub(crate) struct Walk {
    watch: Watch,
    heads: Token,
    is_lost: bool,
}

impl Walk {
    /// Everything that a live subscription to these domains would have been told before it began.
    pub(crate) async fn begin(
        client: &Client,
        domains: &str,
        from: Option<Token>,
    ) -> Result<Self, Failure> {
        let heads = heads(client, domains).await?;
        let start = from.map_or(Start::Beginning, Start::After);
        let subscription = Subscription::new(domains, "*").from(start);
        let watch = client.subscribe(subscription).await?;
        same_log(&heads, watch.token())?;
        Ok(Self {
            watch,
            heads,
            is_lost: false,
        })
    }

    /// The next event; `None` at the end. Rides out lost connections.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            if self.is_over() {
                return Ok(None);
            }
            match self.watch.step().await? {
                Step::Event(event) => return Ok(Some(event)),
                Step::Lost(error) if !self.is_lost => {
                    self.is_lost = true;
                    Note::stderr().say(&failure::lost(&error));
                }
                Step::Resumed => self.is_lost = false,
                _ => {}
            }
        }
    }

    /// Where it ends.
    pub(crate) fn heads(&self) -> &Token {
        &self.heads
    }

    /// How many positions there are to read.
    pub(crate) fn size(&self) -> u64 {
        positions(&self.heads)
    }

    /// How many of them were read.
    pub(crate) fn read(&self) -> u64 {
        self.watch.token().map_or(0, positions)
    }

    fn is_over(&self) -> bool {
        let read = self.watch.token();
        self.heads.iter().all(|(lane, head)| {
            let at = read.and_then(|token| token.get(lane));
            at.unwrap_or_default() >= head
        })
    }
}

/// The places in the log that a live subscription to these domains begins after.
pub(crate) async fn heads(client: &Client, domains: &str) -> Result<Token, Failure> {
    let live = client.subscribe(Subscription::new(domains, "*")).await?;
    let heads = live.token().cloned();
    heads.ok_or_else(|| Failure::failed("the gateway does not say where its log ends"))
}

/// Fails if the log was replaced between two looks at it.
pub(crate) fn same_log(before: &Token, now: Option<&Token>) -> Result<(), Failure> {
    match now {
        Some(now) if now.log_id != before.log_id => Err(Failure::new(
            Exit::Refused,
            "the log of the gateway was replaced while it was read; begin again",
        )),
        _ => Ok(()),
    }
}

fn positions(token: &Token) -> u64 {
    token.iter().map(|(_, position)| position.get()).sum()
}
