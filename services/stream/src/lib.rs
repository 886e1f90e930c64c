//! The stream service: ordered, gap-free subscriptions at any speed.
//!
//! A subscriber is a cursor. [`hub`] holds the shared tail of the log in memory and hands what comes
//! in to the subscribers it matches; [`follower`] feeds it from the channel, which is a hint, and
//! from the storage, which is the truth; [`subscription`] reads the tail while it keeps up and the
//! storage while it does not. An event is encoded once, however many get it.

mod admission;
mod catchup;
#[cfg(feature = "faults")]
pub mod faults;
mod follower;
mod hub;
mod pieces;
mod selection;
mod service;
mod subscription;

pub use self::{
    admission::SubscriptionLimits,
    service::{Settings, StreamService},
};
