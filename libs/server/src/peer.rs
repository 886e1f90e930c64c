//! Who is at the other end of a connection.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// The other end of the connection that a call came by, among the extensions of its request.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "admission reads them")]
pub(crate) struct Peer {
    /// Its address: that of the client, or of the last proxy before this process. An IPv4 address is one whatever the
    /// listener is bound to.
    pub(crate) address: SocketAddr,
    /// The subject of the certificate that it showed and that was verified, as RFC 4514 writes it.
    pub(crate) certificate_subject: Option<Arc<str>>,
}

impl Peer {
    /// The other end of a new connection.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let ip: IpAddr = address.ip().to_canonical();
        Self {
            address: SocketAddr::new(ip, address.port()),
            certificate_subject: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_one_on_a_listener_for_both() {
        let peer = |address: &str| Peer::new(address.parse().unwrap()).address.to_string();
        assert_eq!(peer("[::ffff:192.0.2.7]:443"), "192.0.2.7:443");
        assert_eq!(peer("[2001:db8::7]:443"), "[2001:db8::7]:443");
    }
}
