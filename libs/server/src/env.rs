//! The environment, read in one place and handed around, so that tests need no globals.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
};

/// What every variable of ours starts with.
pub const PREFIX: &str = "STATEGATE_";
/// Variables that tests and their harness talk through; passed over.
const TEST_PREFIX: &str = "STATEGATE_TEST_";

/// The variables that start with [`PREFIX`], without those that Kubernetes or a test put there.
#[derive(Clone, Default)]
pub struct Env(BTreeMap<String, OsString>);

impl Env {
    /// The environment of this process.
    pub fn of_process() -> Self {
        // A name that is no UTF-8 is none of ours.
        let ours = std::env::vars_os()
            .filter_map(|(name, value)| name.into_string().ok().map(|name| (name, value)));
        Self::of(ours)
    }

    /// An environment of exactly these variables.
    pub fn of<N: Into<String>, V: Into<OsString>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let variables = variables.into_iter().map(|(n, v)| (n.into(), v.into()));
        Self(
            variables
                .filter(|(name, value)| {
                    name.starts_with(PREFIX)
                        && !name.starts_with(TEST_PREFIX)
                        && !is_service_link(name, value)
                })
                .collect(),
        )
    }

    /// A variable's value. An empty one is as good as none, since that is what `NAME=` in a compose
    /// file means.
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.0
            .get(name)
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    /// The names of all variables.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names alone: values may be secrets.
        f.debug_set().entries(self.names()).finish()
    }
}

/// Whether Kubernetes made this variable for a Service named `stategate` or `stategate-…`: it gives
/// every container `<SERVICE>_SERVICE_HOST`, `<SERVICE>_SERVICE_PORT[_<NAME>]`,
/// `<SERVICE>_PORT=tcp://…` and `<SERVICE>_PORT_<NUMBER>_<PROTOCOL>[_PROTO|_PORT|_ADDR]`.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    let is_url = || {
        let value = value.to_string_lossy();
        ["tcp://", "udp://", "sctp://"]
            .iter()
            .any(|scheme| value.starts_with(scheme))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && is_url())
        || name
            .match_indices("_PORT_")
            .any(|(at, found)| is_port_suffix(&name[at + found.len()..]))
}

/// Whether this is `<NUMBER>_<PROTOCOL>` with or without one of Kubernetes' endings.
fn is_port_suffix(suffix: &str) -> bool {
    let Some((number, rest)) = suffix.split_once('_') else {
        return false;
    };
    let (protocol, ending) = rest.split_once('_').unwrap_or((rest, "PROTO"));
    number.parse::<u16>().is_ok()
        && matches!(protocol, "TCP" | "UDP" | "SCTP")
        && matches!(ending, "PROTO" | "PORT" | "ADDR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_and_tests_add_is_passed_over() {
        let env = Env::of([
            ("STATEGATE_PORT", "tcp://10.0.0.7:8080"),
            ("STATEGATE_SERVICE_HOST", "10.0.0.7"),
            ("STATEGATE_SERVICE_PORT", "8080"),
            ("STATEGATE_SERVICE_PORT_GRPC", "8080"),
            ("STATEGATE_PORT_8080_TCP", "tcp://10.0.0.7:8080"),
            ("STATEGATE_PORT_8080_TCP_ADDR", "10.0.0.7"),
            ("STATEGATE_COMMAND_PORT", "tcp://10.0.0.8:8080"),
            ("STATEGATE_COMMAND_SERVICE_PORT_GRPC", "8080"),
            ("STATEGATE_COMMAND_PORT_8081_TCP_PROTO", "tcp"),
            ("STATEGATE_TEST_LONG", "1"),
            ("PATH", "/bin"),
        ]);
        assert_eq!(format!("{env:?}"), "{}");
    }

    #[test]
    fn what_only_looks_like_it_is_kept() {
        let kept = [
            ("STATEGATE_PORT", "8080"),
            ("STATEGATE_PORT_TYPO", "8080"),
            ("STATEGATE_PORT_8080_TCP_COLOUR", "red"),
            ("STATEGATE_PORT_99999_TCP", "x"),
        ];
        let env = Env::of(kept);
        assert_eq!(env.names().count(), kept.len());
        assert!(!format!("{env:?}").contains("red"), "no value in Debug");
    }
}
