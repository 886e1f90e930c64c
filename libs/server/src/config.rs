//! The configuration of a service: the environment, read against the table of variables.
//!
//! Everything wrong is reported at once, each with the variable, what was wrong and what to do.
//! Values of secrets and of providers' settings, which hold passwords, appear nowhere.

mod access;

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use serde::de::DeserializeOwned;
use stategate_model::limits::Limits;

pub use self::access::{Protected, RateSettings};
use crate::{
    env::Env,
    variables::{self, Takes, Variable},
};

/// What a service is configured with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address both listeners bind.
    pub host: IpAddr,
    /// The port of gRPC; metrics and health are on the next one. 0: any two free ports.
    pub port: u16,
    /// Who may do what; `None`: everybody everything.
    pub protection: Option<Protected>,
    /// Whether the API is described to whoever asks.
    pub reflection: bool,
    /// The certificate and key of gRPC.
    pub tls: Option<Tls>,
    /// The storage's settings: `config.storage.parse::<StorageConfig>()`.
    pub storage: Provider,
    /// The channel's settings: `config.channel.parse::<ChannelConfig>()`.
    pub channel: Provider,
    /// What channel messages are authenticated with.
    pub channel_key: Option<Secret>,
    /// How often lane heads are read.
    pub heads_interval: Duration,
    /// Bounds on inputs that an operator may change.
    pub limits: Limits,
    /// Most connections.
    pub max_connections: usize,
    /// When a client is told to make a new connection.
    pub max_connection_age: Option<Duration>,
    /// How long from there what is under way may take.
    pub max_connection_age_grace: Option<Duration>,
    /// Most calls and streams on one connection.
    pub max_connection_streams: u32,
    /// Most calls, without streams.
    pub max_calls: usize,
    /// Most bytes of answers that one connection's client has not taken.
    pub connection_answer_bytes: usize,
    /// The same over all connections.
    pub answer_bytes: usize,
    /// Most writes that wait for one lane.
    pub max_queued_writes: usize,
    /// Most streams.
    pub max_subscribers: usize,
    /// Most streams of one caller.
    pub max_caller_subscribers: usize,
    /// Memory for the newest events.
    pub tail_bytes: usize,
    /// Memory of all subscribers that catch up.
    pub catchup_bytes: usize,
    /// Log more.
    pub debug: bool,
    /// From the signal to the end of the process.
    pub grace: Duration,
}

/// Where the certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The chain, in PEM.
    pub certificate: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
    /// What clients have to show, if anything.
    pub clients: Option<ClientCertificates>,
}

/// Certificates of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The authorities that sign them, in PEM.
    pub authorities: PathBuf,
    /// Whether every client has to show one.
    pub are_required: bool,
}

impl Config {
    /// Reads a service's configuration. `defaults` take the place of the table's.
    pub fn read(env: &Env, defaults: &[(&Variable, &'static str)]) -> Result<Self, Error> {
        let mut read = Reader {
            env,
            defaults,
            faults: Vec::new(),
        };
        read.refuse_unknown();
        let config = Self {
            host: read.address(&variables::HOST),
            port: u16::try_from(read.number(&variables::PORT)).unwrap_or_default(),
            protection: read.protection(),
            reflection: read.flag(&variables::REFLECTION),
            tls: read.tls(),
            storage: read.provider(&variables::STORAGE_PROVIDER),
            channel: read.provider(&variables::CHANNEL_PROVIDER),
            channel_key: read.channel_key(),
            heads_interval: read.millis(&variables::HEADS_INTERVAL_MS),
            limits: Limits {
                value_bytes: read.size(&variables::MAX_VALUE_BYTES),
            },
            max_connections: read.size(&variables::MAX_CONNECTIONS),
            max_connection_age: read.seconds_or_none(&variables::MAX_CONNECTION_AGE_SECONDS),
            max_connection_age_grace: read
                .seconds_or_none(&variables::MAX_CONNECTION_AGE_GRACE_SECONDS),
            max_connection_streams: u32::try_from(read.number(&variables::MAX_CONNECTION_STREAMS))
                .unwrap_or(u32::MAX),
            max_calls: read.size(&variables::MAX_CALLS),
            connection_answer_bytes: read.size(&variables::CONNECTION_ANSWER_BYTES),
            answer_bytes: read.size(&variables::ANSWER_BYTES),
            max_queued_writes: read.size(&variables::MAX_QUEUED_WRITES),
            max_subscribers: read.size(&variables::MAX_SUBSCRIBERS),
            max_caller_subscribers: read.size(&variables::MAX_CALLER_SUBSCRIBERS),
            tail_bytes: read.size(&variables::TAIL_BYTES),
            catchup_bytes: read.size(&variables::CATCHUP_BYTES),
            debug: read.flag(&variables::DEBUG),
            grace: Duration::from_secs(read.number(&variables::GRACE_SECONDS)),
        };
        match read.faults.is_empty() {
            true => Ok(config),
            false => Err(Error(read.faults)),
        }
    }
}

/// The value of a variable as it stands, or the table's default: for whoever needs a few variables and no
/// service's configuration.
pub fn text(env: &Env, variable: &Variable) -> Result<Option<String>, Error> {
    let default = Some(variable.default).filter(|default| !default.is_empty());
    Ok(set(env, variable)?.or_else(|| default.map(ToOwned::to_owned)))
}

/// The file that a variable names, if it is set. The name of a file need not be text.
pub fn file(env: &Env, variable: &Variable) -> Option<PathBuf> {
    env.get(variable.name).map(PathBuf::from)
}

/// The value that a variable is set to.
fn set(env: &Env, variable: &Variable) -> Result<Option<String>, Error> {
    let Some(value) = env.get(variable.name) else {
        return Ok(None);
    };
    match value.to_str() {
        Some(value) => Ok(Some(value.to_owned())),
        None => Err(Error::of(variable, "is not UTF-8; set it to text")),
    }
}

struct Reader<'a> {
    env: &'a Env,
    defaults: &'a [(&'a Variable, &'static str)],
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, variable: &str, problem: impl Into<String>) {
        self.faults.push(Fault {
            variable: variable.to_owned(),
            problem: problem.into(),
        });
    }

    fn refuse_unknown(&mut self) {
        let unknown = |name: &&str| variables::all().all(|known| known.name != *name);
        for name in self.env.names().filter(unknown) {
            let hint = match variables::nearest(name) {
                Some(near) => format!("did you mean {}?", near.name),
                None => "docs/configuration.md has the ones there are; unset it".to_owned(),
            };
            self.fault(name, format!("is no variable of stategate; {hint}"));
        }
    }

    /// The value as it stands, or the default.
    fn text(&mut self, variable: &Variable) -> Option<String> {
        match set(self.env, variable) {
            Ok(Some(value)) => return Some(value),
            Ok(None) => {}
            Err(Error(faults)) => self.faults.extend(faults),
        }
        let default = self.default(variable);
        (!default.is_empty()).then(|| default.to_owned())
    }

    fn default(&self, variable: &Variable) -> &'static str {
        let instead = self.defaults.iter().find(|(v, _)| *v == variable);
        instead.map_or(variable.default, |(_, default)| default)
    }

    fn expected(&mut self, variable: &Variable, value: &str) {
        let or_unset = match self.default(variable) {
            "" => "or unset it".to_owned(),
            default => format!("or unset it for {default}"),
        };
        let problem = format!("{value:?} is not {}; correct it {or_unset}", variable.takes);
        self.fault(variable.name, problem);
    }

    fn flag(&mut self, variable: &Variable) -> bool {
        let value = self.text(variable).unwrap_or_default();
        match value.to_ascii_lowercase().as_str() {
            "true" | "1" => true,
            "false" | "0" => false,
            _ => {
                self.expected(variable, &value);
                false
            }
        }
    }

    fn number(&mut self, variable: &Variable) -> u64 {
        let value = self.text(variable).unwrap_or_default();
        let (min, max) = match variable.takes {
            Takes::Number { min, max } => (min, max),
            _ => (0, u64::MAX),
        };
        match value.parse() {
            Ok(number) if (min..=max).contains(&number) => number,
            _ => {
                self.expected(variable, &value);
                min
            }
        }
    }

    fn size(&mut self, variable: &Variable) -> usize {
        usize::try_from(self.number(variable)).unwrap_or(usize::MAX)
    }

    fn millis(&mut self, variable: &Variable) -> Duration {
        Duration::from_millis(self.number(variable))
    }

    /// `None` for 0.
    fn seconds_or_none(&mut self, variable: &Variable) -> Option<Duration> {
        let seconds = self.number(variable);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// One of the words that a variable takes, the first if it is none of them.
    fn word(&mut self, variable: &Variable) -> &'static str {
        let value = self.text(variable).unwrap_or_default();
        let Takes::Word(words) = variable.takes else {
            return "";
        };
        match words.iter().find(|word| **word == value) {
            Some(word) => word,
            None => {
                self.expected(variable, &value);
                words.first().copied().unwrap_or_default()
            }
        }
    }

    fn address(&mut self, variable: &Variable) -> IpAddr {
        let value = self.text(variable).unwrap_or_default();
        value.parse().unwrap_or_else(|_| {
            self.expected(variable, &value);
            IpAddr::from([127, 0, 0, 1])
        })
    }

    fn tls(&mut self) -> Option<Tls> {
        let (cert, key) = (&variables::TLS_CERT_FILE, &variables::TLS_KEY_FILE);
        let clients = self.client_certificates();
        match (self.text(cert), self.text(key)) {
            (Some(certificate), Some(key)) => Some(Tls {
                certificate: certificate.into(),
                key: key.into(),
                clients,
            }),
            (None, None) => {
                if clients.is_some() {
                    self.fault(
                        variables::TLS_CLIENT_CA_FILE.name,
                        format!(
                            "is set, but the server has no certificate, and without TLS no client shows one; set {} and {}",
                            cert.name, key.name
                        ),
                    );
                }
                None
            }
            (Some(_), None) => {
                self.fault(key.name, "is not set, but the certificate is; set both");
                None
            }
            (None, Some(_)) => {
                self.fault(cert.name, "is not set, but the key is; set both");
                None
            }
        }
    }

    fn client_certificates(&mut self) -> Option<ClientCertificates> {
        let (authorities, wanted) = (&variables::TLS_CLIENT_CA_FILE, &variables::TLS_CLIENT_CERT);
        let is_set = self.env.get(wanted.name).is_some();
        let are_required = self.word(wanted) == "required";
        match self.text(authorities) {
            Some(authorities) => Some(ClientCertificates {
                authorities: authorities.into(),
                are_required,
            }),
            None => {
                if is_set {
                    self.fault(
                        wanted.name,
                        format!(
                            "is set, but {} is not, so that no client certificate is asked for; set it too, or unset both",
                            authorities.name
                        ),
                    );
                }
                None
            }
        }
    }

    fn channel_key(&mut self) -> Option<Secret> {
        let key = self.text(&variables::CHANNEL_KEY)?;
        if key.len() < CHANNEL_KEY_BYTES {
            self.fault(
                variables::CHANNEL_KEY.name,
                format!("is shorter than {CHANNEL_KEY_BYTES} bytes; set a longer one"),
            );
        }
        Some(Secret(key))
    }

    fn provider(&mut self, variable: &'static Variable) -> Provider {
        let provider = Provider {
            variable,
            json: self.text(variable).unwrap_or_default(),
        };
        // The rest is the provider's to judge; this much is said with everything else that is wrong.
        match provider.parse::<serde_json::Map<_, _>>() {
            Err(Error(faults)) => self.faults.extend(faults),
            Ok(fields) if fields.get("name").is_some_and(|name| name.is_string()) => {}
            Ok(_) => self.fault(
                variable.name,
                "has no \"name\"; it says which provider to use",
            ),
        }
        provider
    }
}

/// Shortest [`variables::CHANNEL_KEY`]: what HMAC-SHA-256 is worth using with.
const CHANNEL_KEY_BYTES: usize = 16;

/// A provider's settings as they were given. They may hold passwords, so they are not in `Debug`.
#[derive(Clone)]
pub struct Provider {
    variable: &'static Variable,
    json: String,
}

impl Provider {
    /// The settings as the provider's own type. It refuses what it does not know; what it says of it
    /// is repeated without the values.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(&self.json)
            .map_err(|error| Error::of(self.variable, self.in_words::<T>(&error)))
    }

    /// The provider cannot be used as it is configured: what is wrong, and what to do.
    pub fn unusable(&self, reason: impl fmt::Display) -> Error {
        Error::of(self.variable, format!("cannot be used: {reason}"))
    }

    fn in_words<T: DeserializeOwned>(&self, error: &serde_json::Error) -> String {
        if !error.is_data() {
            return format!(
                "is not JSON (line {}, column {}); it looks like {}",
                error.line(),
                error.column(),
                self.variable.default
            );
        }
        let text = without_value(error);
        let text = text.split(" at line ").next().unwrap_or_default();
        if let Some(rest) = text.strip_prefix("unknown variant ") {
            return format!("has the unknown name {rest}; correct it");
        }
        if let Some(field) = text.strip_prefix("missing field ") {
            return format!("lacks the field {field}; add it");
        }
        // A type is told without the field that it is of.
        let field = match text.starts_with("invalid ") {
            true => self.culprit::<T>(&error.to_string()),
            false => None,
        };
        let field = field.map_or_else(String::new, |field| format!(" (field `{field}`)"));
        format!("is not understood: {text}{field}; correct it")
    }

    /// The field without which another thing is wrong, or nothing is.
    fn culprit<T: DeserializeOwned>(&self, error: &str) -> Option<String> {
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&self.json).ok()?;
        let kind = |text: &str| {
            text.split(" at line ")
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let is_blamed = |name: &String| {
            let mut rest = fields.clone();
            rest.remove(name);
            let parsed = serde_json::from_value::<T>(serde_json::Value::Object(rest));
            parsed.map_or_else(|other| kind(&other.to_string()) != kind(error), |_| true)
        };
        let mut others = fields.keys().filter(|name| *name != "name");
        others.find(|name| is_blamed(name)).cloned()
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").finish_non_exhaustive()
    }
}

/// serde's `invalid type: string "hunter2", expected u8` without the password.
fn without_value(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.strip_prefix("invalid ") {
        Some(rest) => {
            let kind = rest.split(':').next().unwrap_or_default();
            let expected = rest.rfind(", expected ").map_or("", |at| &rest[at..]);
            format!("invalid {kind}{expected}")
        }
        None => text,
    }
}

/// Text that is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A configuration that a service does not start with.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Vec<Fault>);

/// One thing wrong with it.
#[derive(Clone, PartialEq, Eq)]
struct Fault {
    variable: String,
    problem: String,
}

impl Error {
    /// Something that was found wrong with a variable later than here, such as two providers that do
    /// not go together. `problem` follows the variable's name: what is wrong, and what to do.
    pub fn of(variable: &Variable, problem: impl Into<String>) -> Self {
        Self(vec![Fault {
            variable: variable.name.to_owned(),
            problem: problem.into(),
        }])
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { "\n" };
            write!(f, "{separator}{} {}", fault.variable, fault.problem)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    /// As `Display`: it is what `main` prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: (&str, &str) = ("STATEGATE_AUTH_DISABLED", "true");

    fn read(variables: &[(&str, &str)]) -> Result<Config, Error> {
        Config::read(&Env::of(variables.iter().copied()), &[])
    }

    fn refusal(variable: (&str, &str)) -> String {
        let refused = read(&[OPEN, variable]).map(|_| ()).unwrap_err().to_string();
        assert_eq!(refused.lines().count(), 1, "{refused}");
        refused
    }

    #[test]
    fn the_defaults_are_good() {
        let config = read(&[OPEN]).unwrap();
        assert_eq!(
            (config.host.to_string().as_str(), config.port),
            ("0.0.0.0", 8080)
        );
        assert_eq!(config.grace, Duration::from_secs(10));
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.tls, None);
        let defaults = [(&variables::HOST, "127.0.0.1")];
        let dev = Config::read(&Env::of([OPEN]), &defaults).unwrap();
        assert_eq!(dev.host.to_string(), "127.0.0.1");
        let named = Env::of([OPEN, ("STATEGATE_HOST", "localhost")]);
        let refused = Config::read(&named, &defaults).unwrap_err().to_string();
        assert!(refused.contains("unset it for 127.0.0.1"), "{refused}");
    }

    #[test]
    fn every_bad_variable_is_named_with_what_to_do() {
        for (bad, mention) in [
            (("STATEGATE_PORT", "http"), "from 0 to 65534"),
            (("STATEGATE_PORT", "65535"), "from 0 to 65534"),
            (("STATEGATE_HOST", "localhost"), "IP address"),
            (("STATEGATE_DEBUG", "maybe"), "true or false"),
            (("STATEGATE_MAX_VALUE_BYTES", "4000000"), "3145728"),
            (("STATEGATE_MAX_VALUE_BYTES", "-1"), "unset it for 1048576"),
            (("STATEGATE_GRACE_SECONDS", "1.5"), "integer"),
            (("STATEGATE_STORAGE_PROVIDER", "{"), "is not JSON (line 1"),
            (("STATEGATE_STORAGE_PROVIDER", "sqlite"), "it looks like {"),
            (("STATEGATE_STORAGE_PROVIDER", "{}"), "no \"name\""),
            (("STATEGATE_CHANNEL_PROVIDER", "[]"), "expected a map"),
            (("STATEGATE_CHANNEL_KEY", "short"), "16 bytes"),
            (("STATEGATE_JWKS_URI", "https://x"), "turns off"),
            (("STATEGATE_OIDC_ISSUER", "https://x"), "turns off"),
            (("STATEGATE_JWT_ISSUER", "https://x"), "turns off"),
            (("STATEGATE_JWT_AUDIENCE", "x"), "turns off"),
            (("STATEGATE_REQUEST_POLICY", "eA=="), "turns off"),
            (("STATEGATE_RESPONSE_POLICY_FILE", "x.rego"), "turns off"),
            (("STATEGATE_POLICY_TIMEOUT_MS", "10"), "turns off"),
            (("STATEGATE_EVENT_CLAIMS", "iss,sub"), "turns off"),
            (("STATEGATE_PROT", "1"), "did you mean STATEGATE_PORT?"),
            (("STATEGATE_WHATEVER", "1"), "docs/configuration.md"),
        ] {
            let refused = refusal(bad);
            assert!(refused.starts_with(bad.0), "{refused}");
            assert!(refused.contains(mention), "{refused}");
        }
        let half = refusal(("STATEGATE_TLS_CERT_FILE", "a.pem"));
        assert!(half.starts_with("STATEGATE_TLS_KEY_FILE"), "{half}");
        let bare = refusal(("STATEGATE_TLS_CLIENT_CA_FILE", "ca.pem"));
        assert!(bare.starts_with("STATEGATE_TLS_CLIENT_CA_FILE"), "{bare}");
        let no_authority = refusal(("STATEGATE_TLS_CLIENT_CERT", "optional"));
        assert!(
            no_authority.contains("STATEGATE_TLS_CLIENT_CA_FILE is not"),
            "{no_authority}"
        );
        let unknown = read(&[
            OPEN,
            ("STATEGATE_TLS_CERT_FILE", "a.pem"),
            ("STATEGATE_TLS_KEY_FILE", "a.pem"),
            ("STATEGATE_TLS_CLIENT_CA_FILE", "ca.pem"),
            ("STATEGATE_TLS_CLIENT_CERT", "maybe"),
        ]);
        let unknown = unknown.unwrap_err().to_string();
        assert!(unknown.contains("required or optional"), "{unknown}");
    }

    #[test]
    fn it_starts_with_something_to_verify_with_or_open_and_not_otherwise() {
        for closed in [&[][..], &[("STATEGATE_AUTH_DISABLED", "false")]] {
            let refused = read(closed).map(|_| ()).unwrap_err().to_string();
            assert!(refused.starts_with("STATEGATE_JWKS_URI"), "{refused}");
            assert!(refused.contains("true to run open"), "{refused}");
        }
        const KEYS: (&str, &str) = ("STATEGATE_JWKS_URI", "file:/keys.json");
        for (bad, mention) in [
            (("STATEGATE_JWKS_URI", "http://keys.example/"), "use https"),
            (("STATEGATE_OIDC_ISSUER", "https://x"), "unset one of them"),
            (
                ("STATEGATE_JWT_AUDIENCE", "a,,b"),
                "names separated by commas",
            ),
            (("STATEGATE_EVENT_CLAIMS", "a,,b"), "empty name"),
            (("STATEGATE_REQUEST_POLICY", "%"), "not base64"),
            (("STATEGATE_REQUEST_POLICY_FILE", "a.rego,"), "empty path"),
            (("STATEGATE_POLICY_TIMEOUT_MS", "soon"), "from 1 to 10000"),
            (("STATEGATE_MAX_CALLER_RATE", "-1"), "integer"),
        ] {
            let set: std::collections::BTreeMap<_, _> = [KEYS, bad].into();
            let set: Vec<_> = set.into_iter().collect();
            let refused = read(&set).map(|_| ()).unwrap_err().to_string();
            assert!(refused.starts_with("STATEGATE_"), "{refused}");
            assert!(refused.contains(mention), "{refused}");
        }
        let both = read(&[
            KEYS,
            ("STATEGATE_RESPONSE_POLICY", "eA=="),
            ("STATEGATE_RESPONSE_POLICY_FILE", "a.rego"),
        ]);
        let both = both.map(|_| ()).unwrap_err().to_string();
        assert!(both.contains("unset one of them"), "{both}");
        let protected = read(&[KEYS]).unwrap().protection.unwrap();
        assert!(protected.tokens.rules.issuers.is_empty());
        let of_issuer = read(&[("STATEGATE_OIDC_ISSUER", "https://issuer.example/")]);
        let rules = of_issuer.unwrap().protection.unwrap().tokens.rules;
        assert_eq!(rules.issuers, ["https://issuer.example/"]);
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let refused = read(&[("STATEGATE_PORT", "x"), ("STATEGATE_X", "y")]).unwrap_err();
        assert_eq!(refused.to_string().lines().count(), 3, "{refused}");
    }

    #[test]
    fn empty_is_unset_and_the_clients_variables_are_known() {
        let env = [
            OPEN,
            ("STATEGATE_PORT", ""),
            ("STATEGATE_JWKS_URI", ""),
            ("STATEGATE_EVENT_CLAIMS", ""),
            ("STATEGATE_POLICY_TIMEOUT_MS", ""),
            ("STATEGATE_ADDR", "http://x"),
            ("STATEGATE_TOKEN", "t"),
            ("STATEGATE_TOKEN_FILE", "/t"),
            ("STATEGATE_CA_FILE", "/ca.pem"),
        ];
        assert_eq!(read(&env).unwrap().port, 8080);
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        #[allow(dead_code)]
        name: String,
        #[allow(dead_code)]
        port: Option<u16>,
    }

    #[test]
    fn no_secret_is_shown() {
        let storage = r#"{"name":"x","port":"hunter2-one, expected"}"#;
        let env = [
            OPEN,
            ("STATEGATE_STORAGE_PROVIDER", storage),
            ("STATEGATE_CHANNEL_KEY", "hunter2-two-two-two"),
        ];
        let config = read(&env).unwrap();
        let refused = config.storage.parse::<Settings>().unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("STATEGATE_STORAGE_PROVIDER"),
            "{refused}"
        );
        assert!(refused.to_string().contains("expected u16"), "{refused}");
        assert!(refused.to_string().contains("(field `port`)"), "{refused}");
        for shown in [format!("{config:?}"), refused.to_string()] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(config.channel_key.unwrap().expose(), "hunter2-two-two-two");
    }

    #[test]
    fn unknown_fields_of_a_provider_are_named() {
        let env = [
            OPEN,
            ("STATEGATE_STORAGE_PROVIDER", r#"{"name":"x","prot":1}"#),
        ];
        let refused = read(&env).unwrap().storage.parse::<Settings>().unwrap_err();
        assert!(refused.to_string().contains("prot"), "{refused}");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_not_text_is_refused() {
        use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};
        let env = Env::of([
            (OPEN.0, OsString::from(OPEN.1)),
            ("STATEGATE_HOST", OsString::from_vec(vec![0xff])),
        ]);
        let refused = Config::read(&env, &[]).unwrap_err().to_string();
        assert_eq!(refused, "STATEGATE_HOST is not UTF-8; set it to text");
    }
}
