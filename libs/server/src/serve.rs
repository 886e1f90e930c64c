//! Both listeners, from binding to the last call.
//!
//! gRPC with health and reflection on one port, metrics and health over HTTP on the next. All limits
//! of the transport are in [`Limits`].

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use stategate_model::{limits::MESSAGE_BYTES, times};
use stategate_protocol::server::{
    entity_service_server::EntityServiceServer, event_service_server::EventServiceServer,
};
use tokio::{
    net::TcpListener,
    task::{JoinError, JoinHandle},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{self, Identity, ServerTlsConfig},
};
use tonic_health::{
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use crate::{
    AccessControl, Config, Drain, Grpc, Services, Telemetry,
    accept::connections,
    admission::AdmissionLayer,
    config::Tls,
    pem,
    readiness::Readiness,
    signals, telemetry,
    variables::{self, Variable},
};

/// What the transport allows.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; one more is closed at once.
    pub connections: usize,
    /// Calls and streams at once on one connection, announced to the client.
    pub connection_streams: u32,
    /// Unary calls at once over all connections; one more is RESOURCE_EXHAUSTED.
    pub calls: usize,
    /// Bytes of a request's metadata.
    pub header_bytes: u32,
    /// Bytes on their way in one stream, and on one connection: what a connection may make us hold
    /// of requests that nobody reads.
    pub stream_window: u32,
    /// As `stream_window`.
    pub connection_window: u32,
    /// Streams that a client opened and reset before they were looked at (CVE-2023-44487).
    pub pending_resets: usize,
    /// A connection that is silent for this long is asked whether it is alive …
    pub keepalive: Duration,
    /// … and closed if it does not answer within this.
    pub keepalive_answer: Duration,
    /// Time for a TLS handshake.
    pub handshake: Duration,
    /// Connections at once on the listener for metrics and health.
    pub admin_connections: usize,
}

impl Limits {
    /// The limits that a configuration sets; the others are constants.
    pub fn of(config: &Config) -> Self {
        Self {
            connections: config.max_connections,
            connection_streams: config.max_connection_streams,
            calls: config.max_calls,
            header_bytes: 32 << 10,
            stream_window: 1 << 20,
            connection_window: 2 << 20,
            pending_resets: 64,
            keepalive: Duration::from_secs(30),
            keepalive_answer: Duration::from_secs(20),
            handshake: Duration::from_secs(10),
            admin_connections: 64,
        }
    }
}

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

/// Binds both listeners and begins to serve, and has the process end at a signal. If that fails, the
/// process is told to end.
pub async fn start(
    config: &Config,
    services: Services,
    control: AccessControl,
    telemetry: &Telemetry,
    drain: &Drain,
) -> Result<Running, Error> {
    let started = async {
        signals::listen(drain).map_err(Error::Signals)?;
        let server = Server::bind(config).await?;
        server.start(services, control, telemetry, drain).await
    };
    let started = started.await;
    if started.is_err() {
        // What the services run ends with the process, and that is not their failure.
        drain.begin();
    }
    started
}

/// Listeners that are bound but not served yet.
#[derive(Debug)]
pub struct Server {
    grpc: TcpListener,
    admin: TcpListener,
    addresses: Addresses,
    tls: Option<ServerTlsConfig>,
    limits: Limits,
    /// Limits of values.
    values: stategate_model::Limits,
    /// Whether the API is described to whoever asks.
    reflection: bool,
    grace: Duration,
}

/// What the listeners are bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC.
    pub grpc: SocketAddr,
    /// Metrics and health over HTTP.
    pub admin: SocketAddr,
}

impl Server {
    /// Binds both listeners and reads the certificate.
    pub async fn bind(config: &Config) -> Result<Self, Error> {
        // rustls has no provider of its own when several are linked in. An error says that there is
        // one already, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let limits = Limits::of(config);
        let tls = match &config.tls {
            Some(tls) => Some(identity(tls)?.timeout(limits.handshake)),
            None => None,
        };
        // Port 65,535 is refused with the configuration, so there is a next one.
        let next = match config.port {
            0 => 0,
            port => port.saturating_add(1),
        };
        let grpc = bind(config, config.port, "gRPC").await?;
        let admin = bind(config, next, "metrics and health, on the next port").await?;
        let addresses = Addresses {
            grpc: local(&grpc)?,
            admin: local(&admin)?,
        };
        Ok(Self {
            grpc,
            admin,
            addresses,
            tls,
            limits,
            values: config.limits,
            reflection: config.reflection,
            grace: config.grace,
        })
    }

    /// What the listeners are bound to.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Begins to serve. Calls are answered from now on, but until [`Running::ready`] health says that
    /// they are not welcome.
    pub async fn start(
        self,
        services: Services,
        control: AccessControl,
        telemetry: &Telemetry,
        drain: &Drain,
    ) -> Result<Running, Error> {
        if control.is_open() {
            tracing::warn!(
                variable = variables::AUTH_DISABLED.name,
                "authentication is off: everyone who can reach the port may read and write everything"
            );
        }
        if services.command.is_some() && times::for_calls(self.grace) <= times::WRITE {
            tracing::warn!(
                variable = variables::GRACE_SECONDS.name,
                "a write tries to reach its storage for up to {:?}, and calls have {:?} to end in: a process that is \
                 told to end while the storage is away may leave callers without an answer",
                times::WRITE,
                times::for_calls(self.grace)
            );
        }
        let names = services.names();
        let readiness = Readiness::new(&services, drain).await;
        let ending = CancellationToken::new();
        let access = control.access();
        let admission = AdmissionLayer::new(self.limits.calls, &services, control, ending.clone());
        let calls = admission.methods();
        let keys = services.keys.clone();
        let adapter = Grpc::new(services, access, self.values);
        let grpc = self
            .transport()?
            .layer(admission)
            .add_routes(routes(adapter, readiness.reporter(), self.reflection)?)
            .serve_with_incoming_shutdown(
                connections(self.grpc, self.limits.connections, Arc::clone(&calls)),
                drain.token().cancelled_owned(),
            );

        let admin = transport::Server::builder()
            .accept_http1(true)
            .add_routes(telemetry::routes(telemetry.clone(), readiness.clone(), keys).into())
            .serve_with_incoming(connections(
                self.admin,
                self.limits.admin_connections,
                calls,
            ));
        Ok(Running {
            addresses: self.addresses,
            names,
            grace: self.grace,
            drain: drain.clone(),
            watch: readiness.watch(),
            readiness,
            ending,
            grpc: tokio::spawn(grpc),
            admin: tokio::spawn(admin),
        })
    }

    fn transport(&self) -> Result<transport::Server, Error> {
        let limits = &self.limits;
        let server = transport::Server::builder()
            .max_concurrent_streams(limits.connection_streams)
            .initial_stream_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .http2_max_header_list_size(limits.header_bytes)
            .http2_max_pending_accept_reset_streams(Some(limits.pending_resets))
            .http2_keepalive_interval(Some(limits.keepalive))
            .http2_keepalive_timeout(Some(limits.keepalive_answer));
        match &self.tls {
            Some(tls) => server.tls_config(tls.clone()).map_err(|error| Error::Tls {
                cause: std::error::Error::source(&error)
                    .map_or_else(|| error.to_string(), ToString::to_string),
            }),
            None => Ok(server),
        }
    }
}

async fn bind(config: &Config, port: u16, serves: &'static str) -> Result<TcpListener, Error> {
    let address = SocketAddr::new(config.host, port);
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| {
        let (variable, problem) = match error.kind() {
            io::ErrorKind::AddrInUse => (
                &variables::PORT,
                "the port is in use; set another one, or end what uses it".to_owned(),
            ),
            io::ErrorKind::AddrNotAvailable => (
                &variables::HOST,
                "this machine does not have the address; set one that it has, or 0.0.0.0 for all"
                    .to_owned(),
            ),
            io::ErrorKind::PermissionDenied => (
                &variables::PORT,
                "this user may not use the port; set one above 1023".to_owned(),
            ),
            _ => (&variables::PORT, format!("{error}; set another one")),
        };
        Error::Bind {
            variable: variable.name,
            address,
            serves,
            problem,
        }
    })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, Error> {
    let address = listener.local_addr();
    address.map_err(Error::Listener)
}

/// Reads the certificate and the key, and sees that they belong together.
fn identity(tls: &Tls) -> Result<ServerTlsConfig, Error> {
    let fault = |variable: &Variable, path: &Path, problem| Error::File {
        variable: variable.name,
        path: path.to_owned(),
        problem,
    };
    let of_certificate = |problem| fault(&variables::TLS_CERT_FILE, &tls.certificate, problem);
    let of_key = |problem| fault(&variables::TLS_KEY_FILE, &tls.key, problem);
    let certificate = pem::read(&tls.certificate).map_err(of_certificate)?;
    let key = pem::read(&tls.key).map_err(of_key)?;
    let certificates = pem::certificates(&certificate).map_err(of_certificate)?;
    let private_key = pem::key(&key).map_err(of_key)?;
    if !pem::is_pair(certificates, private_key) {
        return Err(of_key(format!(
            "is not the key of the first certificate in {}; name the two that belong together",
            tls.certificate.display()
        )));
    }
    Ok(ServerTlsConfig::new().identity(Identity::from_pem(certificate, key)))
}

/// Everything that is on the gRPC port.
fn routes(adapter: Grpc, health: HealthReporter, reflection: bool) -> Result<Routes, Error> {
    let health = HealthService::from_health_reporter(health);
    let entities = EntityServiceServer::new(adapter.clone());
    let events = EventServiceServer::new(adapter);
    let routes = Routes::default()
        .add_service(entities.max_decoding_message_size(MESSAGE_BYTES))
        .add_service(events.max_decoding_message_size(MESSAGE_BYTES))
        .add_service(HealthServer::new(health));
    if !reflection {
        return Ok(routes);
    }
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(stategate_protocol::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(routes
        .add_service(described().build_v1()?)
        .add_service(described().build_v1alpha()?))
}

/// A server at work.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    names: Vec<&'static str>,
    grace: Duration,
    drain: Drain,
    readiness: Readiness,
    watch: JoinHandle<()>,
    ending: CancellationToken,
    grpc: JoinHandle<Result<(), transport::Error>>,
    admin: JoinHandle<Result<(), transport::Error>>,
}

impl Running {
    /// What the listeners are bound to.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Calls are welcome from now on.
    pub async fn ready(&self) {
        if self.drain.has_begun() {
            return;
        }
        self.readiness.begin().await;
        let Addresses { grpc, admin } = self.addresses;
        tracing::info!(%grpc, %admin, services = self.names.join(","), "listening");
    }

    /// Waits until the process is told to end, then ends what is served: unready first, then no new
    /// connections, then every call to its end, then the closers of [`Drain`]. Takes no longer than
    /// the grace time from there. A failure, if the process ends because it cannot go on.
    pub async fn ended(mut self) -> Result<(), Error> {
        let told = self.drain.token();
        let mut grpc_ended = false;
        tokio::select! {
            () = told.cancelled() => {}
            end = &mut self.grpc => {
                grpc_ended = true;
                self.listener_ended("the listener for gRPC", &end);
            }
            end = &mut self.admin => self.listener_ended("the listener for metrics and health", &end),
        }
        let begun = Instant::now();
        self.readiness.tell().await;
        self.ending.cancel();
        // A fifth is kept for the closers, without which something acknowledged might be lost.
        let calls_until = begun + times::for_calls(self.grace);
        if !grpc_ended && timeout_at(calls_until, &mut self.grpc).await.is_err() {
            tracing::warn!("calls were under way at the end of the grace time");
        }
        self.drain.close(begun + self.grace).await;
        tracing::info!(took = ?begun.elapsed(), "ended");
        match self.drain.failure() {
            None => Ok(()),
            Some(failure) => Err(Error::Failed(failure)),
        }
    }

    /// Once told to end, a listener ends too, and may be seen to before the telling is.
    fn listener_ended(&self, which: &str, end: &Result<Result<(), transport::Error>, JoinError>) {
        if !self.drain.has_begun() {
            self.drain.fail(which, &format!("ended: {end:?}"));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The listener for metrics goes on to the last, and whoever drops a server rather than waiting
        // for its end wants its ports back.
        self.grpc.abort();
        self.admin.abort();
        self.watch.abort();
    }
}
