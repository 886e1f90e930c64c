//! The floors that need no storage: what gRPC and what a sync of the disk cost by themselves. The floors
//! of the storage are in `storage`.

mod disk;
mod echo;

pub(crate) use self::{
    disk::sync_latency,
    echo::{serve, start_echo_server},
};
