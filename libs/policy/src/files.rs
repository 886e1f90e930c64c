//! Where policies come from, and their replacement when files change: all or nothing.
//!
//! Files are read again every second and compared by content, so that a mounted directory whose links are
//! switched is noticed as well as a file that is written in place. What was read is put in force
//! only once it was read twice alike and compiles: a file that is being written changes nothing.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use stategate_model::{Object, json};
use tokio::sync::watch;

use crate::{
    policies::{Policies, PolicySet},
    program::{Limits, Module, Policy, PolicyError},
};

/// How often files are read again.
const RELOAD: Duration = Duration::from_secs(1);
/// Most bytes of one file.
const FILE_BYTES: u64 = 4 << 20;
/// Most files of one policy.
const FILES: usize = 64;

/// Where one policy comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PolicySource {
    /// Nowhere: everything is denied.
    #[default]
    None,
    /// A text that was configured.
    Text(Module),
    /// Files, or directories of which every `*.rego` but tests (`*_test.rego`) counts.
    Files(Vec<PathBuf>),
}

impl PolicySource {
    /// The policy in base64; `name` is what it is called in messages.
    pub fn base64(name: &str, encoded: &str) -> Result<Self, SourceError> {
        // `base64` of the shell breaks lines.
        let encoded: String = encoded.split_ascii_whitespace().collect();
        let bytes = STANDARD.decode(encoded);
        let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(Self::Text(Module {
            name: name.to_owned(),
            text: text.ok_or(SourceError::Base64)?,
        }))
    }

    /// Paths with commas between them.
    pub fn files(list: &str) -> Result<Self, SourceError> {
        let paths = list.split(',').map(str::trim);
        let paths = paths.map(|path| match path {
            "" => Err(SourceError::NoPath),
            path => Ok(PathBuf::from(path)),
        });
        paths.collect::<Result<_, _>>().map(Self::Files)
    }
}

/// Where policies come from and what a decision may cost.
#[derive(Debug, Clone, Default)]
pub struct PolicySettings {
    /// The policy of requests.
    pub request: PolicySource,
    /// The policy of answers and events.
    pub response: PolicySource,
    /// A JSON object that both see as `data`.
    pub data: Option<PathBuf>,
    /// What a decision may cost.
    pub limits: Limits,
}

/// Why there is no policy. For the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Not base64 of a text.
    #[error("is not base64 of a text; encode the policy with: base64 < policy.rego")]
    Base64,
    /// An empty path.
    #[error("has an empty path; give paths with commas between them")]
    NoPath,
    /// A file that cannot be read.
    #[error("{path} cannot be read: {error}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        error: String,
    },
    /// A file over its size.
    #[error("{0} is larger than 4194304 bytes")]
    TooLarge(String),
    /// Too many files.
    #[error("{0} files are more than the 64 that a policy may have")]
    TooMany(usize),
    /// A directory without policies.
    #[error("{0} holds no file *.rego but tests")]
    NoFiles(String),
    /// A directory with the policies of requests and answers, which are not one.
    #[error(
        "{0} holds policy.rego and response.rego, and both together would allow what either does; name the file that is meant"
    )]
    TwoPolicies(String),
    /// A file that is no text.
    #[error("{0} is not UTF-8")]
    NotText(String),
    /// A data document that is no object.
    #[error("the data document {path} {error}")]
    Data {
        /// The file.
        path: String,
        /// What is wrong with it.
        error: String,
    },
    /// Something that cannot be read, and what it is of.
    #[error("{error}")]
    Unreadable {
        /// `requests`, `answers` or `data`.
        of: &'static str,
        /// What is wrong.
        error: Box<SourceError>,
    },
    /// A policy that was not accepted.
    #[error("the policy of {of}: {error}")]
    Policy {
        /// `requests` or `answers`.
        of: &'static str,
        /// Why not.
        error: PolicyError,
    },
}

impl SourceError {
    fn of(self, of: &'static str) -> Self {
        Self::Unreadable {
            of,
            error: Box::new(self),
        }
    }
}

/// Everything that was read, before it is compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Contents {
    request: Option<Vec<Module>>,
    response: Option<Vec<Module>>,
    data: Option<(String, String)>,
}

impl PolicySettings {
    /// Reads and compiles the policies. The task that loads them again has to be run where
    /// [`PolicyReloader::has_files`] holds.
    pub fn load(self) -> Result<(Policies, PolicyReloader), SourceError> {
        let contents = self.read()?;
        let policies = Policies::new(contents.compile(self.limits)?);
        let reloader = PolicyReloader {
            settings: self,
            policies: policies.clone(),
            judged: contents,
            interval: RELOAD,
            rounds: watch::Sender::default(),
        };
        Ok((policies, reloader))
    }

    fn read(&self) -> Result<Contents, SourceError> {
        let data = match &self.data {
            Some(path) => {
                let text = read(path).map_err(|error| error.of("data"))?;
                Some((path.display().to_string(), text))
            }
            None => None,
        };
        let request = self.request.read();
        let response = self.response.read();
        Ok(Contents {
            request: request.map_err(|error| error.of("requests"))?,
            response: response.map_err(|error| error.of("answers"))?,
            data,
        })
    }
}

impl PolicySource {
    fn read(&self) -> Result<Option<Vec<Module>>, SourceError> {
        let paths = match self {
            Self::None => return Ok(None),
            Self::Text(module) => return Ok(Some(vec![module.clone()])),
            Self::Files(paths) => paths,
        };
        let mut files = Vec::new();
        for path in paths {
            if path.is_dir() {
                files.extend(policies_in(path)?);
            } else {
                files.push(path.clone());
            }
        }
        if files.len() > FILES {
            return Err(SourceError::TooMany(files.len()));
        }
        let modules = files.iter().map(|path| {
            Ok(Module {
                name: path.display().to_string(),
                text: read(path)?,
            })
        });
        modules.collect::<Result<_, _>>().map(Some)
    }
}

impl Contents {
    fn compile(&self, limits: Limits) -> Result<PolicySet, SourceError> {
        let data: Option<Object> = match &self.data {
            Some((path, text)) => {
                let data = json::parse_object(text).map_err(|error| SourceError::Data {
                    path: path.clone(),
                    error,
                })?;
                Some(data)
            }
            None => None,
        };
        let compile = |of: &'static str, modules: &Option<Vec<Module>>| {
            let modules = modules.as_ref();
            let policy = modules.map(|modules| Policy::compile(modules, data.as_ref(), limits));
            policy
                .transpose()
                .map_err(|error| SourceError::Policy { of, error })
        };
        Ok(PolicySet {
            request: compile("requests", &self.request)?,
            response: compile("answers", &self.response)?,
        })
    }
}

/// Puts changed policies in force. [`PolicyReloader::run`] never ends by itself.
#[derive(Debug)]
#[must_use = "without it changed files are not noticed"]
pub struct PolicyReloader {
    settings: PolicySettings,
    policies: Policies,
    /// What was read when policies were accepted or refused last.
    judged: Contents,
    interval: Duration,
    rounds: watch::Sender<u64>,
}

impl PolicyReloader {
    /// Whether anything can change.
    pub fn has_files(&self) -> bool {
        let of_files = |source: &PolicySource| matches!(source, PolicySource::Files(_));
        let settings = &self.settings;
        settings.data.is_some() || of_files(&settings.request) || of_files(&settings.response)
    }

    /// Reads the files this often instead of every second.
    pub fn every(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Counts how often the files were read again.
    pub fn rounds(&self) -> watch::Receiver<u64> {
        self.rounds.subscribe()
    }

    /// Reads the files again and again, and puts in force what changed.
    pub async fn run(mut self) {
        let mut last: Option<Result<Contents, SourceError>> = None;
        loop {
            tokio::time::sleep(self.interval).await;
            let settings = self.settings.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || settings.read()).await else {
                continue;
            };
            if last.as_ref() != Some(&read) {
                if let Err(error) = &read {
                    tracing::error!(%error, "the policies cannot be read; the last ones stay in force");
                }
                last = Some(read);
            } else if let Ok(contents) = read {
                self.judge(contents);
            }
            self.rounds.send_modify(|rounds| *rounds += 1);
        }
    }

    /// Puts in force what was read, if it is something else than the last time and is accepted.
    fn judge(&mut self, contents: Contents) {
        if contents == self.judged {
            return;
        }
        match contents.compile(self.settings.limits) {
            Ok(set) => {
                self.policies.replace(set);
                tracing::info!("changed policies are in force");
            }
            Err(error) => {
                tracing::error!(%error, "the changed policies are not accepted; the last ones stay in force");
            }
        }
        self.judged = contents;
    }
}

/// The files of the policy in a directory, by name: every `*.rego` but tests.
pub fn policies_in(directory: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let failed = |error: std::io::Error| SourceError::Read {
        path: directory.display().to_string(),
        error: error.to_string(),
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.ends_with(".rego") && !name.ends_with("_test.rego")) {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(SourceError::NoFiles(directory.display().to_string()));
    }
    let holds = |name: &str| files.iter().any(|path| path.ends_with(name));
    if holds("policy.rego") && holds("response.rego") {
        return Err(SourceError::TwoPolicies(directory.display().to_string()));
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String, SourceError> {
    let failed = |error: std::io::Error| SourceError::Read {
        path: path.display().to_string(),
        error: error.to_string(),
    };
    let mut bytes = Vec::new();
    // Opening a pipe would wait for somebody to write to it.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("it is not a file")));
    }
    let file = File::open(path).map_err(failed)?;
    let mut bounded = file.take(FILE_BYTES + 1);
    bounded.read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_BYTES) {
        return Err(SourceError::TooLarge(path.display().to_string()));
    }
    String::from_utf8(bytes).map_err(|_| SourceError::NotText(path.display().to_string()))
}
