//! The current state: the entities of one type, or of every type that matches.

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
};

use serde::Deserialize;
use stategate_client::{Client, Error, KindRef, Search};
use stategate_model::Glob;

use super::{Exported, Format, Target, What, Writing, on_thread, sheet::Sheet, unwritable};
use crate::cli::{archive::Selection, failure::Failure, json::Entity, walk::Walk};

/// Entities asked for at once.
const PAGE: u16 = 1_000;

/// Which entity a line is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Name {
    domain: String,
    #[serde(rename = "type")]
    kind: String,
    key: String,
}

/// Writes what is selected.
pub(super) async fn export(
    client: &Client,
    selection: Selection,
    format: Format,
    is_exact: bool,
    target: Target,
) -> Result<Exported, Failure> {
    let keys = Glob::parse("key", &selection.key).map_err(Error::from)?;
    let kinds = kinds(client, &selection).await?;
    let (last, before) = match &target {
        Target::Old(path) => {
            let path = path.clone();
            on_thread(move || resume(&path)).await?
        }
        Target::New(_) | Target::Stdout => (None, 0),
    };
    let mut writing = Writing::new(target, What::Entities, None)?;
    writing.before = before;
    let mut sheet = Sheet::of(kinds.len());
    for (domain, kind) in &kinds {
        let of = KindRef::new(domain, kind).map_err(Error::from)?;
        let mut search = Search::new(&of)
            .filter_text(selection.filter.as_str())
            .limit(PAGE);
        loop {
            let page = client.search(&search).await?;
            for found in page.items {
                let entity = Entity::from(found);
                if !keys.matches(&entity.key) || is_before(&entity, last.as_ref()) {
                    continue;
                }
                match format {
                    Format::Ndjson => writing.line(&entity)?,
                    Format::Json => {
                        let before: &[u8] = if writing.count == 0 { b"[\n" } else { b",\n" };
                        writing.to.write_all(before)?;
                        serde_json::to_writer(&mut writing.to, &entity).map_err(io::Error::from)?;
                    }
                    Format::Csv | Format::Tsv => sheet.push(entity),
                }
                writing.count += 1;
            }
            let count = writing.count;
            writing.progress.show(count, 0, || count);
            match page.next {
                Some(token) => search = search.page(token),
                None => break,
            }
        }
    }
    match format {
        Format::Ndjson => {}
        Format::Json if writing.count == 0 => writing.to.write_all(b"[]\n")?,
        Format::Json => writing.to.write_all(b"\n]\n")?,
        Format::Csv => sheet.write(b',', is_exact, &mut writing.to)?,
        Format::Tsv => sheet.write(b'\t', is_exact, &mut writing.to)?,
    }
    writing.finish()
}

/// The types that are selected, in order: what is named, or what there is in the log.
async fn kinds(
    client: &Client,
    selection: &Selection,
) -> Result<BTreeSet<(String, String)>, Failure> {
    let domains = Glob::parse("domain", &selection.domain).map_err(Error::from)?;
    let types = Glob::parse("type", &selection.kind).map_err(Error::from)?;
    if let (Some(domain), Some(kind)) = (domains.exact(), types.exact()) {
        return Ok([(domain.to_owned(), kind.to_owned())].into());
    }
    let mut kinds = BTreeSet::new();
    let mut walk = Walk::begin(client, &selection.domain, None).await?;
    while let Some(event) = walk.next().await? {
        let (domain, kind) = (event.entity.domain(), event.entity.kind());
        if domains.matches(domain) && types.matches(kind) {
            kinds.insert((domain.to_owned(), kind.to_owned()));
        }
    }
    Ok(kinds)
}

fn is_before(entity: &Entity, last: Option<&Name>) -> bool {
    last.is_some_and(|last| {
        let name = (&entity.domain, &entity.kind, &entity.key);
        name <= (&last.domain, &last.kind, &last.key)
    })
}

/// The last whole line of a file, and how many it has. What comes after it is cut off: the rest of a
/// line. A file that is not what an export writes is left as it is.
fn resume(path: &Path) -> Result<(Option<Name>, u64), Failure> {
    let failed = |error| unwritable(path, &error);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(failed)?;
    let mut input = BufReader::new(&file);
    let (mut line, mut whole, mut count) = (Vec::new(), 0, 0);
    let mut last: Option<Name> = None;
    loop {
        line.clear();
        let read = input.read_until(b'\n', &mut line).map_err(failed)?;
        if read == 0 || !line.ends_with(b"\n") {
            break;
        }
        let cannot = |why: &str| {
            Failure::failed(format!(
                "{} cannot be resumed: line {} {why}",
                path.display(),
                count + 1
            ))
        };
        let name: Name =
            serde_json::from_slice(&line).map_err(|_| cannot("is no exported entity"))?;
        if last.as_ref().is_some_and(|last| *last >= name) {
            return Err(cannot(
                "is not after the one before it in the order of keys, so entities are doubled or out of order",
            ));
        }
        last = Some(name);
        whole += read as u64;
        count += 1;
    }
    file.set_len(whole).map_err(failed)?;
    Ok((last, count))
}
