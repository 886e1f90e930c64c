//! `stategate dev`: command, query and stream service in one process, on this machine alone.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use stategate_channel::{ChannelConfig, Key, Log};
use stategate_command::CommandService;
use stategate_query::QueryService;
use stategate_server::{Config, Drain, Env, Server, Services, Telemetry, variables};
use stategate_storage::StorageConfig;
use stategate_stream::StreamService;

/// What `stategate dev` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The port to listen on; metrics and health are on the next one (overrides STATEGATE_PORT)
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// The SQLite file to keep everything in (overrides STATEGATE_STORAGE_PROVIDER)
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
}

/// Runs the gateway until it is told to stop.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut config = Config::read(
        &Env::of_process(),
        &[
            (&variables::AUTH_DISABLED, "true"),
            (&variables::HOST, "127.0.0.1"),
            (&variables::CHANNEL_PROVIDER, r#"{"name":"inmem"}"#),
        ],
    )?;
    loopback_only(config.host)?;
    config.port = args.port.unwrap_or(config.port);
    let telemetry = Telemetry::install(config.debug)?;
    let drain = Drain::new();

    let mut storage: StorageConfig = config.storage.parse()?;
    if let Some(path) = args.data {
        storage = StorageConfig::sqlite(path);
    }
    let kept = storage.location();
    let storage = stategate_storage::open(&storage).await?;
    let log = Log {
        log_id: storage.info().log_id,
        heads: Arc::new(stategate_storage::heads_of(&storage)),
    };
    let key = config
        .channel_key
        .as_ref()
        .map(|key| Key::new(key.expose()));
    let channel = config.channel.parse::<ChannelConfig>()?;
    let channel = stategate_channel::open(&channel, log, key).await?;
    let command = Arc::new(CommandService::start(
        Arc::clone(&storage),
        &channel,
        &(&config).into(),
    ));
    let query = Arc::new(QueryService::new(Arc::clone(&storage)));
    let stream = Arc::new(StreamService::start(
        Arc::clone(&storage),
        Arc::clone(&channel),
        &(&config).into(),
        drain.token(),
    ));

    drain.on_close("storage", async move { storage.close().await });
    drain.on_close("channel", async move { channel.close().await });
    drain.on_close("follower", {
        let stream = Arc::clone(&stream);
        async move { stream.finish().await }
    });
    drain.on_close("lanes", {
        let command = Arc::clone(&command);
        async move { command.finish().await }
    });

    drain.on_signals()?;
    let services = Services {
        command: Some(command),
        query: Some(query),
        stream: Some(stream),
    };
    let running = Server::bind(&config)
        .await?
        .start(services, &telemetry, &drain)
        .await?;
    running.ready().await;
    welcome(&running.addresses(), &kept);
    Ok(running.ended().await?)
}

/// Without authentication, whoever reaches the port may do everything.
fn loopback_only(host: IpAddr) -> anyhow::Result<()> {
    if host.is_loopback() {
        return Ok(());
    }
    anyhow::bail!(
        "STATEGATE_HOST is {host}, and `stategate dev` serves this machine alone, for it runs without authentication; \
         unset it, or run stategate-command, stategate-query and stategate-stream"
    )
}

fn welcome(addresses: &stategate_server::Addresses, kept: &str) {
    let address = addresses.grpc;
    // As it was called, so that the lines work where it is not on the PATH.
    let program = std::env::args().next().unwrap_or("stategate".to_owned());
    let elsewhere = if address.port() == 8080 {
        String::new()
    } else {
        format!(" --addr {address}")
    };
    eprintln!(
        "\nstategate is listening on http://{address} (gRPC) and http://{admin} (metrics, health)\n\
         data: {kept}\n\
         process: {process}\n\n\
         Try, in another terminal:\n\
         \x20 {program}{elsewhere} set acme user ada '{{\"name\": \"Ada\", \"logins\": 1}}'\n\
         \x20 {program}{elsewhere} get acme user ada\n\
         \x20 {program}{elsewhere} watch --domain acme --from beginning\n\n\
         Ctrl-C ends it; nothing acknowledged is lost.\n",
        admin = addresses.admin,
        process = std::process::id(),
    );
}
