//! Who may do what, as it is configured.

use std::{num::NonZeroU32, path::PathBuf};

use stategate_auth::{
    EventClaims, KeySettings, KeySource, TokenRules, authentication::AuthenticatorSettings,
};
use stategate_policy::{PolicySettings, PolicySource, SourceError};

use super::{Error, Reader};
use crate::variables::{self, Variable};

/// What callers are verified with, and what they may do.
#[derive(Debug, Clone)]
pub struct Protected {
    /// What tokens are verified with.
    pub tokens: AuthenticatorSettings,
    /// What callers may do and see.
    pub policies: PolicySettings,
    /// How often they may do it.
    pub rates: RateSettings,
}

/// How many calls there may be in a second; `None`: any number.
#[derive(Debug, Clone, Copy, Default)]
pub struct RateSettings {
    /// Of one caller.
    pub caller: Option<NonZeroU32>,
    /// With tokens that are not known yet, from one address.
    pub peer: Option<NonZeroU32>,
}

/// The variables that mean something only where callers are verified.
const OF_PROTECTION: [&Variable; 13] = [
    &variables::JWKS_URI,
    &variables::OIDC_ISSUER,
    &variables::JWT_ISSUER,
    &variables::JWT_AUDIENCE,
    &variables::EVENT_CLAIMS,
    &variables::REQUEST_POLICY,
    &variables::REQUEST_POLICY_FILE,
    &variables::RESPONSE_POLICY,
    &variables::RESPONSE_POLICY_FILE,
    &variables::POLICY_DATA_FILE,
    &variables::POLICY_TIMEOUT_MS,
    &variables::MAX_CALLER_RATE,
    &variables::MAX_PEER_RATE,
];

impl Reader<'_> {
    /// `None` if authentication is off, or something is wrong.
    pub(super) fn protection(&mut self) -> Option<Protected> {
        let is_off = self.flag(&variables::AUTH_DISABLED);
        if is_off {
            for variable in OF_PROTECTION {
                // Set in the environment: a default of the table is no wish of anybody's.
                if self.env.get(variable.name).is_some() {
                    let problem = format!(
                        "is set, and {0} is true, which turns off what it is for; unset it, or set {0} to false",
                        variables::AUTH_DISABLED.name
                    );
                    self.fault(variable.name, problem);
                }
            }
            return None;
        }
        let source = self.key_source()?;
        let issuers = match (self.names(&variables::JWT_ISSUER), &source) {
            (Some(issuers), _) => issuers,
            // Whoever names an issuer means its tokens.
            (None, KeySource::Issuer(issuer)) => vec![issuer.name().to_owned()],
            (None, KeySource::Address(_) | KeySource::File(_)) => Vec::new(),
        };
        let rules = TokenRules {
            issuers,
            audiences: self.names(&variables::JWT_AUDIENCE).unwrap_or_default(),
            ..TokenRules::default()
        };
        let event_claims = match self.text(&variables::EVENT_CLAIMS) {
            None => EventClaims::All,
            Some(names) => EventClaims::parse(&names).unwrap_or_else(|error| {
                self.fault(variables::EVENT_CLAIMS.name, error.to_string());
                EventClaims::All
            }),
        };
        let policies = PolicySettings {
            request: self.policy(&variables::REQUEST_POLICY, &variables::REQUEST_POLICY_FILE),
            response: self.policy(
                &variables::RESPONSE_POLICY,
                &variables::RESPONSE_POLICY_FILE,
            ),
            data: self.text(&variables::POLICY_DATA_FILE).map(PathBuf::from),
            limits: stategate_policy::Limits {
                time: self.millis(&variables::POLICY_TIMEOUT_MS),
                ..stategate_policy::Limits::default()
            },
        };
        let rates = RateSettings {
            caller: self.rate(&variables::MAX_CALLER_RATE),
            peer: self.rate(&variables::MAX_PEER_RATE),
        };
        Some(Protected {
            tokens: AuthenticatorSettings {
                keys: KeySettings::new(source),
                rules,
                event_claims,
            },
            policies,
            rates,
        })
    }

    fn key_source(&mut self) -> Option<KeySource> {
        let (uri, issuer) = (&variables::JWKS_URI, &variables::OIDC_ISSUER);
        let (variable, source) = match (self.text(uri), self.text(issuer)) {
            (Some(text), None) => (uri, KeySource::parse(&text)),
            (None, Some(text)) => (issuer, KeySource::issuer(&text)),
            (Some(_), Some(_)) => {
                let problem = format!(
                    "is set, and so is {}: the keys of an issuer are where it says; unset one of them",
                    issuer.name
                );
                self.fault(uri.name, problem);
                return None;
            }
            (None, None) => {
                let problem = format!(
                    "is not set, and neither is {}: there is nothing to verify tokens with; set one of them, or {}=true to run open, where everyone who can reach the port may read and write everything",
                    issuer.name,
                    variables::AUTH_DISABLED.name
                );
                self.fault(uri.name, problem);
                return None;
            }
        };
        let fault = |error| self.fault(variable.name, format!("{error}"));
        source.map_err(fault).ok()
    }

    fn policy(&mut self, text: &Variable, files: &Variable) -> PolicySource {
        let (variable, source) = match (self.text(text), self.text(files)) {
            (None, None) => return PolicySource::None,
            (Some(encoded), None) => (text, PolicySource::base64(text.name, &encoded)),
            (None, Some(list)) => (files, PolicySource::files(&list)),
            (Some(_), Some(_)) => {
                let problem = format!("is set, and so is {}; unset one of them", files.name);
                self.fault(text.name, problem);
                return PolicySource::None;
            }
        };
        source.unwrap_or_else(|error| {
            self.fault(variable.name, error.to_string());
            PolicySource::None
        })
    }

    /// Names with commas between them; white space around them means nothing.
    fn names(&mut self, variable: &Variable) -> Option<Vec<String>> {
        let text = self.text(variable)?;
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        if names.iter().any(String::is_empty) {
            self.expected(variable, &text);
        }
        Some(names)
    }

    /// A number a second; 0 is none.
    fn rate(&mut self, variable: &Variable) -> Option<NonZeroU32> {
        let number = u32::try_from(self.number(variable)).unwrap_or(u32::MAX);
        NonZeroU32::new(number)
    }
}

impl Protected {
    /// Why the policies cannot be loaded, by the variable that they are from.
    pub fn unusable(&self, error: &SourceError) -> Error {
        let of_files = |source: &PolicySource| matches!(source, PolicySource::Files(_));
        let request = match of_files(&self.policies.request) {
            true => &variables::REQUEST_POLICY_FILE,
            false => &variables::REQUEST_POLICY,
        };
        let response = match of_files(&self.policies.response) {
            true => &variables::RESPONSE_POLICY_FILE,
            false => &variables::RESPONSE_POLICY,
        };
        let variable = match error {
            SourceError::Data { .. } | SourceError::Unreadable { of: "data", .. } => {
                &variables::POLICY_DATA_FILE
            }
            SourceError::Policy { of: "answers", .. }
            | SourceError::Unreadable { of: "answers", .. } => response,
            _ => request,
        };
        Error::of(variable, format!("cannot be used: {error}"))
    }

    /// What is wrong with how keys are kept.
    pub fn keys_unusable(&self, error: &impl std::fmt::Display) -> Error {
        let variable = match self.tokens.keys.source {
            KeySource::Issuer(_) => &variables::OIDC_ISSUER,
            KeySource::Address(_) | KeySource::File(_) => &variables::JWKS_URI,
        };
        Error::of(variable, format!("cannot be used: {error}"))
    }
}
