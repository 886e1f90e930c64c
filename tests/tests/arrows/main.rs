//! Who may depend on whom: the arrows of the architecture, read off the real dependency graph.
//!
//! ARCHITECTURE.md draws them; this fails when a manifest draws another. Within a crate, modules do not use
//! each other in a circle.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

mod circles;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use cargo_metadata::{
    DependencyKind::{self, Build, Development, Normal},
    Metadata, MetadataCommand, PackageId,
};

const MODEL: &str = "stategate-model";
const API: &str = "stategate-api";
const PROTOCOL: &str = "stategate-protocol";
const STORAGE: &str = "stategate-storage";
const CHANNEL: &str = "stategate-channel";
const SERVER: &str = "stategate-server";
const RUNTIME: &str = "stategate-runtime";
const SERVICES: [&str; 3] = ["stategate-command", "stategate-query", "stategate-stream"];
/// Those that may know storage and channel at once.
const JOINERS: [&str; 7] = [
    RUNTIME,
    "stategate-command",
    "stategate-query",
    "stategate-stream",
    "stategate",
    "stategate-tests",
    "stategate-loadtest",
];

/// The root of the repository.
fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().unwrap()
}

/// The graph as it is built on this machine: what other systems add is not in it.
struct Graph {
    metadata: Metadata,
    names: BTreeMap<PackageId, String>,
    arrows: BTreeMap<PackageId, Vec<(PackageId, Vec<DependencyKind>)>>,
}

impl Graph {
    fn read() -> Self {
        let rustc = Command::new("rustc").arg("-vV").output().unwrap();
        let about = String::from_utf8(rustc.stdout).unwrap();
        let host = about.lines().find_map(|line| line.strip_prefix("host: "));
        let metadata = MetadataCommand::new()
            .manifest_path(root().join("Cargo.toml"))
            .features(cargo_metadata::CargoOpt::AllFeatures)
            .other_options([
                "--locked".to_owned(),
                "--filter-platform".to_owned(),
                host.unwrap().to_owned(),
            ])
            .exec()
            .unwrap();
        let names = metadata
            .packages
            .iter()
            .map(|package| (package.id.clone(), package.name.to_string()))
            .collect();
        let nodes = metadata.resolve.clone().unwrap().nodes;
        let arrows = nodes.into_iter().map(|node| {
            let targets = node.deps.into_iter().map(|dependency| {
                let kinds = dependency.dep_kinds.iter().map(|kind| kind.kind).collect();
                (dependency.pkg, kinds)
            });
            (node.id, targets.collect())
        });
        Self {
            arrows: arrows.collect(),
            names,
            metadata,
        }
    }

    fn id(&self, name: &str) -> &PackageId {
        let found = self
            .metadata
            .workspace_members
            .iter()
            .find(|id| self.names[*id] == name);
        found.unwrap_or_else(|| panic!("{name} is no member of the workspace"))
    }

    /// The names of everything reached from a member over arrows of these kinds. Beyond the first
    /// step only what is built counts: nobody builds the tests of a dependency.
    fn reached(&self, name: &str, kinds: &[DependencyKind]) -> BTreeSet<&str> {
        let from = self.id(name);
        let mut seen = BTreeSet::new();
        let mut ahead = vec![(from, kinds)];
        while let Some((id, kinds)) = ahead.pop() {
            for (target, of) in self.arrows.get(id).into_iter().flatten() {
                if target != from
                    && of.iter().any(|kind| kinds.contains(kind))
                    && seen.insert(target)
                {
                    ahead.push((target, &[Normal, Build]));
                }
            }
        }
        seen.into_iter().map(|id| self.names[id].as_str()).collect()
    }

    /// What a package names among its dependencies.
    fn uses(&self, name: &str) -> BTreeSet<&str> {
        let arrows = self.arrows.get(self.id(name)).into_iter().flatten();
        let built = arrows.filter(|(_, of)| of.contains(&Normal));
        built.map(|(id, _)| self.names[id].as_str()).collect()
    }

    fn members(&self) -> impl Iterator<Item = &str> {
        let members = self.metadata.workspace_members.iter();
        members.map(|id| self.names[id].as_str())
    }

    fn assert_apart(&self, from: &str, kinds: &[DependencyKind], strangers: &[&str]) {
        let reached = self.reached(from, kinds);
        for stranger in strangers {
            assert!(
                !reached.contains(stranger),
                "{from} must not know {stranger} ({kinds:?})"
            );
        }
    }
}

#[test]
fn the_model_is_plain() {
    let graph = Graph::read();
    let reached = graph.reached(MODEL, &[Normal]);
    let strangers = [
        "tokio",
        "tokio-util",
        "futures",
        "async-trait",
        "tonic",
        "prost",
        "prost-types",
        "hyper",
        "h2",
        "http",
        "axum",
        "rusqlite",
        "libsqlite3-sys",
        "tracing",
    ];
    graph.assert_apart(MODEL, &[Normal, Build], &strangers);
    for name in &reached {
        assert!(
            !name.starts_with("sqlx") && !name.starts_with("stategate-"),
            "{MODEL} must not know {name}"
        );
    }
    println!("{MODEL} stands on {} crates: {reached:?}", reached.len());
    assert!(reached.contains("serde_json"), "the graph was not read");
}

#[test]
fn who_calls_and_what_they_may_do_is_decided_on_the_model_alone() {
    let graph = Graph::read();
    let strangers = [PROTOCOL, SERVER, STORAGE, CHANNEL, RUNTIME, "tonic", "axum"];
    for decides in ["stategate-auth", "stategate-policy"] {
        graph.assert_apart(decides, &[Normal, Build], &strangers);
    }
}

#[test]
fn the_boundary_knows_no_transport() {
    let graph = Graph::read();
    let strangers = [
        "tonic", "prost", "http", "hyper", "h2", "axum", PROTOCOL, SERVER, STORAGE, CHANNEL,
        RUNTIME,
    ];
    graph.assert_apart(API, &[Normal, Build], &strangers);
    // Services are below it too: what they take and give is typed.
    for service in SERVICES {
        let uses = graph.uses(service);
        for transport in ["tonic", "http", "hyper", "h2", "axum", SERVER] {
            assert!(
                !uses.contains(transport),
                "{service} must not use {transport}"
            );
        }
        assert!(uses.contains(API), "{service} takes typed calls: {uses:?}");
    }
}

#[test]
fn storage_and_channel_know_neither_each_other_nor_the_wire() {
    let graph = Graph::read();
    // In their tests neither: a suite that needs the other side proves nothing about this one.
    let kinds = [Normal, Build, Development];
    let wire = ["tonic", "prost", "tonic-prost", "axum"];
    graph.assert_apart(STORAGE, &kinds, &[CHANNEL, PROTOCOL, SERVER]);
    graph.assert_apart(STORAGE, &[Normal, Build], &wire);
    graph.assert_apart(CHANNEL, &kinds, &[STORAGE, PROTOCOL, SERVER]);
    graph.assert_apart(CHANNEL, &[Normal, Build], &wire);
    graph.assert_apart(CHANNEL, &kinds, &["rusqlite", "libsqlite3-sys"]);
}

#[test]
fn the_edge_knows_no_storage_and_no_channel() {
    let graph = Graph::read();
    for edge in [SERVER, PROTOCOL] {
        let kinds = [Normal, Build, Development];
        graph.assert_apart(edge, &kinds, &[STORAGE, CHANNEL, "rusqlite"]);
        graph.assert_apart(edge, &kinds, &SERVICES);
        graph.assert_apart(edge, &kinds, &["stategate"]);
    }
    graph.assert_apart(PROTOCOL, &[Normal, Build, Development], &[SERVER]);
}

#[test]
fn only_services_join_what_they_stand_on() {
    let graph = Graph::read();
    let mut joined = 0;
    for member in graph.members() {
        let reached = graph.reached(member, &[Normal, Build, Development]);
        if reached.contains(STORAGE) && reached.contains(CHANNEL) {
            joined += 1;
            assert!(JOINERS.contains(&member), "{member} joins both");
        }
    }
    assert!(joined >= 3, "the graph was not read: {joined} join");
}

#[test]
fn services_do_not_know_each_other() {
    let graph = Graph::read();
    for service in SERVICES {
        let others: Vec<&str> = SERVICES
            .into_iter()
            .chain(["stategate"])
            .filter(|other| *other != service)
            .collect();
        graph.assert_apart(service, &[Normal, Build, Development], &others);
        let reached = graph.reached(service, &[Normal]);
        for below in [MODEL, API, RUNTIME, STORAGE] {
            assert!(reached.contains(below), "{service} stands on {below}");
        }
    }
    // Libraries know no service at all.
    for member in graph.members() {
        if member == RUNTIME || !JOINERS.contains(&member) {
            graph.assert_apart(member, &[Normal, Build, Development], &SERVICES);
        }
    }
}

/// What is really built: the metadata also has what optional features of dependencies name.
fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--prefix", "none"])
        .args(["--edges", "normal,build,dev"])
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{arguments:?}: {tree:?}");
    let names = String::from_utf8(tree.stdout).unwrap();
    let names = names.lines().filter_map(|line| line.split(' ').next());
    let names = names.filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

#[test]
fn one_tls_and_no_openssl() {
    let default = tree(&[]);
    let all = tree(&["--all-features"]);
    for stranger in ["ring", "openssl", "native-tls"] {
        assert!(!all.contains(stranger), "{stranger} is in the tree");
    }
    assert!(default.contains("rustls") && default.contains("aws-lc-rs"));
    // Kafka's driver is C and takes TLS from nothing else; no default build has it.
    assert!(!default.contains("openssl-sys"));
    let whose = tree(&["--all-features", "--invert", "openssl-sys", "--depth", "1"]);
    let whose: Vec<_> = whose.iter().map(String::as_str).collect();
    assert_eq!(whose, ["openssl-sys", "rdkafka-sys"]);
    println!(
        "{} crates are in the tree, {} with all features",
        default.len(),
        all.len()
    );
}

#[test]
fn every_crate_says_what_it_is_and_keeps_the_lints() {
    let graph = Graph::read();
    let mut checked = 0;
    for id in &graph.metadata.workspace_members {
        let package = &graph.metadata[id];
        let name = &package.name;
        let about = package.description.as_deref().unwrap_or_default();
        assert!(about.len() >= 20, "{name} has no description: {about:?}");
        assert_eq!(package.license.as_deref(), Some("Apache-2.0"), "{name}");
        assert!(
            package.publish.as_ref().is_some_and(Vec::is_empty),
            "{name} may be published"
        );
        let manifest = fs::read_to_string(&package.manifest_path).unwrap();
        let lints = manifest.split("[lints]").nth(1).unwrap_or_default();
        let first = lints.lines().find(|line| !line.trim().is_empty());
        assert_eq!(first, Some("workspace = true"), "{name}: [lints]");
        checked += 1;
    }
    assert!(checked >= 11, "only {checked} crates were checked");
}

/// The folders of providers: everything below `src` of a crate but what all of them share.
fn providers(of: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(of)).unwrap();
    let folders = entries.map(|entry| entry.unwrap()).filter(|entry| {
        let is_shared = ["conformance", "link"]
            .iter()
            .any(|name| entry.file_name() == *name);
        entry.file_type().unwrap().is_dir() && !is_shared
    });
    let names = folders.map(|entry| entry.file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn a_provider_knows_no_other_provider() {
    let mut checked = 0;
    for of in ["libs/storage/src", "libs/channel/src"] {
        let names = providers(of);
        for provider in &names {
            for entry in fs::read_dir(root().join(of).join(provider)).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_none_or(|extension| extension != "rs") {
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap();
                for other in names.iter().filter(|other| *other != provider) {
                    let use_of = format!("crate::{other}");
                    assert!(!text.contains(&use_of), "{} uses {other}", path.display());
                }
                checked += 1;
            }
        }
    }
    assert!(checked >= 8, "only {checked} files were read");
}

/// The circles that are left. The list only shrinks: one that is gone is removed from it.
const CIRCLES: [&str; 0] = [];

#[test]
fn modules_do_not_use_each_other_in_a_circle() {
    let graph = Graph::read();
    let mut found = BTreeSet::new();
    for id in &graph.metadata.workspace_members {
        let manifest = graph.metadata[id].manifest_path.as_std_path();
        let folder = manifest.parent().unwrap();
        let name = folder.strip_prefix(root()).unwrap().display();
        let circles = circles::circles(&folder.join("src"));
        found.extend(circles.iter().map(|circle| format!("{name} {circle}")));
    }
    assert_eq!(found, BTreeSet::from(CIRCLES.map(str::to_owned)));
}

/// Every file that is in the repository, or would be with the next commit.
fn files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output();
    match listed {
        Ok(listed) if listed.status.success() => {
            let names = String::from_utf8(listed.stdout).unwrap();
            let names = names.split_terminator('\0').map(|name| root().join(name));
            names.filter(|path| path.is_file()).collect()
        }
        // Not a clone: an archive of the sources, which has what is in the repository and what was
        // built.
        _ => {
            let mut found = Vec::new();
            let mut ahead = vec![root()];
            while let Some(folder) = ahead.pop() {
                for entry in fs::read_dir(folder).unwrap() {
                    let entry = entry.unwrap();
                    let kind = entry.file_type().unwrap();
                    if kind.is_dir() && entry.file_name() != "target" {
                        ahead.push(entry.path());
                    } else if kind.is_file() {
                        found.push(entry.path());
                    }
                }
            }
            found
        }
    }
}

#[test]
fn no_file_knows_where_it_was_written() {
    // In parts, so that this file is none of them.
    let places = [
        concat!("/", "work/"),
        concat!("/", "home/"),
        concat!("/", "root/"),
    ];
    let files = files();
    for path in &files {
        let bytes = fs::read(path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for (number, line) in text.lines().enumerate() {
            for place in places {
                assert!(
                    !line.contains(place),
                    "{}:{}: names a place on one machine, {place}",
                    path.display(),
                    number + 1
                );
            }
        }
    }
    println!("{} files were read", files.len());
    assert!(files.len() >= 100, "only {} files were read", files.len());
}
