//! The issuer of tokens on a developer's machine: a signing key in a directory beside the data, and the
//! set of public keys (JWKS) that a gateway verifies its tokens by.
//!
//! For `stategate dev --auth` and `stategate token`. Whoever can read the key can make tokens of any
//! caller, so it is for trying things out on one machine.

use std::{
    fmt,
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash},
};
use serde_json::{Map, Value};
use stategate_auth::authentication::TOKEN_BYTES;
use stategate_model::{Claims, json};
use stategate_server::{Env, config, pem as words, variables};
use stategate_storage::{MemoryConfig, StorageConfig};
use tempfile::NamedTempFile;

/// Who issues the tokens: their `iss`.
pub(crate) const ISSUER: &str = "stategate-dev";
/// The file with the private key, in the directory.
const KEY: &str = "signing-key.pem";
/// The file with the public keys, in the directory.
const KEYS: &str = "jwks.json";
const LABEL: &str = "PRIVATE KEY";
/// What the issuer says itself.
const OWN: [&str; 3] = ["iss", "iat", "exp"];

/// An issuer of tokens with a key of its own.
pub(crate) struct Authority {
    directory: PathBuf,
    key: EncodingKey,
    key_id: String,
    jwks: String,
}

impl Authority {
    /// The issuer whose key is in a directory; makes both where they are missing. A key that is there is
    /// never overwritten.
    pub(crate) fn open_or_create(directory: &Path) -> anyhow::Result<Self> {
        let mut made = DirBuilder::new();
        made.recursive(true).mode(0o700);
        made.create(directory)
            .with_context(|| format!("{} cannot be made", directory.display()))?;
        let key = directory.join(KEY);
        if !key.exists() {
            create(directory, &key)
                .with_context(|| format!("{} cannot be written", key.display()))?;
        }
        Self::open(directory)
    }

    /// The issuer whose key is in a directory.
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join(KEY);
        if !path.exists() {
            bail!(
                "there is no signing key in {}; start `stategate dev --auth` first, with the same data",
                directory.display()
            );
        }
        let unusable = |problem: &str| {
            anyhow::anyhow!(
                "{} {problem}; put the right key there, or delete the file to begin with a new one, which no token made before is valid for",
                path.display()
            )
        };
        let text = words::read(&path).map_err(|problem| unusable(&problem))?;
        let der = words::key(&text).map_err(|problem| unusable(&problem))?;
        let der = der.secret_der();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map_err(|_| unusable("holds no key of ES256 (PKCS#8, P-256)"))?;
        let key = EncodingKey::from_ec_der(der);
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256)?;
        let key_id = jwk.thumbprint(ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(key_id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let mut jwks = serde_json::to_string_pretty(&JwkSet { keys: vec![jwk] })?;
        jwks.push('\n');
        let authority = Self {
            directory: directory.to_owned(),
            key,
            key_id,
            jwks,
        };
        authority.publish()?;
        Ok(authority)
    }

    /// Writes the public keys, unless they stand there.
    fn publish(&self) -> anyhow::Result<()> {
        let path = self.jwks_path();
        if fs::read(&path).is_ok_and(|there| there == self.jwks.as_bytes()) {
            return Ok(());
        }
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new()
                .permissions(Permissions::from_mode(0o644))
                .tempfile_in(&self.directory)?;
            file.write_all(self.jwks.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().with_context(|| format!("{} cannot be written", path.display()))
    }

    /// The file with the public keys.
    pub(crate) fn jwks_path(&self) -> PathBuf {
        keys_in(&self.directory)
    }

    /// What it holds.
    pub(crate) fn jwks(&self) -> &str {
        &self.jwks
    }

    /// A token of these claims, valid from now on.
    pub(crate) fn token(
        &self,
        mut claims: Map<String, Value>,
        lifetime: Duration,
    ) -> anyhow::Result<String> {
        if let Some(own) = OWN.iter().find(|name| claims.contains_key(**name)) {
            bail!("{own}: is said by the issuer of the token, which is {ISSUER}; leave it out");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let expires = now.saturating_add(lifetime.as_secs());
        claims.insert("iss".to_owned(), ISSUER.into());
        claims.insert("iat".to_owned(), now.into());
        claims.insert("exp".to_owned(), expires.into());
        // What a gateway would not accept is refused here, where there is somebody to correct it.
        let object = json::parse_object(&Value::Object(claims.clone()).to_string())
            .map_err(|problem| anyhow::anyhow!("claims: {problem}"))?;
        Claims::new(object)?;
        let header = Header {
            kid: Some(self.key_id.clone()),
            ..Header::new(Algorithm::ES256)
        };
        let token = jsonwebtoken::encode(&header, &claims, &self.key)?;
        if token.len() > TOKEN_BYTES {
            bail!(
                "claims: make a token that is longer than {TOKEN_BYTES} bytes, which no gateway takes; leave some out"
            );
        }
        Ok(token)
    }
}

/// Without the key.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("directory", &self.directory)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// Makes a key, whole or not at all. Of two processes that do so at once, the first one's is kept.
fn create(directory: &Path, path: &Path) -> anyhow::Result<()> {
    let pkcs8 =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| anyhow::anyhow!("no key can be made"))?;
    let text = pem::encode_config(
        &pem::Pem::new(LABEL, pkcs8.as_ref()),
        pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
    );
    // It is made for its owner alone.
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => File::open(directory)?.sync_all()?,
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.error.into()),
    }
    Ok(())
}

/// The file with the public keys of the issuer in a directory.
pub(crate) fn keys_in(directory: &Path) -> PathBuf {
    directory.join(KEYS)
}

/// The storage of a gateway that is told so: its file, memory, or what the environment says.
pub(crate) fn storage(
    data: Option<&Path>,
    is_in_memory: bool,
    env: &Env,
) -> anyhow::Result<StorageConfig> {
    if let Some(path) = data {
        return Ok(StorageConfig::sqlite(path.to_owned()));
    }
    if is_in_memory {
        return Ok(StorageConfig::Memory(MemoryConfig::default()));
    }
    let variable = &variables::STORAGE_PROVIDER;
    let set = config::text(env, variable)?;
    let json = set.as_deref().unwrap_or(variable.default);
    serde_json::from_str(json).map_err(|_| {
        let name = variable.name;
        anyhow::anyhow!(
            "{name} is not a storage's settings; `stategate dev` says what is wrong with it; correct it, or name a file with --data"
        )
    })
}

/// Where the key of a gateway with this storage is: beside its file, or where this user's programs keep
/// their data.
pub(crate) fn directory(storage: &StorageConfig) -> anyhow::Result<PathBuf> {
    directory_in(storage, |name| std::env::var_os(name).map(PathBuf::from))
}

fn directory_in(
    storage: &StorageConfig,
    variable: impl Fn(&str) -> Option<PathBuf>,
) -> anyhow::Result<PathBuf> {
    if let StorageConfig::Sqlite(config) = storage {
        let mut path = config.path.clone().into_os_string();
        path.push(".auth");
        return Ok(path.into());
    }
    // A path that is not absolute is to be passed over (XDG Base Directory Specification).
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    match data {
        Some(data) => Ok(data.join("stategate/dev.auth")),
        None => bail!(
            "there is no place for the signing key: the data is kept in no file, and neither HOME nor XDG_DATA_HOME is set; set one, or keep the data in a file (--data)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use stategate_auth::{
        Authenticator, EventClaims, KeySettings, KeySource, Refused, TokenRules,
        authentication::AuthenticatorSettings,
    };

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn claims(json: &str) -> Map<String, Value> {
        serde_json::from_str(json).unwrap()
    }

    /// As a gateway verifies.
    async fn verifier(authority: &Authority) -> Authenticator {
        let uri = format!("file:{}", authority.jwks_path().display());
        let settings = AuthenticatorSettings {
            keys: KeySettings::new(KeySource::parse(&uri).unwrap()),
            rules: TokenRules {
                issuers: vec![ISSUER.to_owned()],
                ..TokenRules::default()
            },
            event_claims: EventClaims::Named(BTreeSet::new()),
        };
        let (authenticator, refresher) = Authenticator::new(settings).unwrap();
        tokio::spawn(refresher.run());
        authenticator.until_ready().await;
        authenticator
    }

    #[tokio::test]
    async fn a_gateway_accepts_its_tokens_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("try.db.auth");
        let authority = Authority::open_or_create(&path).unwrap();
        let verifier = verifier(&authority).await;
        let alice = claims(r#"{"sub":"alice","tenant":"acme","roles":["admin"]}"#);
        let token = authority.token(alice.clone(), HOUR).unwrap();
        let identity = verifier.verify(&token).await.unwrap();
        assert_eq!(identity.name(), ("stategate-dev", "alice"));
        let kept: Value = serde_json::from_str(&identity.claims().to_json()).unwrap();
        assert_eq!(kept["tenant"], "acme");
        assert_eq!(kept["roles"], serde_json::json!(["admin"]));
        let later = SystemTime::now() + 2 * HOUR;
        let expired = verifier.verify_at(&token, later).await.unwrap_err();
        assert_eq!(expired, Refused::Expired);

        let elsewhere = Authority::open_or_create(&dir.path().join("other")).unwrap();
        let forged = elsewhere.token(alice, HOUR).unwrap();
        let refused = verifier.verify(&forged).await.unwrap_err();
        assert_eq!(refused, Refused::KeyUnknown);
    }

    #[tokio::test]
    async fn a_second_start_has_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open_or_create(dir.path()).unwrap();
        let token = first.token(claims(r#"{"sub":"alice"}"#), HOUR).unwrap();
        // The public keys are made again from the private one.
        fs::write(first.jwks_path(), "{\"keys\":[]}").unwrap();
        let second = Authority::open_or_create(dir.path()).unwrap();
        assert_eq!(second.jwks(), first.jwks());
        assert_eq!(
            fs::read_to_string(second.jwks_path()).unwrap(),
            second.jwks()
        );
        assert!(verifier(&second).await.verify(&token).await.is_ok());
        assert!(!second.jwks().contains("\"d\""), "{}", second.jwks());
    }

    #[test]
    fn the_key_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth");
        Authority::open_or_create(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(KEY)), 0o600);
        let left: BTreeSet<_> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, BTreeSet::from([KEYS.into(), KEY.into()]));
    }

    #[test]
    fn a_key_that_is_damaged_or_another_kind_is_refused_and_left_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY);
        let whole = {
            let other = tempfile::tempdir().unwrap();
            Authority::open_or_create(other.path()).unwrap();
            fs::read_to_string(other.path().join(KEY)).unwrap()
        };
        let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        for content in [
            "",
            "no key",
            &whole[..whole.len() / 2],
            &rsa.serialize_pem(),
        ] {
            fs::write(&path, content).unwrap();
            let refused = Authority::open_or_create(dir.path()).unwrap_err();
            let refused = refused.to_string();
            assert!(refused.starts_with(&*path.to_string_lossy()), "{refused}");
            assert!(refused.contains("delete the file"), "{refused}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        fs::remove_file(&path).unwrap();
        let refused = Authority::open(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("stategate dev --auth"), "{refused}");
    }

    #[test]
    fn starts_at_once_have_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let sets: BTreeSet<String> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Authority::open_or_create(dir.path()).unwrap()))
                .collect();
            let started = starts.into_iter().map(|start| start.join().unwrap());
            started.map(|authority| authority.jwks).collect()
        });
        assert_eq!(sets.len(), 1);
    }

    #[test]
    fn claims_that_no_gateway_takes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(dir.path()).unwrap();
        let long = format!(r#"{{"sub":"{}"}}"#, "a".repeat(13_000));
        let longer = format!(r#"{{"sub":"{}"}}"#, "a".repeat(20_000));
        for (json, why) in [
            (r#"{"iss":"me"}"#, "iss: is said by the issuer"),
            (r#"{"exp":1}"#, "exp: is said by the issuer"),
            (&long, "longer than 16384 bytes"),
            (&longer, "claims"),
        ] {
            let refused = authority.token(claims(json), HOUR).unwrap_err();
            let refused = refused.to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn the_directory_stands_beside_the_data() {
        let of = |storage: &StorageConfig, set: &[(&str, &str)]| {
            directory_in(storage, |name| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| PathBuf::from(value))
            })
        };
        let file = StorageConfig::sqlite("data/try.db".into());
        assert_eq!(of(&file, &[]).unwrap(), Path::new("data/try.db.auth"));
        let memory = StorageConfig::Memory(Default::default());
        let home = ("HOME", "/home/ada");
        for (set, expected) in [
            (&[home][..], "/home/ada/.local/share/stategate/dev.auth"),
            (
                &[home, ("XDG_DATA_HOME", "/data")],
                "/data/stategate/dev.auth",
            ),
            (
                &[home, ("XDG_DATA_HOME", "data")],
                "/home/ada/.local/share/stategate/dev.auth",
            ),
        ] {
            assert_eq!(of(&memory, set).unwrap(), Path::new(expected));
        }
        assert!(of(&memory, &[]).is_err());
    }
}
