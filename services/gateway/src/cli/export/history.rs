//! The history: every event of the log, up to where it ended when the export began.

use std::{fs::OpenOptions, io::BufReader, path::Path};

use stategate_client::{Client, Error, Event, Token};
use stategate_model::{Filter, Glob};

use super::{Exported, Target, What, Writing, on_thread, unwritable};
use crate::cli::{
    archive::{End, Header, Item, Line, Reader, Selection},
    failure::{Exit, Failure},
    walk::{self, Walk},
};

/// Writes what is selected.
pub(super) async fn export(
    client: &Client,
    selection: Selection,
    target: Target,
) -> Result<Exported, Failure> {
    let wanted = Wanted::new(&selection)?;
    let heads = walk::heads(client, &selection.domain).await?;
    let header = Header::new(
        heads.log_id.to_string(),
        heads.iter().count(),
        selection.clone(),
    );
    let old = match &target {
        Target::Old(path) => {
            let (path, header, heads) = (path.clone(), header.clone(), heads.clone());
            on_thread(move || resume(&path, &header, &heads)).await?
        }
        Target::New(_) | Target::Stdout => None,
    };
    let (from, before) = match old {
        Some((token, before)) => (Some(token), before),
        None => (None, 0),
    };
    let is_new = from.is_none();
    let mut walk = Walk::begin(client, &selection.domain, from).await?;
    walk::same_log(&heads, Some(walk.heads()))?;
    let mut writing = Writing::new(target, What::Events, Some(walk.size()))?;
    writing.before = before;
    if is_new {
        writing.line(&header)?;
    }
    while let Some(event) = walk.next().await? {
        if wanted.is(&event) {
            writing.line(&Line::from(&event))?;
            writing.count += 1;
        }
        let count = writing.count;
        writing.progress.show(count, 0, || walk.read());
    }
    writing.line(&End {
        end: walk.heads().to_string(),
    })?;
    writing.finish()
}

/// Which events are.
struct Wanted {
    domain: Glob,
    kind: Glob,
    key: Glob,
    filter: Filter,
}

impl Wanted {
    fn new(selection: &Selection) -> Result<Self, Failure> {
        let glob = |field, text| Glob::parse(field, text).map_err(Error::from);
        Ok(Self {
            domain: glob("domain", &selection.domain)?,
            kind: glob("type", &selection.kind)?,
            key: glob("key", &selection.key)?,
            filter: Filter::parse_event(&selection.filter).map_err(Error::from)?,
        })
    }

    /// Decided here and not by the gateway, which would leave the end of the log unsaid for a while
    /// if nothing there matched.
    fn is(&self, event: &Event) -> bool {
        self.domain.matches(event.entity.domain())
            && self.kind.matches(event.entity.kind())
            && self.key.matches(event.entity.key())
            && (self.filter.is_all() || self.filter.matches_event(event).unwrap_or(false))
    }
}

/// Where a file goes on, and how many events it has; `None` when there is nothing in it. What comes
/// after its last whole event is cut off: the rest of a line, or the line that says that an export came
/// to its end. Nothing else is: a file that is not what an export writes is left as it is.
fn resume(path: &Path, header: &Header, heads: &Token) -> Result<Option<(Token, u64)>, Failure> {
    let failed = |error| unwritable(path, &error);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(failed)?;
    let mut token = beginning(heads)?;
    let (mut whole, mut count) = (0, 0);
    let name = path.display().to_string();
    if let Some(mut reader) = Reader::begin(BufReader::new(&file), &name)?
        && reader.is_ended()
    {
        same(path, reader.header(), header)?;
        whole = reader.whole();
        while let Some((_, item)) = reader.next()? {
            if !reader.is_ended() {
                break;
            }
            if let Item::Event(event) = item {
                if token.get(event.lane).is_none() {
                    return Err(foreign(path, "it has lanes that the log does not have"));
                }
                token.advance(event.lane, event.position);
                count += 1;
                whole = reader.whole();
            }
        }
    }
    if heads
        .iter()
        .any(|(lane, head)| token.get(lane).unwrap_or_default() > head)
    {
        return Err(foreign(path, "it goes on after the end of the log"));
    }
    file.set_len(whole).map_err(failed)?;
    Ok((whole > 0).then_some((token, count)))
}

fn same(path: &Path, old: &Header, header: &Header) -> Result<(), Failure> {
    if old == header {
        return Ok(());
    }
    Err(foreign(
        path,
        if old.log_id == header.log_id {
            "it has another selection of the log's events"
        } else {
            "it is the history of another log"
        },
    ))
}

fn foreign(path: &Path, why: &str) -> Failure {
    let path = path.display();
    Failure::new(Exit::Refused, format!("{path} cannot be resumed: {why}"))
}

/// Before the first event of every lane.
fn beginning(heads: &Token) -> Result<Token, Failure> {
    let lanes = heads.iter().map(|(lane, _)| format!("{lane}:0"));
    let lanes: Vec<_> = lanes.collect();
    let text = format!("{}/{}", heads.log_id, lanes.join(","));
    text.parse()
        .map_err(|_| Failure::failed("the gateway names a log without lanes"))
}
