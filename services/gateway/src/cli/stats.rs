//! `stats`: what there is, counted by reading the whole log.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher as _, RandomState},
};

use serde::Serialize;
use stategate_client::{Client, Event, Method};

use super::{
    failure::Failure,
    json::int64,
    output::{Form, Output, Screen},
    progress::Progress,
    table::{Cell, Table},
    text,
    walk::Walk,
};

/// What `stats` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The gateway keeps no such counts. They are made by reading the log from its beginning to where it ends \
when the command starts: with millions of events that takes its time, and a progress bar shows it.

Examples:
  stategate stats
  stategate stats faa
  stategate stats 'tenant-*' --json")]
pub(crate) struct Args {
    /// Only these domains, as a glob (* ? [a-z] {a,b})
    #[arg(value_name = "DOMAIN", default_value = "*", hide_default_value = true)]
    domain: String,
}

/// What there is of one type.
#[derive(Debug, Default)]
struct TypeCounts {
    /// Those that exist, by a hash of their key.
    entities: HashSet<u64>,
    deleted: HashSet<u64>,
    events: u64,
    last: i64,
}

/// What there is in one lane.
#[derive(Debug, Serialize)]
struct Lane {
    lane: u8,
    #[serde(serialize_with = "int64")]
    head: u64,
}

/// What there is of one type, as it is printed.
#[derive(Debug, Serialize)]
struct Line {
    domain: String,
    #[serde(rename = "type")]
    kind: String,
    entities: usize,
    deleted: usize,
    events: u64,
    #[serde(rename = "lastTime", serialize_with = "int64")]
    last: i64,
}

/// What there is.
#[derive(Debug, Serialize)]
struct Stats {
    #[serde(rename = "logId")]
    log_id: String,
    lanes: Vec<Lane>,
    types: Vec<Line>,
    domains: usize,
    entities: usize,
    events: u64,
}

/// Counts and prints.
pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let mut walk = Walk::begin(client, &args.domain, None).await?;
    let mut progress = Progress::new("events", Some(walk.size()));
    let mut counts = Counts::default();
    let counted = loop {
        match walk.next().await {
            Ok(Some(event)) => counts.add(&event),
            Ok(None) => break Ok(()),
            Err(failure) => break Err(failure),
        }
        progress.show(counts.events, 0, || walk.read());
    };
    progress.finish();
    counted?;
    let lanes = walk.heads().iter().map(|(lane, head)| Lane {
        lane: lane.0,
        head: head.get(),
    });
    let stats = counts.into_stats(walk.heads().log_id.to_string(), lanes.collect());
    match output.form().clone() {
        Form::Json => output.json(&stats),
        Form::Text(screen) => print(&stats, output, &screen),
    }
}

#[derive(Default)]
struct Counts {
    kinds: BTreeMap<(String, String), TypeCounts>,
    events: u64,
    /// Two keys of a type with one hash would be counted as one: among a million, once in millions of
    /// runs.
    hashes: RandomState,
}

impl Counts {
    fn add(&mut self, event: &Event) {
        self.events += 1;
        let entity = &event.entity;
        let name = (entity.domain().to_owned(), entity.kind().to_owned());
        let kind = self.kinds.entry(name).or_default();
        let key = self.hashes.hash_one(entity.key());
        kind.events += 1;
        kind.last = kind.last.max(event.time.0);
        if event.method == Method::Del {
            kind.entities.remove(&key);
            kind.deleted.insert(key);
        } else {
            kind.deleted.remove(&key);
            kind.entities.insert(key);
        }
    }

    fn into_stats(self, log_id: String, lanes: Vec<Lane>) -> Stats {
        let types: Vec<_> = self
            .kinds
            .into_iter()
            .map(|((domain, kind), counts)| Line {
                domain,
                kind,
                entities: counts.entities.len(),
                deleted: counts.deleted.len(),
                events: counts.events,
                last: counts.last,
            })
            .collect();
        let domains: HashSet<_> = types.iter().map(|line| line.domain.as_str()).collect();
        Stats {
            log_id,
            lanes,
            domains: domains.len(),
            entities: types.iter().map(|line| line.entities).sum(),
            events: self.events,
            types,
        }
    }
}

fn print(stats: &Stats, output: &mut Output, screen: &Screen) -> Result<(), Failure> {
    output.begin_list();
    output.line(&screen.paint.bold(&format!(
        "{} of {} in {}",
        text::counted(stats.events, "event", "events"),
        text::counted(stats.entities as u64, "entity", "entities"),
        text::counted(stats.domains as u64, "domain", "domains")
    )))?;
    if !stats.types.is_empty() {
        output.line("")?;
        output.table(&types(&stats.types, screen), screen)?;
    }
    output.line("")?;
    let mut lanes = Table::new(["LANE", "HEAD"].map(str::to_owned).to_vec());
    for lane in &stats.lanes {
        lanes.row(vec![
            Cell::number(lane.lane.to_string()),
            Cell::number(text::count(lane.head)),
        ]);
    }
    output.table(&lanes, screen)?;
    output.line(&screen.paint.faint(&format!("log {}", stats.log_id)))
}

fn types(types: &[Line], screen: &Screen) -> Table {
    let header = [
        "DOMAIN",
        "TYPE",
        "ENTITIES",
        "DELETED",
        "EVENTS",
        "LAST CHANGE",
    ];
    let mut table = Table::new(header.map(str::to_owned).to_vec());
    for line in types {
        table.row(vec![
            Cell::text(text::plain(&line.domain)),
            Cell::text(text::plain(&line.kind)),
            Cell::number(text::count(line.entities as u64)),
            Cell::number(text::count(line.deleted as u64)),
            Cell::number(text::count(line.events)),
            Cell::text(screen.clock.time(line.last)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::json::tests::event;

    #[test]
    fn entities_are_those_that_were_not_deleted_last() {
        let mut counts = Counts::default();
        for method in [Method::Set, Method::Edit, Method::Del] {
            counts.add(&event(1, method, "{}"));
        }
        let kind = counts.kinds.values().next().unwrap();
        assert_eq!((kind.entities.len(), kind.deleted.len()), (0, 1));
        counts.add(&event(4, Method::Revert, "{}"));
        let stats = counts.into_stats("x".to_owned(), Vec::new());
        assert_eq!((stats.entities, stats.events, stats.domains), (1, 4, 1));
        assert_eq!(stats.types[0].deleted, 0);
    }
}
