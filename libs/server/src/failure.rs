//! Why a service cannot be served.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::variables;

/// Why a service cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port is taken, or the address is not one of this machine.
    #[error("{variable}: cannot listen on {address} ({serves}): {problem}")]
    Bind {
        /// The variable that the address is from.
        variable: &'static str,
        /// The address.
        address: SocketAddr,
        /// What was to be served there.
        serves: &'static str,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The certificate or key cannot be used.
    #[error("{variable}: {} {problem}", path.display())]
    File {
        /// The variable that names the file.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The certificate and key are good, and cannot be used all the same.
    #[error("{}, {}: {cause}", variables::TLS_CERT_FILE.name, variables::TLS_KEY_FILE.name)]
    Tls {
        /// What is wrong with them.
        cause: String,
    },
    /// The descriptors of this build are damaged.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// Signals cannot be waited for.
    #[error("signals: {0}")]
    Signals(io::Error),
    /// A listener cannot be served.
    #[error("a listener: {0}")]
    Listener(io::Error),
    /// Something that the process cannot do without has ended.
    #[error("{0}; the log has more about it")]
    Failed(String),
}
