//! One fetch of a set of keys: bounded in time and size, without redirects.

use std::{path::Path, time::Duration};

use reqwest::{Client, StatusCode, redirect};
use stategate_model::json::{self, Json};

use super::{
    key::Unusable,
    set::{KeySet, Malformed},
    source::{Address, KeySource, SourceError},
};

/// Most bytes of a set of keys or a discovery document.
const DOCUMENT_BYTES: usize = 256 << 10;

/// Fetches keys from one source.
#[derive(Debug)]
pub(super) struct Fetcher {
    source: KeySource,
    client: Client,
    time: Duration,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("it took longer than {0:?}")]
    Slow(Duration),
    #[error("the answer to {0} could not be had: {1}")]
    Away(&'static str, String),
    #[error("the answer to {0} has the status {1}{2}")]
    Status(&'static str, StatusCode, &'static str),
    #[error("the answer to {0} is larger than {DOCUMENT_BYTES} bytes")]
    Large(&'static str),
    #[error("the answer to {0} is not UTF-8")]
    Text(&'static str),
    #[error("the file could not be read: {0}")]
    File(std::io::ErrorKind),
    #[error("the set of keys is malformed: {0}")]
    Set(#[from] Malformed),
    #[error("the discovery document is malformed: it {0}")]
    Discovery(String),
    #[error("the discovery document is of another issuer")]
    OtherIssuer,
    #[error("the discovery document's jwks_uri {0}")]
    Address(SourceError),
}

impl Fetcher {
    pub(super) fn new(source: KeySource, time: Duration) -> Result<Self, reqwest::Error> {
        let stays_here = match &source {
            KeySource::File(_) => true,
            KeySource::Address(address) => !address.is_https(),
            KeySource::Issuer(issuer) => !issuer.discovery().is_https(),
        };
        let mut client = Client::builder();
        if stays_here {
            // What is asked for in the clear goes to this machine and not to a proxy.
            client = client.no_proxy();
        }
        let client = client
            // Where a redirect leads was configured by nobody.
            .redirect(redirect::Policy::none())
            .timeout(time)
            .referer(false)
            .user_agent("stategate")
            .build()?;
        Ok(Self {
            source,
            client,
            time,
        })
    }

    /// The keys that are published now, and what was left out of them.
    pub(super) async fn fetch(&self) -> Result<(KeySet, Vec<Unusable>), Failed> {
        tokio::time::timeout(self.time, self.document())
            .await
            .map_err(|_| Failed::Slow(self.time))?
            .and_then(|text| Ok(KeySet::parse(&text)?))
    }

    async fn document(&self) -> Result<String, Failed> {
        match &self.source {
            KeySource::File(path) => read(path).await,
            KeySource::Address(address) => self.get(address, "the keys' address").await,
            KeySource::Issuer(issuer) => {
                let text = self
                    .get(issuer.discovery(), "the discovery address")
                    .await?;
                let address = jwks_uri(&text, issuer.name())?;
                // An issuer elsewhere does not get to have this machine asked.
                if issuer.discovery().is_https() && !address.is_https() {
                    return Err(Failed::Address(SourceError::Clear));
                }
                self.get(&address, "the jwks_uri").await
            }
        }
    }

    async fn get(&self, address: &Address, what: &'static str) -> Result<String, Failed> {
        let away = |error: reqwest::Error| Failed::Away(what, reason(&error));
        let request = self
            .client
            .get(address.url().clone())
            .header("accept", "application/json");
        let mut answer = request.send().await.map_err(away)?;
        let status = answer.status();
        if status != StatusCode::OK {
            let redirect = if status.is_redirection() {
                "; redirects are not followed, configure where it leads"
            } else {
                ""
            };
            return Err(Failed::Status(what, status, redirect));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(away)? {
            if body.len() + chunk.len() > DOCUMENT_BYTES {
                return Err(Failed::Large(what));
            }
            body.extend_from_slice(&chunk);
        }
        String::from_utf8(body).map_err(|_| Failed::Text(what))
    }
}

/// The innermost cause: what is around it names the address.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    cause.to_string()
}

async fn read(path: &Path) -> Result<String, Failed> {
    use tokio::io::AsyncReadExt as _;
    let failed = |error: std::io::Error| Failed::File(error.kind());
    // Opening a pipe would wait for somebody to write to it, and hold a thread as long.
    if !tokio::fs::metadata(path).await.map_err(failed)?.is_file() {
        return Err(Failed::File(std::io::ErrorKind::InvalidInput));
    }
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut text = String::new();
    let most = u64::try_from(DOCUMENT_BYTES).unwrap_or(u64::MAX);
    let mut bounded = file.take(most + 1);
    bounded.read_to_string(&mut text).await.map_err(failed)?;
    if text.len() > DOCUMENT_BYTES {
        return Err(Failed::Large("the file"));
    }
    Ok(text)
}

/// Where a discovery document says its issuer's keys are (OpenID Connect Discovery 1.0).
fn jwks_uri(text: &str, issuer: &str) -> Result<Address, Failed> {
    let malformed = |what: &str| Failed::Discovery(what.to_owned());
    let Json::Object(members) = json::parse(text).map_err(Failed::Discovery)? else {
        return Err(malformed("is not an object"));
    };
    let member = |name: &str| match members.iter().find(|(key, _)| key == name) {
        Some((_, Json::String(text))) => Ok(text.as_str()),
        _ => Err(malformed("has no text `issuer` and `jwks_uri`")),
    };
    // Otherwise the document of one issuer could stand in for that of another at a shared host.
    if member("issuer")? != issuer {
        return Err(Failed::OtherIssuer);
    }
    Address::parse(member("jwks_uri")?).map_err(Failed::Address)
}
