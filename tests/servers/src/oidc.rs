//! A real OpenID provider of one's own: discovery, published keys, and access tokens for programs (client
//! credentials) as JWT.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use serde_json::{Value, json};

use crate::{
    Missing,
    daemon::{Daemon, program, servers},
    free_port,
};

/// The part of it that is ours.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/oidc/provider.mjs");
const SETTINGS: &str = "settings.json";
/// What it says once it serves.
const READY: &str = "serving";
/// What its clients prove themselves with.
const SECRET: &str = "a-secret-of-tests";

/// An OpenID provider on a port of the loopback.
#[derive(Debug)]
pub struct Oidc {
    server: Daemon,
    clients: BTreeMap<String, Value>,
    lifetime: Mutex<u64>,
}

impl Oidc {
    /// Starts one with the key `one` and these clients, whose tokens have these claims beside the usual
    /// ones.
    pub fn start(clients: &[(&str, Value)]) -> Result<Self, Missing> {
        let missing = Missing {
            server: "OpenID provider",
            install: "run scripts/install-servers, with Node.js 20 or newer and npm there",
        };
        let (Some(node), Some(modules)) = (program(&["node".into()]), installed()) else {
            return Err(missing);
        };
        let (port, folder) = (free_port(), Daemon::folder("oidc"));
        let clients = clients.iter().map(|(id, claims)| {
            let client = json!({ "secret": SECRET, "claims": claims });
            ((*id).to_owned(), client)
        });
        let clients: BTreeMap<_, _> = clients.collect();
        let lifetime = 3_600;
        settle(folder.path(), port, &["one"], lifetime, &clients);
        let arguments = [
            SCRIPT.to_owned(),
            modules.display().to_string(),
            folder.path().join(SETTINGS).display().to_string(),
        ];
        let (arguments, env) = (arguments.to_vec(), Vec::new());
        let server = Daemon::start("OIDC", node, arguments, env, port, folder);
        server.says(READY);
        Ok(Self {
            server,
            clients,
            lifetime: Mutex::new(lifetime),
        })
    }

    /// Its name: the `iss` of its tokens, under which its discovery document is found.
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port())
    }

    /// Publishes these keys from now on, and signs with the first. A key is known by its name; one that
    /// was not used before is made.
    pub fn rotate(&self, keys: &[&str]) {
        let lifetime = *self.lifetime.lock().unwrap();
        let folder = self.server.data();
        settle(folder, self.server.port(), keys, lifetime, &self.clients);
        self.server.restart();
        self.server.says(READY);
    }

    /// Kills it, as a crash would; [`Oidc::rotate`] starts it again.
    pub fn kill(&self) {
        self.server.kill();
    }

    /// Has tokens live this many seconds from the next [`Oidc::rotate`] on.
    pub fn live(&self, seconds: u64) {
        *self.lifetime.lock().unwrap() = seconds;
    }

    /// A token of a client for a resource, which becomes its `aud`.
    pub async fn token(&self, client: &str, resource: &str) -> String {
        let answer = reqwest::Client::new()
            .post(format!("{}/token", self.issuer()))
            .basic_auth(client, Some(SECRET))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("grant_type=client_credentials&resource={resource}"))
            .send()
            .await
            .expect("ask for a token");
        let (status, body) = (answer.status(), answer.text().await.expect("an answer"));
        assert!(status.is_success(), "{status}: {body}");
        let answer: Value = serde_json::from_str(&body).expect("an answer in JSON");
        let token = answer["access_token"].as_str();
        token.expect("a token").to_owned()
    }
}

/// Writes what it is to do.
fn settle(
    folder: &Path,
    port: u16,
    keys: &[&str],
    lifetime: u64,
    clients: &BTreeMap<String, Value>,
) {
    let settings = json!({ "port": port, "keys": keys, "lifetime": lifetime, "clients": clients });
    fs::write(folder.join(SETTINGS), settings.to_string()).expect("write its settings");
}

/// The folder with the provider and what it needs.
fn installed() -> Option<PathBuf> {
    let folder = fs::canonicalize(servers().join("oidc")).ok()?;
    folder.join("fetched").is_file().then_some(folder)
}
