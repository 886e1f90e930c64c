//! The one table of configuration variables: their names, what they take, their defaults and their
//! meaning. Parsing, the refusal of unknown variables and `docs/configuration.md` all follow from it.

use std::{fmt, fmt::Write as _};

/// A configuration variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// The full name.
    pub name: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// The value it has when it is not set; empty for none.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// What a variable takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// `true` or `false`.
    Flag,
    /// An integer within bounds.
    Number {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// An IP address.
    Address,
    /// The path of a file.
    File,
    /// A provider's settings.
    Provider,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Names, separated by commas.
    Names,
    /// Any text.
    Text,
    /// Text that is never shown.
    Secret,
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "true or false",
            Self::Number { min, max } => return write!(f, "an integer from {min} to {max}"),
            Self::Address => "an IP address",
            Self::File => "the path of a PEM file",
            Self::Word(words) => return f.write_str(&words.join(" or ")),
            Self::Provider => "a JSON object with a \"name\"",
            Self::Names => "names separated by commas",
            Self::Text => "text",
            Self::Secret => "text (a secret)",
        })
    }
}

macro_rules! variables {
    ($($heading:literal { $($(#[$doc:meta])* $id:ident = $name:literal, $takes:expr, $default:literal, $meaning:literal;)* })*) => {
        $($(
            #[doc = $meaning]
            pub const $id: Variable = Variable {
                name: concat!("STATEGATE_", $name),
                takes: $takes,
                default: $default,
                meaning: $meaning,
            };
        )*)*

        /// All variables of all services and of the client commands, under their headings.
        const GROUPS: &[(&str, &[Variable])] = &[$(($heading, &[$($id),*])),*];
    };
}

variables! {
    "Where it listens" {
        PORT = "PORT", Takes::Number { min: 0, max: 65_534 }, "8080",
            "Port of gRPC. Metrics and health over HTTP are on the next port. 0: any two free ports.";
        HOST = "HOST", Takes::Address, "0.0.0.0",
            "Address that both listeners bind (`stategate dev`: 127.0.0.1).";
        TLS_CERT_FILE = "TLS_CERT_FILE", Takes::File, "",
            "Certificate chain for gRPC. Needs STATEGATE_TLS_KEY_FILE; without both, gRPC is in the clear. The files of TLS are read again when they change: new connections see the new ones once they belong together.";
        TLS_KEY_FILE = "TLS_KEY_FILE", Takes::File, "",
            "Private key of the certificate.";
        TLS_CLIENT_CA_FILE = "TLS_CLIENT_CA_FILE", Takes::File, "",
            "Authorities of client certificates, which are asked for and verified where this is set; policies see their subject. Needs a certificate of the server.";
        TLS_CLIENT_CERT = "TLS_CLIENT_CERT", Takes::Word(&["required", "optional"]), "required",
            "Whether a client has to show a certificate. One that it shows is verified in any case. Needs STATEGATE_TLS_CLIENT_CA_FILE.";
    }
    "Who may do what" {
        AUTH_DISABLED = "AUTH_DISABLED", Takes::Flag, "false",
            "Run open: everyone who can reach the port may read and write everything. Otherwise STATEGATE_JWKS_URI or STATEGATE_OIDC_ISSUER has to be set.";
        JWKS_URI = "JWKS_URI", Takes::Text, "",
            "Where the keys are that tokens are verified with, as a JSON Web Key Set: an https: address, an http: one on the loopback interface, or file: with an absolute path. Fetched every five minutes (a file every ten seconds) and when a token names a key that is not known, at most every 30 seconds. The last set stays in force for 24 hours while no other can be had.";
        OIDC_ISSUER = "OIDC_ISSUER", Takes::Text, "",
            "The OpenID issuer whose discovery document says where the keys are, instead of STATEGATE_JWKS_URI. Tokens have to be of this issuer.";
        JWT_ISSUER = "JWT_ISSUER", Takes::Names, "",
            "The issuers (`iss`) whose tokens are accepted. Unset: STATEGATE_OIDC_ISSUER, or any that signs with the keys.";
        JWT_AUDIENCE = "JWT_AUDIENCE", Takes::Names, "",
            "The audiences (`aud`) of which a token has to name one. Unset: any. Set it where the issuer has other applications, or their tokens are accepted here.";
        EVENT_CLAIMS = "EVENT_CLAIMS", Takes::Names, "",
            "The verified claims that are kept with each event. Unset: all of them, up to 16 KiB.";
        REQUEST_POLICY = "REQUEST_POLICY", Takes::Text, "",
            "The Rego policy of requests, in base64. Without one, every request is denied.";
        REQUEST_POLICY_FILE = "REQUEST_POLICY_FILE", Takes::Names, "",
            "The same as files, or directories of which every *.rego but *_test.rego counts; one that holds both policy.rego and response.rego is refused. Read again when they change.";
        RESPONSE_POLICY = "RESPONSE_POLICY", Takes::Text, "",
            "The Rego policy of answers and events, in base64. Without one, every answer is withheld.";
        RESPONSE_POLICY_FILE = "RESPONSE_POLICY_FILE", Takes::Names, "",
            "The same as files or directories.";
        POLICY_DATA_FILE = "POLICY_DATA_FILE", Takes::Text, "",
            "A JSON object that both policies see as `data`. Read again when it changes.";
        POLICY_TIMEOUT_MS = "POLICY_TIMEOUT_MS", Takes::Number { min: 1, max: 10_000 }, "10",
            "Longest that one policy decision may take; what runs past it is denied.";
        MAX_CALLER_RATE = "MAX_CALLER_RATE", Takes::Number { min: 0, max: 4_294_967_295 }, "10000",
            "Most calls in a second of one caller (`iss` and `sub` of its token) at each process; one more is RESOURCE_EXHAUSTED. 0: any number.";
        MAX_PEER_RATE = "MAX_PEER_RATE", Takes::Number { min: 0, max: 4_294_967_295 }, "1000",
            "Most calls in a second from one address (of IPv6, one /64) with tokens that were not verified before; one more is RESOURCE_EXHAUSTED. A proxy is one address for all its clients. 0: any number.";
        REFLECTION = "REFLECTION", Takes::Flag, "false",
            "Describe the API to whoever asks (gRPC server reflection; `stategate dev`: true).";
    }
    "What stands behind it" {
        STORAGE_PROVIDER = "STORAGE_PROVIDER", Takes::Provider, r#"{"name":"sqlite","path":"stategate.db"}"#,
            "The storage and its settings, which the provider's README in libs/storage/src lists.";
        CHANNEL_PROVIDER = "CHANNEL_PROVIDER", Takes::Provider, r#"{"name":"storage"}"#,
            "The channel between writers and streams, and its settings, which the provider's README in libs/channel/src lists (`stategate dev`: inmem).";
        CHANNEL_KEY = "CHANNEL_KEY", Takes::Secret, "",
            "Authenticates channel messages (HMAC-SHA-256); the same in every process, at least 16 bytes. The channels inmem and storage send no message, so there it protects nothing.";
        HEADS_INTERVAL_MS = "HEADS_INTERVAL_MS", Takes::Number { min: 10, max: 60_000 }, "1000",
            "How often the stream service looks for events that the channel did not tell of.";
    }
    "Limits" {
        MAX_VALUE_BYTES = "MAX_VALUE_BYTES", Takes::Number { min: 1_024, max: 3_145_728 }, "1048576",
            "Most bytes of an entity's values, as canonical JSON.";
        MAX_CONNECTIONS = "MAX_CONNECTIONS", Takes::Number { min: 1, max: 1_000_000 }, "10000",
            "Most connections at once; one more is closed at once.";
        MAX_CONNECTION_AGE_SECONDS = "MAX_CONNECTION_AGE_SECONDS", Takes::Number { min: 0, max: 31_536_000 }, "0",
            "Age, give or take a tenth, at which the client of a connection is told to make a new one, which a balancer may give to another process; an hour suits most. What is under way goes on. 0: never, since some clients (tonic's among them) fail a call that they begin just then with CANCELLED, which they did not send.";
        MAX_CONNECTION_AGE_GRACE_SECONDS = "MAX_CONNECTION_AGE_GRACE_SECONDS", Takes::Number { min: 0, max: 31_536_000 }, "0",
            "Time from there until what is still under way is cut, streams among it, whose clients resume. 0: it goes on to its own end.";
        MAX_CONNECTION_STREAMS = "MAX_CONNECTION_STREAMS", Takes::Number { min: 1, max: 100_000 }, "1024",
            "Most calls and streams at once on one connection; one more waits in the client.";
        MAX_CALLS = "MAX_CALLS", Takes::Number { min: 1, max: 1_000_000 }, "8192",
            "Most calls (without streams) at once; one more is RESOURCE_EXHAUSTED. A quarter of them may wait for a position that the log has not reached.";
        CONNECTION_ANSWER_BYTES = "CONNECTION_ANSWER_BYTES", Takes::Number { min: 4_194_304, max: 17_179_869_184 }, "33554432",
            "Most bytes of answers (without streams) that the client of one connection has not taken. While there are so many, one call more on that connection, and reads that are under way, are RESOURCE_EXHAUSTED.";
        ANSWER_BYTES = "ANSWER_BYTES", Takes::Number { min: 4_194_304, max: 17_179_869_184 }, "268435456",
            "The same over all connections. Beyond it, those connections are closed that hold most and have taken nothing for longest.";
        MAX_QUEUED_WRITES = "MAX_QUEUED_WRITES", Takes::Number { min: 1, max: 1_000_000 }, "4096",
            "Most writes that wait for one lane, and hold 64 MiB together at most; one more is RESOURCE_EXHAUSTED.";
        MAX_SUBSCRIBERS = "MAX_SUBSCRIBERS", Takes::Number { min: 1, max: 1_000_000 }, "10000",
            "Most streams at once; one more is RESOURCE_EXHAUSTED.";
        MAX_CALLER_SUBSCRIBERS = "MAX_CALLER_SUBSCRIBERS", Takes::Number { min: 1, max: 1_000_000 }, "1000",
            "Most streams at once of one caller (`iss` and `sub` of its token); one more is RESOURCE_EXHAUSTED. While authentication is off nobody is told from anybody, and only STATEGATE_MAX_SUBSCRIBERS counts.";
        TAIL_BYTES = "TAIL_BYTES", Takes::Number { min: 1_048_576, max: 17_179_869_184 }, "67108864",
            "Memory for the newest events, which subscribers that keep up are served from.";
        CATCHUP_BYTES = "CATCHUP_BYTES", Takes::Number { min: 1_048_576, max: 17_179_869_184 }, "67108864",
            "Memory for what all subscribers together have read of the storage and not sent yet. One that does not read what it is sent loses its share to those who do. Beside it each stream holds what is on its way into its connection: some 96 KiB, whatever the size of its events and the windows of its client.";
    }
    "Running" {
        DEBUG = "DEBUG", Takes::Flag, "false",
            "Log more.";
        GRACE_SECONDS = "GRACE_SECONDS", Takes::Number { min: 0, max: 3_600 }, "10",
            "Time from SIGTERM or SIGINT until the process has ended. Calls finish in it, streams end resumably.";
    }
    "Client commands" {
        ADDR = "ADDR", Takes::Text, "http://127.0.0.1:8080",
            "The server that the client commands of `stategate` talk to.";
        TOKEN = "TOKEN", Takes::Secret, "",
            "The bearer token they send.";
        TOKEN_FILE = "TOKEN_FILE", Takes::Text, "",
            "The file that the bearer token is read from, where STATEGATE_TOKEN is not set. Read again when it changes.";
        CA_FILE = "CA_FILE", Takes::File, "",
            "The authority that signed the server's certificate, where it is none that this machine trusts.";
    }
}

/// All variables.
pub fn all() -> impl Iterator<Item = &'static Variable> {
    GROUPS.iter().flat_map(|(_, group)| group.iter())
}

/// The known variable whose name is nearest to a misspelt one, if any is near.
pub(crate) fn nearest(name: &str) -> Option<&'static Variable> {
    all()
        .map(|known| (distance(name, known.name), known))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, known)| known)
}

/// The Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// `docs/configuration.md`.
pub fn document() -> String {
    let mut out = String::from(
        "# Configuration

stategate is configured by environment variables alone. The set is the same for every service, so one environment can
be given to all of them; each reads what concerns it. Unknown variables that start with `STATEGATE_`, unknown fields of a
provider and values that cannot be read stop the start with a message that names them. A variable set to nothing is
unset. Variables that Kubernetes makes for Services named `stategate…` are passed over.

This file is made from the table in `libs/server/src/variables.rs`; a test of that crate compares the two and, run with
`STATEGATE_TEST_BLESS=1`, writes this file.
",
    );
    for (heading, group) in GROUPS {
        let _ = write!(
            out,
            "\n## {heading}\n\n| variable | takes | default | meaning |\n| --- | --- | --- | --- |\n"
        );
        for variable in *group {
            let default = match variable.default {
                "" => "–".to_owned(),
                default => format!("`{default}`"),
            };
            let _ = writeln!(
                out,
                "| `{}` | {} | {default} | {} |",
                variable.name, variable.takes, variable.meaning
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_that_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        if std::env::var_os("STATEGATE_TEST_BLESS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == document(),
            "docs/configuration.md is not what the table says; run this test with STATEGATE_TEST_BLESS=1"
        );
    }

    #[test]
    fn a_misspelt_name_is_recognised() {
        assert_eq!(nearest("STATEGATE_PROT"), Some(&PORT));
        assert_eq!(nearest("STATEGATE_AUTH_DISABLE"), Some(&AUTH_DISABLED));
        assert_eq!(nearest("STATEGATE_SOMETHING_ELSE"), None);
    }
}
