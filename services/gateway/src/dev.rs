//! `stategate dev`: command, query and stream service in one process, on this machine alone.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use stategate_command::CommandService;
use stategate_query::QueryService;
use stategate_runtime::{Config, Env, Process, Scope, Services, Source};
use stategate_server::{serve, variables};
use stategate_storage::{MemoryConfig, StorageConfig};
use stategate_stream::StreamService;
use url::Url;

use crate::{
    dev_auth::{self, Authority},
    prompt,
};

/// What tenants may do, and see.
const REQUEST_POLICY: &str =
    include_str!("../../../examples/policies/tenant-isolation/policy.rego");
const RESPONSE_POLICY: &str =
    include_str!("../../../examples/policies/tenant-isolation/response.rego");
/// How long the tokens live that are printed at the start.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

/// What `stategate dev` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
It serves this machine alone, without authentication unless told so. Everything else is set by environment
variables: docs/configuration.md.

With --auth it is the issuer of its own tokens, with a signing key beside its data, and each tenant (the claim
`tenant`) has the domain of its own name and no other: examples/policies/tenant-isolation, unless the environment
names policies. `stategate token` makes tokens.

Examples:
  stategate dev
  stategate dev --memory
  stategate dev --auth
  stategate dev --port 9000 --data /tmp/try.db
  stategate dev --reset --yes")]
pub(crate) struct Args {
    /// The port to listen on; metrics and health are on the next one (overrides STATEGATE_PORT)
    #[arg(long, value_name = "PORT", value_parser = port)]
    port: Option<u16>,
    /// The SQLite file to keep everything in (overrides STATEGATE_STORAGE_PROVIDER)
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Keep everything in memory: it is gone when the gateway ends
    #[arg(long, conflicts_with = "data")]
    memory: bool,
    /// Verify who calls, and keep tenants apart: makes a signing key and prints two tokens
    #[arg(long)]
    auth: bool,
    /// Begin with nothing: deletes the SQLite file with everything in it, after asking
    #[arg(long, conflicts_with = "memory")]
    reset: bool,
    /// Do not ask
    #[arg(long, requires = "reset")]
    yes: bool,
}

impl Args {
    /// An error that names what the user typed instead of the variable that it stands for.
    fn named(&self, mut error: serve::Error) -> serve::Error {
        if let serve::Error::Bind { variable, .. } = &mut error
            && self.port.is_some()
            && *variable == variables::PORT.name
        {
            *variable = "--port";
        }
        error
    }

    /// Where the signing key is.
    fn authority_directory(&self) -> anyhow::Result<PathBuf> {
        let storage = dev_auth::storage(self.data.as_deref(), self.memory, &Env::of_process())?;
        dev_auth::directory(&storage)
    }

    /// What to try without authentication.
    fn first_steps(&self) -> String {
        let program = program();
        format!(
            "\x20 {program} set acme user ada '{{\"name\": \"Ada\", \"logins\": 1}}'\n\
             \x20 {program} edit acme user ada '{{\"logins\": 2}}'\n\
             \x20 {program} history acme user ada\n\
             \x20 {program} watch --from beginning\n"
        )
    }

    /// What to try as two tenants, with a token of each.
    fn tenants(&self, authority: &Authority) -> anyhow::Result<String> {
        let program = program();
        let token = |sub: &str, tenant: &str| {
            let claims = [("sub", sub), ("tenant", tenant)];
            let claims = claims.map(|(name, value)| (name.to_owned(), value.into()));
            authority.token(claims.into_iter().collect(), TOKEN_LIFETIME)
        };
        let (alice, bob) = (token("alice", "acme")?, token("bob", "globex")?);
        let data = match (&self.data, self.memory) {
            (Some(path), _) => format!(" --data '{}'", path.display()),
            (None, true) => " --memory".to_owned(),
            (None, false) => String::new(),
        };
        Ok(format!(
            "\x20 export ALICE={alice}\n\
             \x20 export BOB={bob}\n\
             \x20 STATEGATE_TOKEN=$ALICE {program} set acme user ada '{{\"name\": \"Ada\"}}'\n\
             \x20 STATEGATE_TOKEN=$ALICE {program} history acme user ada\n\
             \x20 STATEGATE_TOKEN=$ALICE {program} watch --domain acme --from beginning\n\n\
             Bob is of another tenant, and is refused:\n\
             \x20 STATEGATE_TOKEN=$BOB {program} get acme user ada\n\
             \x20 STATEGATE_TOKEN=$BOB {program} search acme user\n\
             \x20 STATEGATE_TOKEN=$BOB {program} watch --domain acme\n\n\
             Tokens are for a day. This makes more:\n\
             \x20 {program} token{data} --sub carol --tenant acme --expires 1h\n"
        ))
    }

    /// Where the storage is said.
    fn source(&self) -> Source {
        match &self.data {
            Some(path) => Source::Option("--data", StorageConfig::sqlite(path.clone())),
            None if self.memory => {
                let memory = StorageConfig::Memory(MemoryConfig::default());
                Source::Option("--memory", memory)
            }
            None => Source::Variable,
        }
    }
}

/// As `STATEGATE_PORT` is read: the next port is needed too.
fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port < u16::MAX);
    port.ok_or_else(|| "a port is a number from 0 to 65534".to_owned())
}

/// Runs the gateway until it is told to stop.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let authority = match args.auth {
        true => Some(args.authority_directory()?),
        false => None,
    };
    let env = match &authority {
        Some(directory) => protected(std::env::vars_os(), directory)?,
        None => Env::of_process(),
    };
    let mut config = Config::read(
        &env,
        &[
            (
                &variables::AUTH_DISABLED,
                if args.auth { "false" } else { "true" },
            ),
            (&variables::REFLECTION, "true"),
            (&variables::HOST, "127.0.0.1"),
            (&variables::CHANNEL_PROVIDER, r#"{"name":"inmem"}"#),
        ],
    )?;
    loopback_only(config.host)?;
    config.port = args.port.unwrap_or(config.port);

    let configured = config.storage.parse()?;
    let source = args.source();
    let storage = match &source {
        Source::Option(_, storage) => storage.clone(),
        Source::Variable => configured,
    };
    if args.reset {
        reset(&storage, &args)?;
    }
    let kept = storage.location();
    // Before the process looks for its keys.
    let authority = authority.map(|directory| Authority::open_or_create(&directory));
    let authority = authority.transpose()?;
    let opened = Process::open_with_channel(config, source, Scope::WithinProcess);
    let (process, channel) = opened.await?;
    let (config, tasks) = (process.config(), process.tasks());
    let (storage, positions) = (process.storage(), process.positions());

    let command = CommandService::start(Arc::clone(&storage), &channel, &config.into(), tasks);
    let command = Arc::new(command.telling(Arc::clone(&positions)));
    let query = QueryService::new(Arc::clone(&storage), Arc::clone(&positions));
    let stream = StreamService::start(storage, channel, &config.into(), tasks);
    let stream = Arc::new(stream.sharing(positions));

    process.on_close("follower", {
        let stream = Arc::clone(&stream);
        async move { stream.finish().await }
    });
    process.on_close("lanes", {
        let command = Arc::clone(&command);
        async move { command.finish().await }
    });
    let services = Services {
        command: Some(command),
        query: Some(Arc::new(query)),
        stream: Some(stream),
        keys: authority.as_ref().map(|authority| authority.jwks().into()),
        ..Services::default()
    };
    let running = process.start(services).await;
    let running = running.map_err(|error| args.named(error))?;
    running.ready().await;
    let try_it = match &authority {
        Some(authority) => args.tenants(authority)?,
        None => args.first_steps(),
    };
    welcome(&running.addresses(), &kept, &try_it);
    Ok(running.ended().await?)
}

/// The environment of a gateway that verifies tokens of the issuer in this directory, and keeps tenants
/// apart unless the environment has policies of its own.
fn protected(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    directory: &Path,
) -> anyhow::Result<Env> {
    let mut all: BTreeMap<String, OsString> = environment
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    for variable in [
        &variables::JWKS_URI,
        &variables::OIDC_ISSUER,
        &variables::JWT_ISSUER,
        &variables::JWT_AUDIENCE,
    ] {
        if all.contains_key(variable.name) {
            let name = variable.name;
            anyhow::bail!(
                "{name} is set, and --auth has an issuer of its own; unset it, or leave --auth out and set {}=false",
                variables::AUTH_DISABLED.name
            );
        }
    }
    if let Some(value) = all.get(variables::AUTH_DISABLED.name)
        && value != "false"
    {
        let name = variables::AUTH_DISABLED.name;
        anyhow::bail!("{name} is set, and --auth turns authentication on; unset one of them");
    }
    let keys = std::path::absolute(dev_auth::keys_in(directory))?;
    let uri = Url::from_file_path(&keys)
        .map_err(|()| anyhow::anyhow!("{} is no path of a file", keys.display()))?;
    all.insert(variables::JWKS_URI.name.to_owned(), uri.to_string().into());
    let issuer = dev_auth::ISSUER.into();
    all.insert(variables::JWT_ISSUER.name.to_owned(), issuer);
    for (variable, files, policy) in [
        (
            &variables::REQUEST_POLICY,
            &variables::REQUEST_POLICY_FILE,
            REQUEST_POLICY,
        ),
        (
            &variables::RESPONSE_POLICY,
            &variables::RESPONSE_POLICY_FILE,
            RESPONSE_POLICY,
        ),
    ] {
        if !all.contains_key(variable.name) && !all.contains_key(files.name) {
            let encoded = STANDARD.encode(policy);
            all.insert(variable.name.to_owned(), encoded.into());
        }
    }
    Ok(Env::of(all))
}

/// Without authentication, whoever reaches the port may do everything; and with it, without TLS, whoever
/// sees a token on the way.
fn loopback_only(host: IpAddr) -> anyhow::Result<()> {
    if host.is_loopback() {
        return Ok(());
    }
    anyhow::bail!(
        "STATEGATE_HOST is {host}, and `stategate dev` serves this machine alone, for it runs without TLS; \
         unset it, or run stategate-command, stategate-query and stategate-stream"
    )
}

/// Deletes what a storage keeps, if the user agrees.
fn reset(storage: &StorageConfig, args: &Args) -> anyhow::Result<()> {
    let StorageConfig::Sqlite(config) = storage else {
        anyhow::bail!(
            "--reset deletes an SQLite file, and the data is kept elsewhere: {}",
            storage.location()
        );
    };
    if !config.path.exists() {
        return Ok(());
    }
    let name = config.path.display();
    if !args.yes {
        prompt::confirm(&format!("Delete {name} with its whole history?"))?;
    }
    // The log of the file's last changes first: left behind, it would be taken for the new file's.
    for ending in ["-wal", "-shm", ""] {
        let mut path = config.path.clone().into_os_string();
        path.push(ending);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = path.display();
                anyhow::bail!("--reset: {path} cannot be deleted: {}", error.kind());
            }
            _ => {}
        }
    }
    Ok(())
}

/// This program as it was called, so that lines that name it work where it is not on the PATH.
fn program() -> String {
    std::env::args().next().unwrap_or("stategate".to_owned())
}

fn welcome(addresses: &stategate_server::Addresses, kept: &str, try_it: &str) {
    let address = addresses.grpc;
    let elsewhere = if address.port() == 8080 {
        String::new()
    } else {
        format!("  export {}={address}\n", variables::ADDR.name)
    };
    // Whoever reads it may have left, and the gateway goes on.
    let _ = writeln!(
        io::stderr(),
        "\nstategate is listening on http://{address} (gRPC)\n\
         metrics and health: http://{admin}\n\
         data: {kept}\n\
         process: {process}\n\n\
         Try, in another terminal:\n\
         {elsewhere}\
         {try_it}\
         \x20 {program} help\n\n\
         Ctrl-C ends it.\n",
        admin = addresses.admin,
        process = std::process::id(),
        program = program(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(set: &[(&str, &str)]) -> anyhow::Result<Env> {
        let set = set.iter().map(|(name, value)| (name.into(), value.into()));
        protected(set, Path::new("a b%20#?/try.db.auth"))
    }

    fn read(set: &[(&str, &str)]) -> Result<Config, String> {
        let env = environment(set).map_err(|error| error.to_string())?;
        Config::read(&env, &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn the_gateway_verifies_tokens_of_its_own_issuer() {
        let protection = read(&[("STATEGATE_JWKS_URI", "")])
            .unwrap()
            .protection
            .unwrap();
        let tokens = &protection.tokens;
        let path = std::env::current_dir().unwrap();
        let path = path.join("a b%20#?/try.db.auth/jwks.json");
        assert_eq!(tokens.keys.source, stategate_auth::KeySource::File(path));
        assert_eq!(tokens.rules.issuers, ["stategate-dev"]);
        assert!(protection.policies.load().is_ok());
    }

    #[test]
    fn policies_of_the_environment_take_the_place_of_the_example() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("own.rego");
        fs::write(&file, "package stategate.authz\nallow := true\n").unwrap();
        let own = [("STATEGATE_REQUEST_POLICY_FILE", file.to_str().unwrap())];
        let protection = read(&own).unwrap().protection.unwrap();
        assert!(protection.policies.load().is_ok());
    }

    #[test]
    fn another_issuer_is_refused_by_name() {
        for (name, value) in [
            ("STATEGATE_JWKS_URI", "https://issuer.example/keys"),
            ("STATEGATE_OIDC_ISSUER", "https://issuer.example"),
            ("STATEGATE_JWT_ISSUER", "https://issuer.example"),
            ("STATEGATE_JWT_AUDIENCE", "stategate"),
            ("STATEGATE_AUTH_DISABLED", "true"),
        ] {
            let refused = environment(&[(name, value)]).unwrap_err().to_string();
            assert!(refused.starts_with(name), "{refused}");
        }
        assert!(environment(&[("STATEGATE_AUTH_DISABLED", "false")]).is_ok());
    }
}
