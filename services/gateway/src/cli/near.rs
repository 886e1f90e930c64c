//! "Did you mean": names near one that is not there.

use std::{cmp::Reverse, collections::BTreeSet, time::Duration};

use serde_json::json;
use stategate_client::{Client, EntityRef, Error, KindRef, Method, Search, SearchEvents};

use super::{
    failure::{Exit, Failure},
    text,
};

/// How long a person waits for a suggestion.
const PATIENCE: Duration = Duration::from_millis(700);
/// Names looked at.
const NAMES: u16 = 1_000;

/// What a call about an entity answered; when there is no such entity, with a name that may have been
/// meant.
pub(crate) async fn found<T>(
    client: &Client,
    entity: &EntityRef,
    answer: Result<T, Error>,
) -> Result<T, Failure> {
    match answer {
        Err(error) if error.is_not_found() => Err(missing(client, entity, error.into()).await),
        answer => Ok(answer?),
    }
}

/// The failure, with a name that may have been meant.
pub(crate) async fn missing(client: &Client, entity: &EntityRef, failure: Failure) -> Failure {
    let hint = tokio::time::timeout(PATIENCE, hint(client, entity)).await;
    match (hint, failure.message()) {
        (Ok(Some(hint)), Some(message)) => {
            Failure::new(Exit::NotFound, format!("{message}; {hint}"))
        }
        _ => failure,
    }
}

async fn hint(client: &Client, entity: &EntityRef) -> Option<String> {
    let of = KindRef::new(entity.domain(), entity.kind()).ok()?;
    if let Some(deleted) = deleted(client, &of, entity).await {
        return Some(deleted);
    }
    let here = client.search(&Search::new(&of).limit(NAMES)).await.ok()?;
    let mut keys: BTreeSet<String> = here
        .items
        .iter()
        .map(|found| found.entity.key().to_owned())
        .collect();
    if here.next.is_some() {
        keys.extend(alike(client, &of, entity.key()).await.unwrap_or_default());
    }
    if keys.is_empty() {
        let (domain, kind) = (entity.domain(), entity.kind());
        let kind = text::plain(&format!("{domain}/{kind}"));
        return Some(format!(
            "there is nothing of {kind}: `stategate stats` shows what there is"
        ));
    }
    if keys.contains(entity.key()) {
        return None;
    }
    let nearest = nearest(entity.key(), keys.iter().map(String::as_str))?;
    Some(format!("did you mean {}?", text::plain(nearest)))
}

/// When it is gone, and how it comes back.
async fn deleted(client: &Client, of: &KindRef, entity: &EntityRef) -> Option<String> {
    let filter = json!({"entity.key": {"$eq": entity.key()}});
    let newest = SearchEvents::new(of)
        .filter(&filter)
        .sort_by_reverse("position")
        .limit(1);
    let found = client.search_events(&newest).await.ok()?;
    let last = found.items.first()?;
    if last.method != Method::Del {
        return None;
    }
    let (domain, kind, key) = (entity.domain(), entity.kind(), entity.key());
    let before = last.version.get().saturating_sub(1);
    let command = format!("stategate revert {domain} {kind} {key} --version {before}");
    Some(format!(
        "version {} deleted it, and `{}` brings it back",
        last.version,
        text::plain(&command)
    ))
}

/// Keys that begin alike, of a type with more entities than can be looked at.
async fn alike(client: &Client, of: &KindRef, key: &str) -> Option<Vec<String>> {
    let begin: String = key.chars().take(key.chars().count().div_ceil(2)).collect();
    let filter = json!({"$or": [
        {"entity.key": {"$in": [key.to_uppercase(), key.to_lowercase()]}},
        {"entity.key": {"$prefix": begin}},
    ]});
    let search = SearchEvents::new(of).filter(&filter).limit(NAMES);
    let found = client.search_events(&search).await.ok()?;
    let keys = found
        .items
        .iter()
        .map(|event| event.entity.key().to_owned());
    Some(keys.collect())
}

/// The name that takes the fewest changes, if they are few enough to be slips.
fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let slips = (name.chars().count() / 3).clamp(1, 3);
    names
        .map(|other| (distance(name, other), other))
        .filter(|(distance, _)| *distance <= slips)
        // Slips are rarely at the beginning.
        .min_by_key(|(distance, other)| (*distance, Reverse(alike_from_the_start(name, other))))
        .map(|(_, other)| other)
}

fn alike_from_the_start(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(x, y)| x == y).count()
}

/// How many characters must be put in, taken out, changed or swapped with their neighbour. Upper and
/// lower case are the same.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    // Three rows of the table are enough: a swap looks two back.
    let mut before = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                let swapped: &Vec<usize> = &before;
                least = least.min(swapped[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_few_changes() {
        for (a, b, changes) in [
            ("JFL", "JFK", 1),
            ("jfk", "JFK", 0),
            ("JKF", "JFK", 1),
            ("JF", "JFK", 1),
            ("N14282", "N14228", 1),
            ("", "abc", 3),
        ] {
            assert_eq!(distance(a, b), changes, "{a} {b}");
        }
        let keys = ["BFL", "EWR", "JFK", "LGA"];
        assert_eq!(nearest("JFL", keys.into_iter()), Some("JFK"));
        assert_eq!(nearest("XXX", keys.into_iter()), None);
        assert_eq!(nearest("XWA", ["EWR"].into_iter()), None);
    }
}
