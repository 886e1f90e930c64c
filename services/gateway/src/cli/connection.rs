//! The way to a gateway: where it is, who asks, and whom to trust.

use std::{path::Path, path::PathBuf, time::Duration};

use stategate_client::{BearerToken, Builder, Client, Tls, TokenFile, sends_in_clear};
use stategate_server::{Env, config, pem, variables};

use super::{
    address::{self, Address},
    failure::Failure,
    when,
};

/// Keeps these apart from a command's own options.
const HEADING: &str = "Options of every command";

/// How a gateway is reached.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Connection {
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        help = format!(
            "The gateway's address: host:port, http://host:port or https://host:port [env: {}] [default: {}]",
            variables::ADDR.name,
            variables::ADDR.default
        ),
        value_parser = address::Reader
    )]
    addr: Option<Address>,
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
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        value_name = "FILE",
        help = format!(
            "The file with the bearer token, read again when it changes [env: {}, the token; {}, the file]",
            variables::TOKEN.name,
            variables::TOKEN_FILE.name
        )
    )]
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
    /// Send the token to another machine without TLS, where whoever sees it on the way can act as you
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        hide_short_help = true
    )]
    allow_token_in_clear: bool,
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        value_name = "FILE",
        help = format!(
            "The authority (PEM) that signed the gateway's certificate; else those this machine trusts [env: {}]",
            variables::CA_FILE.name
        ),
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
        self.builder_in(&Env::of_process())
    }

    /// What is not on the command line is in the environment, or has the default of the variable.
    fn builder_in(&self, env: &Env) -> Result<Builder, Failure> {
        let address = self.address(env)?;
        let mut builder = Client::builder(address.url())
            .deadline(self.timeout)
            .tls(self.tls(env, &address)?);
        let Some((from, bearer)) = self.bearer(env)? else {
            return Ok(builder);
        };
        if self.allow_token_in_clear {
            builder = builder.allow_token_in_clear();
        } else if sends_in_clear(address.url()) {
            return Err(Failure::usage(format!(
                "{from}: {address} is without TLS on another machine, and whoever sees the token on the way can act as you; \
                 give an address that begins with https://, or say --allow-token-in-clear if something else encrypts the way there"
            )));
        }
        Ok(match bearer {
            Bearer::Token(token) => builder.token_source(token),
            Bearer::File(file) => builder.token_source(file),
        })
    }

    fn address(&self, env: &Env) -> Result<Address, Failure> {
        if let Some(address) = &self.addr {
            return Ok(address.clone());
        }
        let text = text(env, &variables::ADDR)?.unwrap_or_default();
        text.parse().map_err(|problem: String| {
            Failure::usage(address::refusal(variables::ADDR.name, &problem))
        })
    }

    fn tls(&self, env: &Env, address: &Address) -> Result<Tls, Failure> {
        self.refuse_tls_without_effect(address)?;
        let mut tls = Tls::new();
        let of_environment =
            || config::file(env, &variables::CA_FILE).map(|path| (variables::CA_FILE.name, path));
        let authority = self.tls_ca.clone().map(|path| ("--tls-ca", path));
        // The variable may stand in the environment for other addresses.
        if let Some((from, path)) =
            authority.or_else(|| address.is_https().then(of_environment).flatten())
        {
            let pem = read(from, &path)?;
            pem::certificates(&pem).map_err(|problem| wrong(from, &path, &problem))?;
            tls = tls.authority(pem);
        }
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            tls = identity(tls, certificate, key)?;
        }
        if let Some(name) = &self.tls_name {
            if !pem::is_server_name(name) {
                return Err(Failure::usage(format!(
                    "--tls-name: {name:?} is no name of a host; give one such as gateway.example"
                )));
            }
            tls = tls.name(name);
        }
        Ok(tls)
    }

    /// Without TLS nobody is checked: who says whom to trust is told so.
    fn refuse_tls_without_effect(&self, address: &Address) -> Result<(), Failure> {
        if address.is_https() {
            return Ok(());
        }
        let given = [
            ("--tls-ca", self.tls_ca.is_some()),
            ("--tls-cert", self.tls_cert.is_some()),
            ("--tls-name", self.tls_name.is_some()),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            None => Ok(()),
            Some((option, _)) => Err(Failure::usage(format!(
                "{option} has no effect at {address}, which is without TLS; give an address that begins with https://"
            ))),
        }
    }

    /// The token, and what gave it: what stands on the command line before what is in the environment.
    fn bearer(&self, env: &Env) -> Result<Option<(&'static str, Bearer)>, Failure> {
        let of_environment = || {
            if let Some(text) = text(env, &variables::TOKEN)? {
                return token(variables::TOKEN.name, &text).map(Some);
            }
            let path = config::file(env, &variables::TOKEN_FILE);
            path.map(|path| of_file(variables::TOKEN_FILE.name, &path))
                .transpose()
        };
        match (&self.token, &self.token_file) {
            (Some(text), _) => token("--token", text).map(Some),
            (None, Some(path)) => of_file("--token-file", path).map(Some),
            (None, None) => of_environment(),
        }
    }
}

/// Where the token of calls is from.
#[derive(Debug)]
enum Bearer {
    Token(BearerToken),
    File(TokenFile),
}

fn text(env: &Env, variable: &variables::Variable) -> Result<Option<String>, Failure> {
    config::text(env, variable).map_err(|error| Failure::usage(error.to_string()))
}

/// Adds who this client is.
fn identity(tls: Tls, certificate: &Path, key: &Path) -> Result<Tls, Failure> {
    const CERTIFICATE: &str = "--tls-cert";
    const KEY: &str = "--tls-key";
    let (certificate_pem, key_pem) = (read(CERTIFICATE, certificate)?, read(KEY, key)?);
    let certificates = pem::certificates(&certificate_pem)
        .map_err(|problem| wrong(CERTIFICATE, certificate, &problem))?;
    let private_key = pem::key(&key_pem).map_err(|problem| wrong(KEY, key, &problem))?;
    if !pem::is_pair(certificates, private_key) {
        let problem = format!(
            "is not the key of the first certificate in {}; name the two that belong together",
            certificate.display()
        );
        return Err(wrong(KEY, key, &problem));
    }
    Ok(tls.identity(certificate_pem, key_pem))
}

fn of_file(option: &'static str, path: &Path) -> Result<(&'static str, Bearer), Failure> {
    let file = TokenFile::open(path)
        .map_err(|wrong| Failure::usage(format!("{option}: {}", wrong.problem)))?;
    Ok((option, Bearer::File(file)))
}

fn token(from: &'static str, text: &str) -> Result<(&'static str, Bearer), Failure> {
    let token = BearerToken::new(text)
        .map_err(|wrong| Failure::usage(format!("{from} {}", wrong.problem)))?;
    Ok((from, Bearer::Token(token)))
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    pem::read(path).map_err(|problem| wrong(option, path, &problem))
}

fn wrong(option: &str, path: &Path, problem: &str) -> Failure {
    Failure::usage(format!("{option}: {} {problem}", path.display()))
}

#[cfg(test)]
impl Connection {
    /// A gateway of a test.
    pub(crate) fn to(addr: &str) -> Self {
        Self {
            addr: Some(addr.parse().unwrap()),
            timeout: Duration::from_secs(5),
            token: None,
            token_file: None,
            allow_token_in_clear: false,
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
    use crate::cli::{failure::Exit, testing::Fake};

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
    fn what_is_no_token_is_refused_without_being_shown() {
        let refused = token("--token", "secret one\n").unwrap_err();
        let message = refused.message().unwrap();
        assert!(message.starts_with("--token has white space"), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }

    #[tokio::test]
    async fn a_token_goes_to_another_machine_with_tls_or_if_told_so() {
        let mut connection = Connection::to("http://gateway.example");
        let given = [(variables::TOKEN.name, "abc")];
        let refused = connection.builder_in(&Env::of(given)).unwrap_err();
        assert_eq!(refused.exit(), Exit::Usage);
        let message = refused.message().unwrap();
        assert!(
            message.starts_with("STATEGATE_TOKEN: http://gateway.example:8080 is without TLS"),
            "{message}"
        );
        assert!(message.contains("--allow-token-in-clear"), "{message}");
        assert!(connection.builder_in(&Env::default()).is_ok());
        assert!(
            Connection::to("https://gateway.example")
                .builder_in(&Env::of(given))
                .is_ok()
        );
        assert!(
            Connection::to("localhost")
                .builder_in(&Env::of(given))
                .is_ok()
        );
        connection.allow_token_in_clear = true;
        let built = connection.builder_in(&Env::of(given)).unwrap().build();
        assert!(built.is_ok(), "{built:?}");
    }

    #[test]
    fn a_variable_that_is_set_to_nothing_is_unset() {
        let connection = Connection {
            addr: None,
            ..Connection::to("localhost")
        };
        let nothing = [
            variables::ADDR,
            variables::TOKEN,
            variables::TOKEN_FILE,
            variables::CA_FILE,
        ]
        .map(|variable| (variable.name, ""));
        for env in [Env::default(), Env::of(nothing)] {
            let address = connection.address(&env).unwrap();
            assert_eq!(address.url(), variables::ADDR.default);
            assert!(connection.bearer(&env).unwrap().is_none());
            let https = "https://localhost".parse().unwrap();
            assert!(connection.tls(&env, &https).is_ok());
        }
        let env = Env::of([
            (variables::ADDR.name, "gateway.example:9000"),
            (variables::TOKEN.name, "abc"),
        ]);
        let address = connection.address(&env).unwrap();
        assert_eq!(address.url(), "http://gateway.example:9000");
        let (from, bearer) = connection.bearer(&env).unwrap().unwrap();
        assert_eq!(from, variables::TOKEN.name);
        assert!(
            matches!(bearer, Bearer::Token(token) if token == BearerToken::new("abc").unwrap())
        );
    }

    #[test]
    fn an_authority_of_the_environment_may_stand_there_for_other_addresses() {
        let connection = Connection::to("localhost");
        let env = Env::of([(variables::CA_FILE.name, "/nowhere/at/all")]);
        assert!(connection.builder_in(&env).is_ok());
        let refused = Connection::to("https://localhost").builder_in(&env);
        let refused = refused.unwrap_err();
        let message = refused.message().unwrap();
        assert!(message.starts_with("STATEGATE_CA_FILE: "), "{message}");
    }

    #[test]
    fn a_token_file_is_named_if_it_holds_none() {
        let env = Env::default();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut connection = Connection::to("localhost");
        for (path, why) in [
            (file.path(), "is empty"),
            (
                Path::new("/nowhere/at/all"),
                "does not exist; correct the path",
            ),
        ] {
            connection.token_file = Some(path.to_owned());
            let refused = connection.bearer(&env).unwrap_err();
            let expected = format!("--token-file: {} {why}", path.display());
            let message = refused.message().unwrap();
            assert!(message.starts_with(&expected), "{message}");
        }
        file.write_all(b"abc.def\n").unwrap();
        connection.token_file = Some(file.path().to_owned());
        let (from, bearer) = connection.bearer(&env).unwrap().unwrap();
        assert_eq!(from, "--token-file");
        assert!(matches!(bearer, Bearer::File(_)));
    }
}
