//! `del`: one entity by its key, or many by a filter or glob, which asks first.

use serde::Serialize;
use stategate_client::{
    Client, Condition, Entity, EntityRef, Error, ErrorKind, KindRef, Outcome, Search, Transaction,
};
use stategate_model::Glob;

use super::{
    entity::{Done, TermsArgs},
    failure::{Exit, Failure},
    near,
    output::{Form, Output},
    progress::Progress,
    text,
};
use crate::prompt;

/// Most entities deleted at once.
const BATCH: usize = 500;
/// Most bytes of their values, which their events hold.
const BYTES: usize = 1 << 20;

/// What `del` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Many are deleted in transactions, each entity only if it is as it was found. Without --yes that asks.

Examples:
  stategate del faa airport JFK
  stategate del faa airport JFK --if-version 2
  stategate del faa plane --filter '{\"manufacturer\": \"EMBRAER\"}' --dry-run
  stategate del faa plane --match 'N1*' --yes")]
pub(crate) struct Args {
    /// Business domain or tenant, such as `faa`
    domain: String,
    /// Kind of entity, such as `airport`
    #[arg(value_name = "TYPE")]
    kind: String,
    /// The entity's name within its kind, such as `JFK`
    #[arg(required_unless_present_any = ["filter", "glob"], conflicts_with_all = ["filter", "glob"])]
    key: Option<String>,
    /// All entities whose values match this JSON filter; '{}' is every one
    #[arg(long)]
    filter: Option<String>,
    /// All entities whose key matches this glob (* ? [a-z] {a,b}); beside --filter, those that match both
    #[arg(long = "match", value_name = "GLOB")]
    glob: Option<String>,
    /// Do not ask before many are deleted
    #[arg(long)]
    yes: bool,
    /// Only print which would be deleted
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    terms: TermsArgs,
}

/// Deletes.
pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    match &args.key {
        Some(key) => {
            let entity = EntityRef::new(&args.domain, &args.kind, key).map_err(Error::from)?;
            one(client, &args, &entity, output).await
        }
        None => many(client, &args, output).await,
    }
}

async fn one(
    client: &Client,
    args: &Args,
    entity: &EntityRef,
    output: &mut Output,
) -> Result<(), Failure> {
    if args.dry_run {
        let found = near::found(client, entity, client.get(entity).await).await?;
        return print(&[found], output);
    }
    let written = client.del_if(args.terms.terms(), entity).await;
    let written = near::found(client, entity, written).await?;
    Done::new(entity, written.version, &written.token, written.replayed).print("deleted", output)
}

async fn many(client: &Client, args: &Args, output: &mut Output) -> Result<(), Failure> {
    if !args.terms.is_empty() {
        return Err(Failure::usage(
            "--if-version, --if-absent and --idempotency-key are for one entity; many are deleted as they were found",
        ));
    }
    let of = KindRef::new(&args.domain, &args.kind).map_err(Error::from)?;
    let found = matching(client, &of, args).await?;
    if args.dry_run {
        output.begin_list();
        return print(&found, output);
    }
    let name = text::plain(&format!("{}/{}", args.domain, args.kind));
    let count = found.len() as u64;
    if count == 0 {
        output.note(format!("no entity of {name} matches; nothing was deleted"));
    } else if !args.yes {
        let entities = text::counted(count, "entity", "entities");
        prompt::confirm(&format!("Delete {entities} of {name}?"))?;
    }
    // A person took their time to answer: what was found must still be what there is.
    if let Some(first) = found.first() {
        match client.get(&first.entity).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    let mut deleted = 0;
    for batch in batches(&found) {
        let count = batch.len() as u64;
        let gone = delete(client, &args.domain, batch).await;
        gone.map_err(|(outcome, failure)| {
            let message = failure.message().unwrap_or_default();
            let so_far = text::count(deleted);
            let these = match outcome {
                Outcome::NotWritten => String::new(),
                Outcome::MayBeWritten => {
                    format!(", and the next {} may have been", text::count(count))
                }
                Outcome::Written => format!(", and then {}", text::count(count)),
            };
            let message = format!("{message}; {so_far} were deleted before{these}");
            Failure::new(failure.exit(), message)
        })?;
        deleted += count;
    }
    match output.form() {
        Form::Json => output.json(&Deleted { deleted }),
        Form::Text(_) => output.line(&format!("deleted {} of {name}", text::count(deleted))),
    }
}

#[derive(Debug, Serialize)]
struct Deleted {
    deleted: u64,
}

async fn matching(client: &Client, of: &KindRef, args: &Args) -> Result<Vec<Entity>, Failure> {
    let glob = args.glob.as_deref().map(|glob| Glob::parse("match", glob));
    let glob = glob.transpose().map_err(Error::from)?;
    let mut search = Search::new(of)
        .filter_text(args.filter.clone().unwrap_or_default())
        .limit(1_000);
    let mut found = Vec::new();
    let mut progress = Progress::new("found", None);
    loop {
        let page = client.search(&search).await?;
        let count = found.len() as u64;
        progress.show(count, 0, || count);
        let wanted = page.items.into_iter().filter(|entity| {
            glob.as_ref()
                .is_none_or(|glob| glob.matches(entity.entity.key()))
        });
        found.extend(wanted);
        match page.next {
            Some(token) => search = search.page(token),
            None => {
                progress.finish();
                return Ok(found);
            }
        }
    }
}

/// As many at once as a transaction takes.
fn batches(found: &[Entity]) -> Vec<&[Entity]> {
    let mut batches = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (at, entity) in found.iter().enumerate() {
        let size = entity.values.to_string().len();
        if at > from && (at - from >= BATCH || bytes + size > BYTES) {
            batches.push(&found[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += size;
    }
    if from < found.len() {
        batches.push(&found[from..]);
    }
    batches
}

/// Deletes entities as they were found; or says why not, and what is known of it.
async fn delete(client: &Client, domain: &str, batch: &[Entity]) -> Result<(), (Outcome, Failure)> {
    let known = |error: Error| (error.outcome(), Failure::from(error));
    let mut transaction = Transaction::new(domain);
    for entity in batch {
        let as_found = Condition::Version(entity.version);
        transaction = transaction
            .del_if(as_found, &entity.entity)
            .map_err(known)?;
    }
    let found_in = client.position();
    match client.transact(transaction).await {
        Ok(done) => {
            let logs = (found_in.map(|at| at.log_id), done.token.map(|at| at.log_id));
            match logs {
                (Some(found), Some(deleted)) if found != deleted => {
                    let why = "the log of the gateway was replaced since they were found, and those of the new one that are at the same versions were deleted; `stategate revert` brings one back";
                    Err((Outcome::Written, Failure::new(Exit::Refused, why)))
                }
                _ => Ok(()),
            }
        }
        Err(error) if matches!(error.kind(), ErrorKind::VersionMismatch { .. }) => {
            let why = "an entity changed since it was found; look at it and run this again";
            Err((error.outcome(), Failure::new(Exit::Refused, why)))
        }
        Err(error) => Err(known(error)),
    }
}

fn print(found: &[Entity], output: &mut Output) -> Result<(), Failure> {
    for entity in found {
        match output.form() {
            Form::Json => output.json(&super::json::Entity::from(entity.clone()))?,
            Form::Text(_) => output.line(&text::plain(&entity.entity.to_string()))?,
        }
    }
    let count = text::count(found.len() as u64);
    output.note(format!("{count} would be deleted"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use stategate_client::{Version, json};

    use super::*;

    #[test]
    fn batches_are_as_large_as_a_transaction_takes() {
        let entity = |size: usize| Entity {
            entity: EntityRef::new("d", "t", "k").unwrap(),
            values: json!("x".repeat(size)),
            version: Version::new(1),
        };
        let sizes = |found: &[Entity]| -> Vec<usize> {
            batches(found).iter().map(|batch| batch.len()).collect()
        };
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&vec![entity(1); 1_001]), [500, 500, 1]);
        assert_eq!(sizes(&vec![entity(600_000); 3]), [1, 1, 1]);
        assert_eq!(sizes(&[entity(9), entity(2_000_000), entity(9)]), [1, 1, 1]);
    }
}
