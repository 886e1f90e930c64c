//! What is sent to a server and received from it: the data, the requests, the callers that send them at a
//! full or a given rate, and the subscribers.

mod connections;
mod dataset;
mod filtered;
mod load;
mod requests;
mod subscribers;

pub(crate) use self::{
    connections::Connections,
    dataset::{DOMAIN, EntityGenerator, LAST_ORDER, ORDERS, PRODUCTS, product_key, sample_event},
    filtered::FilteredSubscribers,
    load::{
        AcknowledgedWrite, Throughput, callers, full_load, position, set_at_rate, write_limited,
    },
    requests::{Get, Search, Set, Transact, write_products},
    subscribers::{
        IdleSubscribers, PositionCheck, RecordingSubscriber, Subscribers, connections_for, replay,
    },
};
