//! What a gateway exports at `/metrics` is what the table of metrics says: with its help and kind, and
//! nothing of ours beside it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what a test is made of may fail it too"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use stategate_protocol::pb;
use stategate_tests::{Form, Gateway, Options, Role, clients::everything};

/// The families of an exposition: their kinds and helps by name.
fn families(text: &str) -> BTreeMap<&str, (&str, &str)> {
    let mut helps = BTreeMap::new();
    let mut families = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
        {
            helps.insert(name, help);
        }
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            families.insert(name, (kind, *helps.get(name).unwrap_or(&"")));
        }
    }
    families
}

#[tokio::test]
async fn what_is_exported_is_in_the_table() {
    let mut gateway = Gateway::start(Options::new(Form::Three)).await;
    let mut clients = gateway.clients();
    let (_, mut stream) = clients.stream(everything(None)).await.expect("subscribe");
    let entity = pb::Entity {
        domain: "d".into(),
        r#type: "t".into(),
        key: "k".into(),
        values: Some(Default::default()),
        ..pb::Entity::default()
    };
    clients.commands.set(entity).await.expect("write");
    stream.message().await.expect("a stream").expect("an event");

    let table: BTreeMap<_, _> = stategate_metrics::all()
        .map(|row| (row.name, (row.kind, row.help)))
        .collect();
    let mut seen = BTreeSet::new();
    for role in [Role::Command, Role::Query, Role::Stream] {
        let text = gateway.process(role).http("/metrics").await.unwrap();
        for (name, family) in families(&text) {
            assert_eq!(table.get(name), Some(&family), "{name} of {role:?}");
            seen.insert(name.to_owned());
        }
    }
    println!("{} of {} metrics were seen", seen.len(), table.len());
    assert!(seen.len() >= 15, "{seen:?}");
    gateway.assert_no_errors();
}

/// Handles come from the table alone: there a metric has its help, unit and labels.
#[test]
fn no_metric_is_made_beside_the_table() {
    fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut paths, mut text) = (Vec::new(), String::new());
    for folder in ["libs", "services"] {
        sources(&root.join(folder), &mut paths);
    }
    for path in paths
        .iter()
        .filter(|path| !path.starts_with(root.join("libs/metrics")))
    {
        let source = fs::read_to_string(path).unwrap();
        for made in ["counter!(", "gauge!(", "histogram!("] {
            assert!(!source.contains(made), "{} in {}", made, path.display());
        }
        text.push_str(&source);
    }
    let source = fs::read_to_string(root.join("libs/metrics/src/lib.rs")).unwrap();
    let rows = source.lines().filter_map(|line| {
        let (id, rest) = line.trim().split_once(": ")?;
        let is_row = ["CounterOf<", "GaugeOf<", "HistogramOf<"];
        is_row
            .iter()
            .any(|kind| rest.starts_with(kind))
            .then_some(id)
    });
    let rows: Vec<&str> = rows.collect();
    assert_eq!(rows.len(), stategate_metrics::all().count());
    for id in rows {
        let name = format!("stategate_metrics::{id}");
        let mut after = text.split(&name).skip(1).map(str::trim_start);
        assert!(
            after.any(|rest| rest.starts_with('.')),
            "{id} is in the table and nobody records it"
        );
    }
}
