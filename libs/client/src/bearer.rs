//! Where the bearer tokens of calls come from: a fixed one, a file that somebody else keeps current, or
//! the application.
//!
//! The source is asked before every try of a call, and once more after the gateway refused what it gave:
//! a call goes on with a newer token, if there is one.

use std::{
    borrow::Cow,
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use stategate_model::Invalid;
use tokio::{
    sync::{Mutex as Turn, OwnedMutexGuard},
    task::spawn_blocking,
    time::timeout,
};
use tonic::metadata::{Ascii, MetadataValue};

/// Longest token: a gateway refuses longer ones.
const MOST: usize = 16 << 10;
/// How often a file is looked at, at most, while the gateway accepts what it held.
const LOOK: Duration = Duration::from_secs(1);
/// How long a file may take to be read, on a disk that is far away.
const PATIENCE: Duration = Duration::from_secs(2);

/// A bearer token. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken(MetadataValue<Ascii>);

impl BearerToken {
    /// A token as it was issued, without the word `Bearer`. White space around it means nothing.
    ///
    /// What begins as a JSON Web Token does must be a whole one: a file may be read while it is written.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let token = text.trim();
        let of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        // `{"`, with which the header of every such token begins.
        let is_jwt = token.starts_with("eyJ");
        let problem = if token.is_empty() {
            "is empty; it must hold the token"
        } else if token
            .get(..7)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "))
        {
            "begins with `Bearer`; give the token alone"
        } else if token.contains(char::is_whitespace) {
            "has white space within the token; give the token alone, on one line"
        } else if !token.bytes().all(of_token) {
            "has characters that no token has; give the token as it was issued"
        } else if token.len() > MOST {
            "is longer than 16384 bytes, which no gateway takes"
        } else if is_jwt && (token.split('.').count() < 3 || token.ends_with('.')) {
            "ends in the middle of the token; give the whole of it"
        } else {
            let value = format!("Bearer {token}").parse();
            let mut value: MetadataValue<Ascii> =
                value.map_err(|_| invalid("has characters that no header can hold"))?;
            value.set_sensitive(true);
            return Ok(Self(value));
        };
        Err(invalid(problem))
    }

    /// The value of the `authorization` header.
    pub(crate) fn header(&self) -> MetadataValue<Ascii> {
        self.0.clone()
    }
}

fn invalid(problem: impl Into<Cow<'static, str>>) -> Invalid {
    Invalid::new("token", problem)
}

/// Without the token.
impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken")
    }
}

/// Gives the token of each call, such as one that the application has from an identity provider and
/// renews before it expires.
///
/// All tokens of a source are of one caller (`iss` and `sub`): a gateway knows a write that is tried again
/// by its caller, too.
///
/// ```
/// use stategate_client::{BearerToken, TokenError, TokenSource, async_trait};
///
/// struct Session;
///
/// #[async_trait]
/// impl TokenSource for Session {
///     async fn token(&self, refused: Option<&BearerToken>) -> Result<BearerToken, TokenError> {
///         // With `refused`, not the one that is kept, but one that is asked for now.
///         let text = std::env::var("TOKEN").map_err(|_| TokenError::new("TOKEN is not set"))?;
///         BearerToken::new(&text).map_err(|problem| TokenError::new(problem.to_string()))
///     }
/// }
/// ```
#[async_trait]
pub trait TokenSource: Send + Sync {
    /// The token of the next call. The call waits for it, and no longer than until its deadline; the
    /// future may be dropped then.
    ///
    /// `refused` is the one that the gateway did not accept a moment ago: to answer it again says that
    /// there is no other. Any other token is tried, once for each call.
    async fn token(&self, refused: Option<&BearerToken>) -> Result<BearerToken, TokenError>;
}

/// One that stays the same.
#[async_trait]
impl TokenSource for BearerToken {
    async fn token(&self, _: Option<&BearerToken>) -> Result<BearerToken, TokenError> {
        Ok(self.clone())
    }
}

/// Why a source gives no token. The message must not hold one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TokenError {
    message: String,
    passes: bool,
}

impl TokenError {
    /// It has none, and will have none: the call fails.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            passes: false,
        }
    }

    /// It has none now: it is asked again, as an unavailable gateway would be.
    pub fn temporary(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            passes: true,
        }
    }

    /// Whether it may have one later.
    pub(crate) fn passes(&self) -> bool {
        self.passes
    }
}

/// Where a client's tokens come from.
#[derive(Clone, Default)]
pub(crate) enum Tokens {
    /// Calls have none.
    #[default]
    None,
    Fixed(BearerToken),
    Source(Arc<dyn TokenSource>),
}

impl Tokens {
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The token of the next call.
    pub(crate) async fn next(&self) -> Result<Option<BearerToken>, TokenError> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(token) => Ok(Some(token.clone())),
            Self::Source(source) => source.token(None).await.map(Some),
        }
    }

    /// Another token than the one that was refused, if there is one.
    pub(crate) async fn other_than(
        &self,
        refused: &BearerToken,
    ) -> Result<Option<BearerToken>, TokenError> {
        let Self::Source(source) = self else {
            return Ok(None);
        };
        let now = source.token(Some(refused)).await?;
        Ok((now != *refused).then_some(now))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Fixed(_) => "Fixed",
            Self::Source(_) => "Source",
        })
    }
}

/// The token in a file, which is read again when it changes: at most once a second, and at once after the
/// gateway refused what it held.
///
/// A file that is empty, half written or gone leaves the last good token in use; a call that is refused
/// then says what is wrong with the file. What is not a regular file, such as a pipe, is read once.
#[derive(Clone)]
pub struct TokenFile(Arc<Shared>);

struct Shared {
    path: PathBuf,
    is_regular: bool,
    state: Mutex<State>,
    /// Whose turn it is to read, so that no two do.
    reading: Arc<Turn<()>>,
}

struct State {
    good: BearerToken,
    /// What is wrong with the file since.
    problem: Option<String>,
    /// When it was looked at last.
    looked: Instant,
}

impl TokenFile {
    /// Reads the file, which must hold a token.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Invalid> {
        let path = path.into();
        let looked = Instant::now();
        let (good, is_regular) = read(&path).map_err(invalid)?;
        Ok(Self(Arc::new(Shared {
            path,
            is_regular,
            state: Mutex::new(State {
                good,
                problem: None,
                looked,
            }),
            reading: Arc::default(),
        })))
    }

    /// Reads it again. Goes on to the end if the caller leaves, so that a disk that does not answer holds
    /// one reader and no more.
    async fn look(&self, turn: OwnedMutexGuard<()>) {
        let shared = Arc::clone(&self.0);
        let looking = spawn_blocking(move || {
            let looked = Instant::now();
            let found = read(&shared.path);
            let mut state = shared.state.lock();
            state.looked = looked;
            match found {
                Ok((token, _)) => {
                    state.good = token;
                    state.problem = None;
                }
                Err(problem) => state.problem = Some(problem),
            }
            drop(turn);
        });
        // It ends early only with the runtime.
        let _ = looking.await;
    }

    /// Reads it again if nobody has since then.
    async fn look_after(&self, asked: Instant) {
        let turn = Arc::clone(&self.0.reading).lock_owned().await;
        let looked = self.0.state.lock().looked;
        if looked < asked {
            self.look(turn).await;
        }
    }
}

#[async_trait]
impl TokenSource for TokenFile {
    async fn token(&self, refused: Option<&BearerToken>) -> Result<BearerToken, TokenError> {
        let shared = &*self.0;
        let asked = Instant::now();
        let (good, looked) = {
            let state = shared.state.lock();
            (state.good.clone(), state.looked)
        };
        let Some(refused) = refused else {
            let is_due = shared.is_regular && asked.duration_since(looked) >= LOOK;
            if !is_due {
                return Ok(good);
            }
            // Whoever comes while it is read has the one that was good until now.
            if let Ok(turn) = Arc::clone(&shared.reading).try_lock_owned() {
                let _ = timeout(PATIENCE, self.look(turn)).await;
            }
            return Ok(shared.state.lock().good.clone());
        };
        if good != *refused || !shared.is_regular {
            return Ok(good);
        }
        if timeout(PATIENCE, self.look_after(asked)).await.is_err() {
            let path = shared.path.display();
            return Err(TokenError::temporary(format!(
                "{path} was not read within {PATIENCE:?}"
            )));
        }
        let state = shared.state.lock();
        match &state.problem {
            Some(problem) if state.good == *refused => Err(TokenError::new(problem)),
            _ => Ok(state.good.clone()),
        }
    }
}

/// Without the token.
impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenFile").field(&self.0.path).finish()
    }
}

/// The token in a file, and whether there may be another one later; or what is wrong with the file.
fn read(path: &Path) -> Result<(BearerToken, bool), String> {
    let named = |problem: &str| format!("{} {problem}", path.display());
    let mut bytes = Vec::new();
    let opened = File::open(path).and_then(|file| {
        let is_regular = file.metadata()?.is_file();
        // White space around the token is no part of it.
        file.take(2 * MOST as u64).read_to_end(&mut bytes)?;
        Ok(is_regular)
    });
    let is_regular = opened.map_err(|error| {
        named(match error.kind() {
            io::ErrorKind::NotFound => "does not exist; correct the path",
            io::ErrorKind::IsADirectory => "is a directory; name a file in it",
            io::ErrorKind::NotADirectory => {
                "stands below something that is no directory; correct the path"
            }
            io::ErrorKind::PermissionDenied => {
                "may not be read by this user; change its owner or permissions"
            }
            _ => return named(&format!("cannot be read: {error}")),
        })
    })?;
    let text =
        String::from_utf8(bytes).map_err(|_| named("is not text; it must hold the token alone"))?;
    let token = BearerToken::new(&text).map_err(|invalid| named(&invalid.problem))?;
    Ok((token, is_regular))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const FIRST: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl";
    const SECOND: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.YW5vdGhlcg";

    fn bearer(text: &str) -> BearerToken {
        BearerToken::new(text).unwrap()
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        for (text, why) in [
            ("", "is empty"),
            (" \n", "is empty"),
            ("Bearer abc", "begins with `Bearer`"),
            ("secret one\n", "white space"),
            ("secret\ntwo", "white space"),
            ("secret\u{1}", "characters that no token has"),
            ("secreté", "characters that no token has"),
            ("{\"secret\":1}", "characters that no token has"),
            ("eyJsecret", "in the middle"),
            ("eyJsecret.e30", "in the middle"),
            ("eyJsecret.e30.", "in the middle"),
        ] {
            let refused = BearerToken::new(text).unwrap_err().to_string();
            assert!(refused.contains(why), "{text:?}: {refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
        assert!(BearerToken::new(&"a".repeat(MOST + 1)).is_err());
        assert_eq!(bearer(" abc.def\r\n").0, "Bearer abc.def");
        assert!(!format!("{:?}", bearer("abc")).contains("abc"));
    }

    #[tokio::test]
    async fn a_refused_token_has_its_file_read_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, FIRST).unwrap();
        let file = TokenFile::open(&path).unwrap();
        let first = file.token(None).await.unwrap();
        assert_eq!(first, bearer(FIRST));
        // Nothing newer is there.
        assert_eq!(file.token(Some(&first)).await, Ok(first.clone()));
        fs::write(&path, format!("{SECOND}\n")).unwrap();
        let second = file.token(Some(&first)).await.unwrap();
        assert_eq!(second, bearer(SECOND));
        assert_eq!(file.token(None).await, Ok(second));
        // Whoever was refused the one before has the newer one, which is read already.
        fs::remove_file(&path).unwrap();
        assert_eq!(file.token(Some(&first)).await, Ok(bearer(SECOND)));
    }

    #[tokio::test]
    async fn a_changed_file_is_seen_though_nobody_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, FIRST).unwrap();
        let file = TokenFile::open(&path).unwrap();
        fs::write(&path, SECOND).unwrap();
        let begun = Instant::now();
        while file.token(None).await.unwrap() != bearer(SECOND) {
            assert!(begun.elapsed() < Duration::from_secs(60));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(begun.elapsed() >= LOOK / 2, "it is read all the time");
    }

    #[tokio::test]
    async fn a_damaged_file_leaves_the_last_good_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, FIRST).unwrap();
        let file = TokenFile::open(&path).unwrap();
        let first = bearer(FIRST);
        for (content, why) in [
            ("", "is empty"),
            (&SECOND[..30], "in the middle"),
            ("two tokens", "white space"),
        ] {
            fs::write(&path, content).unwrap();
            let refused = file.token(Some(&first)).await.unwrap_err();
            let message = refused.to_string();
            assert!(message.starts_with(&*path.to_string_lossy()), "{message}");
            assert!(message.contains(why), "{message}");
            assert_eq!(file.token(None).await.unwrap(), first);
        }
        fs::remove_file(&path).unwrap();
        let refused = file.token(Some(&first)).await.unwrap_err();
        assert!(refused.to_string().contains("does not exist"), "{refused}");
        fs::write(&path, SECOND).unwrap();
        assert_eq!(file.token(Some(&first)).await, Ok(bearer(SECOND)));
    }

    #[tokio::test]
    async fn a_pipe_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let writes = std::thread::spawn({
            let path = path.clone();
            move || fs::write(path, FIRST)
        });
        let file = TokenFile::open(&path).unwrap();
        writes.join().unwrap().unwrap();
        let first = bearer(FIRST);
        // It would wait for a writer.
        let asked = timeout(Duration::from_secs(1), file.token(Some(&first)));
        assert_eq!(asked.await.unwrap(), Ok(first));
    }
}
