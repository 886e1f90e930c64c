//! `token`: makes a token of any caller, signed with the key of a developer's machine.

use std::{path::PathBuf, str::FromStr, time::Duration};

use serde_json::{Map, Value};
use stategate_server::Env;

use super::{failure::Failure, output::Output, when};
use crate::dev_auth::{self, Authority};

/// What `token` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The key is the one that `stategate dev --auth` made beside its data, so only that gateway accepts the token. \
Elsewhere tokens come from an identity provider.

A value that is JSON is taken as JSON: --claim level=3 is a number, and --claim level='\"3\"' a text.

Examples:
  stategate token --sub alice --tenant acme
  stategate token --sub bob --tenant acme --claim roles='[\"reader\"]' --expires 10m
  STATEGATE_TOKEN=$(stategate token --sub alice --tenant acme) stategate get acme user ada")]
pub(crate) struct Args {
    /// Who calls: the claim `sub`
    #[arg(long, value_name = "NAME")]
    sub: String,
    /// Whose state they work on: the claim `tenant`
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// A further claim; may be given several times
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<Claim>,
    /// How long it is valid: 10m, 1h, 24h
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = when::length)]
    expires: Duration,
    /// The SQLite file of the gateway, as `dev` was given it (overrides STATEGATE_STORAGE_PROVIDER)
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The gateway keeps its data in memory, as `dev --memory` does
    #[arg(long, conflicts_with = "data")]
    memory: bool,
}

/// A claim as it is given.
#[derive(Debug, Clone, PartialEq)]
struct Claim {
    name: String,
    value: Value,
}

impl FromStr for Claim {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "a claim looks like role=admin, level=3 or roles='[\"admin\"]'";
        match text.split_once('=') {
            None => Err(format!("there is no `=`; {SHAPE}")),
            Some(("", _)) => Err(format!("there is no name before the `=`; {SHAPE}")),
            Some((name, value)) => Ok(Self {
                name: name.to_owned(),
                value: serde_json::from_str(value).unwrap_or_else(|_| value.into()),
            }),
        }
    }
}

/// Prints a token.
pub(crate) fn run(args: Args, output: &mut Output) -> Result<(), Failure> {
    let directory = directory(&args, &Env::of_process()).map_err(|error| failed(&error))?;
    let authority = Authority::open(&directory).map_err(|error| failed(&error))?;
    let expires = args.expires;
    let token = authority.token(claims(args)?, expires);
    output.line(&token.map_err(|error| failed(&error))?)
}

/// Where the key is, as the gateway is told itself.
fn directory(args: &Args, env: &Env) -> anyhow::Result<PathBuf> {
    let storage = dev_auth::storage(args.data.as_deref(), args.memory, env)?;
    dev_auth::directory(&storage)
}

fn failed(error: &anyhow::Error) -> Failure {
    Failure::usage(format!("{error:#}"))
}

fn claims(args: Args) -> Result<Map<String, Value>, Failure> {
    let mut claims = Map::new();
    claims.insert("sub".to_owned(), args.sub.into());
    if let Some(tenant) = args.tenant {
        claims.insert("tenant".to_owned(), tenant.into());
    }
    for Claim { name, value } in args.claims {
        if claims.contains_key(&name) {
            return Err(Failure::usage(format!(
                "--claim {name}: is given already; give each claim once"
            )));
        }
        claims.insert(name, value);
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stategate_server::variables;

    use super::*;
    use crate::cli::{failure::Exit, testing::Printed};

    fn args(more: &[&str]) -> Args {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let line = ["token", "--sub", "alice"].iter().chain(more);
        <Line as clap::Parser>::try_parse_from(line).unwrap().args
    }

    #[test]
    fn claims_are_text_or_json() {
        let given = args(&[
            "--tenant",
            "acme",
            "--claim",
            "role=admin",
            "--claim",
            "level=3",
            "--claim",
            "roles=[\"a\"]",
            "--claim",
            "quoted=\"3\"",
            "--claim",
            "note=a=b",
        ]);
        let expected = json!({
            "sub": "alice", "tenant": "acme", "role": "admin", "level": 3, "roles": ["a"],
            "quoted": "3", "note": "a=b",
        });
        assert_eq!(Value::Object(claims(given).unwrap()), expected);
        for twice in [
            &["--claim", "sub=bob"][..],
            &["--claim", "a=1", "--claim", "a=2"],
        ] {
            let refused = claims(args(twice)).unwrap_err();
            assert!(refused.message().unwrap().contains("once"), "{refused:?}");
        }
        for wrong in ["role", "=admin"] {
            assert!(wrong.parse::<Claim>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn it_prints_the_token_alone_or_says_that_there_is_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("try.db");
        let data = ["--data", file.to_str().unwrap()];
        let printed = Printed::default();
        let refused = run(args(&data), &mut printed.output()).unwrap_err();
        assert_eq!(refused.exit(), Exit::Usage);
        let message = refused.message().unwrap();
        assert!(message.contains("try.db.auth"), "{message}");
        assert!(message.contains("stategate dev --auth"), "{message}");
        // To ask for a token makes no key.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

        Authority::open_or_create(&dir.path().join("try.db.auth")).unwrap();
        let mut output = printed.output();
        run(args(&data), &mut output).unwrap();
        output.finish(Ok(())).unwrap();
        let lines = printed.lines();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].split('.').count(), 3, "{}", lines[0]);
    }

    #[test]
    fn the_data_is_where_the_gateway_has_it() {
        let default = directory(&args(&[]), &Env::default()).unwrap();
        assert_eq!(default, PathBuf::from("stategate.db.auth"));
        let name = variables::STORAGE_PROVIDER.name;
        let set = Env::of([(name, r#"{"name":"sqlite","path":"/srv/a.db"}"#)]);
        let beside = directory(&args(&[]), &set).unwrap();
        assert_eq!(beside, PathBuf::from("/srv/a.db.auth"));
        let given = directory(&args(&["--data", "b.db"]), &set).unwrap();
        assert_eq!(given, PathBuf::from("b.db.auth"));
        let in_memory = directory(&args(&["--memory"]), &set).unwrap();
        assert!(in_memory.ends_with("stategate/dev.auth"), "{in_memory:?}");
        let secret = Env::of([(name, r#"{"password":"hunter2"}"#)]);
        let refused = directory(&args(&[]), &secret).unwrap_err().to_string();
        assert!(refused.starts_with(name), "{refused}");
        assert!(!refused.contains("hunter2"), "{refused}");
    }
}
