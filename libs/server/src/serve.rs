//! Both listeners, from binding to the last call.
//!
//! gRPC with health and reflection on one port, metrics and health over HTTP on the next. All limits
//! are in [`Limits`].

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

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
use tonic::service::Routes;
use tonic_health::{
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use tower::Layer as _;

pub use crate::failure::Error;
use crate::{
    AccessControl, Config, Drain, Grpc, Limits, Services, Telemetry,
    accept::{Door, Listening},
    admission::AdmissionLayer,
    answers::Budget,
    readiness::Readiness,
    signals, tasks, telemetry,
    tls::{Identity, Reloader},
    variables,
};

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
    tls: Option<(Identity, Reloader)>,
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
        let tls = match &config.tls {
            Some(tls) => Some(Identity::load(tls.clone())?),
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
            limits: Limits::of(config),
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
        let routes = routes(adapter, readiness.reporter(), self.reflection)?.prepare();
        let (tls, reload) = self.tls.unzip();
        let budget = Budget::new(&self.limits);
        let watched = Arc::clone(&budget);
        let grpc = Listening {
            door: Door::Api,
            listener: self.grpc,
            tls,
            limits: self.limits.clone(),
            budget: Arc::clone(&budget),
            calls: Arc::clone(&calls),
            service: admission.layer(routes),
        };
        let admin = Listening {
            door: Door::Admin,
            listener: self.admin,
            tls: None,
            limits: self.limits,
            budget,
            calls,
            service: telemetry::routes(telemetry.clone(), readiness.clone(), keys),
        };
        let mut watches = vec![
            readiness.watch(),
            tasks::restarted("the watch over answers", move || {
                Arc::clone(&watched).watch()
            }),
        ];
        if let Some(reload) = reload {
            let reload = move || reload.clone().run();
            watches.push(tasks::restarted("the reload of TLS files", reload));
        }
        Ok(Running {
            addresses: self.addresses,
            names,
            grace: self.grace,
            drain: drain.clone(),
            watches,
            readiness,
            ending,
            grpc: tokio::spawn(grpc.serve(drain.token())),
            // To the last, for whoever wants to see the end.
            admin: tokio::spawn(admin.serve(CancellationToken::new())),
        })
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
    watches: Vec<JoinHandle<()>>,
    ending: CancellationToken,
    grpc: JoinHandle<()>,
    admin: JoinHandle<()>,
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
    fn listener_ended(&self, which: &str, end: &Result<(), JoinError>) {
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
        for watch in &self.watches {
            watch.abort();
        }
    }
}
