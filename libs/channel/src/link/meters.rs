//! What a link tells of itself: metrics, and whether it is up.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use stategate_metrics::{Counter, Gauge};

use super::frame::FrameError;
use crate::Reach;

/// The metrics of a link, and the state behind them.
pub(super) struct Meters {
    provider: &'static str,
    /// Messages handed to the broker, bare heads among them.
    pub(super) published: Counter,
    /// Messages of which only the head was kept.
    pub(super) dropped: Counter,
    /// Messages over the broker's limit, sent as a bare head.
    pub(super) oversize: Counter,
    /// Messages that a subscription did not read in time, and heard of as one `Lagged`.
    pub(super) unread: Counter,
    /// Messages that came.
    pub(super) received: Counter,
    /// Messages of another log.
    pub(super) strangers: Counter,
    /// Times the broker or driver said that it dropped something.
    pub(super) lagged: Counter,
    sending: Side,
    listening: Side,
}

/// Connections in one direction.
struct Side {
    wanted: AtomicUsize,
    there: AtomicUsize,
    connected: Gauge,
    reconnects: Counter,
}

impl Side {
    fn new(provider: &'static str, side: &'static str) -> Self {
        Self {
            wanted: AtomicUsize::new(0),
            there: AtomicUsize::new(0),
            connected: stategate_metrics::CHANNEL_CONNECTED.with([provider, side]),
            reconnects: stategate_metrics::CHANNEL_RECONNECTS.with([provider, side]),
        }
    }
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Into the broker.
    Out,
    /// Out of the broker.
    In,
}

impl Meters {
    pub(super) fn new(provider: &'static str) -> Self {
        Self {
            provider,
            published: stategate_metrics::CHANNEL_PUBLISHED.with([provider]),
            dropped: stategate_metrics::CHANNEL_DROPPED.with([provider]),
            oversize: stategate_metrics::CHANNEL_OVERSIZE.with([provider]),
            unread: stategate_metrics::CHANNEL_UNREAD.with([provider]),
            received: stategate_metrics::CHANNEL_RECEIVED.with([provider]),
            strangers: stategate_metrics::CHANNEL_REFUSED_FRAMES.with([provider, "another_log"]),
            lagged: stategate_metrics::CHANNEL_LAGGED.with([provider]),
            sending: Side::new(provider, "send"),
            listening: Side::new(provider, "receive"),
        }
    }

    /// Counts a frame that was not believed.
    pub(super) fn refused(&self, refused: FrameError) {
        stategate_metrics::CHANNEL_REFUSED_FRAMES
            .with([self.provider, refused.reason()])
            .increment(1);
    }

    fn side(&self, way: Way) -> &Side {
        match way {
            Way::Out => &self.sending,
            Way::In => &self.listening,
        }
    }

    /// Whether every connection that is wanted is there.
    pub(super) fn reach(&self) -> Reach {
        let mut reach = Reach::Untried;
        for side in [&self.sending, &self.listening] {
            let wanted = side.wanted.load(Ordering::Relaxed);
            if side.there.load(Ordering::Relaxed) < wanted {
                return Reach::Down;
            }
            if wanted > 0 {
                reach = Reach::Up;
            }
        }
        reach
    }
}

/// A connection that is wanted, until it is dropped.
pub(super) struct ConnectionMeter {
    meters: Arc<Meters>,
    way: Way,
    is_there: bool,
    was_there: bool,
}

impl ConnectionMeter {
    pub(super) fn new(meters: Arc<Meters>, way: Way) -> Self {
        meters.side(way).wanted.fetch_add(1, Ordering::Relaxed);
        Self {
            meters,
            way,
            is_there: false,
            was_there: false,
        }
    }

    /// It is there.
    pub(super) fn connected(&mut self) {
        let provider = self.meters.provider;
        if std::mem::replace(&mut self.was_there, true) {
            self.meters.side(self.way).reconnects.increment(1);
            tracing::info!(provider, way = ?self.way, "the channel is back");
        }
        self.set(true);
    }

    /// It is not, and why; said in the log once.
    pub(super) fn lost(&mut self, why: &super::CarrierError) {
        let provider = self.meters.provider;
        if self.is_there || !self.was_there {
            tracing::warn!(provider, way = ?self.way, error = %why, "the channel is away; streams read the log meanwhile");
        }
        // From now on it is a matter of coming back.
        self.was_there = true;
        self.set(false);
    }

    fn set(&mut self, is_there: bool) {
        let side = self.meters.side(self.way);
        match (self.is_there, is_there) {
            (false, true) => {
                side.there.fetch_add(1, Ordering::Relaxed);
                side.connected.increment(1.0);
            }
            (true, false) => {
                side.there.fetch_sub(1, Ordering::Relaxed);
                side.connected.decrement(1.0);
            }
            _ => {}
        }
        self.is_there = is_there;
    }
}

impl Drop for ConnectionMeter {
    fn drop(&mut self) {
        self.set(false);
        let side = self.meters.side(self.way);
        side.wanted.fetch_sub(1, Ordering::Relaxed);
    }
}
