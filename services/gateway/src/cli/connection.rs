//! The way to a gateway: where it is, who asks, and whom to trust.

use std::{env, fs, path::Path, path::PathBuf, time::Duration};

use stategate_client::{Builder, Client, Tls};

use super::{address::Address, failure::Failure, when};

/// Keeps these apart from a command's own options.
const HEADING: &str = "Options of every command";

/// How a gateway is reached.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Connection {
    /// The gateway's address: host:port, http://host:port or https://host:port
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        env = "STATEGATE_ADDR",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) addr: Address,
    /// How long a call may take, retries included: 10s, 500ms, 2m
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        value_name = "TIME",
        default_value = "10s",
        value_parser = when::length
    )]
    pub(crate) timeout: Duration,
    /// The file with the bearer token [env: STATEGATE_TOKEN, the token; STATEGATE_TOKEN_FILE, the file]
    #[arg(long, global = true, help_heading = HEADING, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The bearer token itself; other users of this machine can see it in the list of processes
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        value_name = "TOKEN",
        conflicts_with = "token_file",
        hide_short_help = true
    )]
    token: Option<String>,
    /// The authority (PEM) that signed the gateway's certificate; else those this machine trusts
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        value_name = "FILE",
        env = "STATEGATE_CA_FILE",
        hide_env_values = true,
        hide_short_help = true
    )]
    tls_ca: Option<PathBuf>,
    /// The certificate (PEM) to show to a gateway that asks for one
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        value_name = "FILE",
        requires = "tls_key",
        hide_short_help = true
    )]
    tls_cert: Option<PathBuf>,
    /// The private key (PEM) of that certificate
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        value_name = "FILE",
        requires = "tls_cert",
        hide_short_help = true
    )]
    tls_key: Option<PathBuf>,
    /// The name in the gateway's certificate, where it is not the host of its address
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        value_name = "NAME",
        hide_short_help = true
    )]
    tls_name: Option<String>,
}

impl Connection {
    /// Connects, so that a gateway which is not there is known before anything else is done.
    pub(crate) async fn open(&self) -> Result<Client, Failure> {
        Ok(self.builder()?.open().await?)
    }

    /// A client in the making.
    pub(crate) fn builder(&self) -> Result<Builder, Failure> {
        let mut builder = Client::builder(self.addr.url())
            .deadline(self.timeout)
            .tls(self.tls()?);
        if let Some(token) = self.bearer()? {
            builder = builder.token(token);
        }
        Ok(builder)
    }

    fn tls(&self) -> Result<Tls, Failure> {
        let mut tls = Tls::new();
        if let Some(path) = &self.tls_ca {
            tls = tls.authority(read("--tls-ca", path)?);
        }
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            tls = tls.identity(read("--tls-cert", certificate)?, read("--tls-key", key)?);
        }
        if let Some(name) = &self.tls_name {
            tls = tls.name(name);
        }
        Ok(tls)
    }

    /// The token: what stands on the command line before what is in the environment.
    fn bearer(&self) -> Result<Option<String>, Failure> {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(path)) => Some(of_file("--token-file", path)?),
            (None, None) => match variable("STATEGATE_TOKEN") {
                Some(token) => Some(token),
                None => variable("STATEGATE_TOKEN_FILE")
                    .map(|path| of_file("STATEGATE_TOKEN_FILE", Path::new(&path)))
                    .transpose()?,
            },
        };
        Ok(token.map(|token| token.trim().to_owned()))
    }
}

fn of_file(option: &str, path: &Path) -> Result<String, Failure> {
    String::from_utf8(read(option, path)?)
        .map_err(|_| Failure::usage(format!("{option}: {} is not text", path.display())))
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| {
        Failure::usage(format!("{option}: cannot read {}: {error}", path.display()))
    })
}

#[cfg(test)]
impl Connection {
    /// A gateway of a test.
    pub(crate) fn to(addr: &str) -> Self {
        Self {
            addr: addr.parse().unwrap(),
            timeout: Duration::from_secs(5),
            token: None,
            token_file: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            tls_name: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use stategate_client::{EntityRef, Value};

    use super::*;
    use crate::cli::testing::Fake;

    #[tokio::test]
    async fn every_call_has_the_token() {
        let fake = Fake::default();
        let mut connection = fake.start().await;
        connection.token = Some("abc.def".to_owned());
        let client = connection.open().await.unwrap();
        let entity = EntityRef::new("d", "t", "k").unwrap();
        client
            .set(&entity, Value::Object(Default::default()))
            .await
            .unwrap();
        assert_eq!(fake.0.lock().unwrap().authorizations, ["Bearer abc.def"]);
    }

    #[test]
    fn a_token_file_may_end_in_a_line_break() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"abc.def\n").unwrap();
        let mut connection = Connection::to("localhost");
        connection.token_file = Some(file.path().to_owned());
        assert_eq!(connection.bearer().unwrap().as_deref(), Some("abc.def"));
        connection.token_file = Some("/nowhere/at/all".into());
        let refused = connection.bearer().unwrap_err();
        assert!(refused.message().unwrap().contains("--token-file"));
    }
}
