//! `search`: the entities of a domain and type, through as many pages as it takes.

use std::collections::BTreeSet;

use serde_json::Value;
use stategate_client::{Client, Error, KindRef, Search};
use stategate_model::json::{self as strict, Json};

use super::{
    failure::Failure,
    json::Entity,
    output::{Form, Output, Screen},
    table::{Cell, Table},
    text,
};

/// What `search` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Filters: {\"a.b\": v} equality at a path; $eq $ne $gt $gte $lt $lte $in $nin $exists $prefix $contains \
on a value; $and $or $not on filters. An array on the path is entered: any element may match.

Examples:
  stategate search faa plane
  stategate search faa plane '{\"manufacturer\": \"EMBRAER\", \"year\": {\"$gte\": 2010}}'
  stategate search faa plane '{\"seats\": {\"$gte\": 300}}' --sort year --limit 5
  stategate search faa airport '{\"name\": {\"$contains\": \"Field\"}}' --limit 0")]
pub(crate) struct Args {
    /// Business domain or tenant, such as `faa`
    domain: String,
    /// Kind of entity, such as `plane`
    #[arg(value_name = "TYPE")]
    kind: String,
    /// A JSON filter over the values, such as '{"seats": {"$gte": 50}}'; none: everything
    #[arg(default_value = "", hide_default_value = true)]
    filter: String,
    /// Sort by the value at this path, such as `seats` or `owner.name`; else by key
    #[arg(long, value_name = "FIELD")]
    sort: Option<String>,
    /// Sort downwards
    #[arg(long, requires = "sort")]
    reverse: bool,
    /// Most entities to print; 0 prints all
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
    /// Entities to leave out first
    #[arg(long, value_name = "N", default_value_t = 0)]
    offset: u32,
}

/// How much of the results is still wanted, and how much of it to ask for at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appetite {
    left: u64,
    page: u16,
}

impl Appetite {
    /// For a limit, where 0 is all.
    pub(crate) fn new(limit: u64) -> Self {
        const MOST: u64 = 10_000;
        // Results end a page at some megabytes anyway; smaller pages come sooner.
        const COMFORTABLE: u64 = 1_000;
        let left = if limit == 0 { u64::MAX } else { limit };
        // Every page has the same size, since a page token belongs to the request it came from.
        let page = if left <= MOST { left } else { COMFORTABLE };
        Self {
            left,
            page: u16::try_from(page).unwrap_or(1),
        }
    }

    /// The `limit` of each request.
    pub(crate) fn page(self) -> u16 {
        self.page
    }

    /// Takes what is wanted of a page.
    pub(crate) fn take<T>(&mut self, page: &mut Vec<T>) {
        page.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= page.len() as u64;
    }

    /// Whether one more is wanted; it is taken then.
    pub(crate) fn take_one(&mut self) -> bool {
        let is_wanted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_wanted
    }

    /// Whether everything wanted was taken.
    pub(crate) fn is_sated(self) -> bool {
        self.left == 0
    }
}

/// Prints what is found.
pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let of = KindRef::new(&args.domain, &args.kind).map_err(Error::from)?;
    let first = leading(args.sort.as_deref(), &args.filter);
    let mut appetite = Appetite::new(args.limit);
    let mut search = Search::new(&of)
        .filter_text(args.filter)
        .offset(args.offset)
        .limit(appetite.page());
    search = match (args.sort, args.reverse) {
        (Some(field), false) => search.sort_by(field),
        (Some(field), true) => search.sort_by_reverse(field),
        (None, _) => search,
    };
    output.begin_list();
    let mut found = 0_u64;
    loop {
        let mut page = client.search(&search).await?;
        let got = page.items.len();
        appetite.take(&mut page.items);
        let is_cut = page.items.len() < got || page.next.is_some();
        found += page.items.len() as u64;
        let entities: Vec<_> = page.items.into_iter().map(Entity::from).collect();
        print(&entities, &first, output)?;
        match page.next {
            Some(token) if !appetite.is_sated() => search = search.page(token),
            _ => {
                output.note(summary(found, is_cut));
                return Ok(());
            }
        }
    }
}

/// How much was found, and whether that is all.
pub(crate) fn summary(found: u64, is_cut: bool) -> String {
    let found = text::count(found);
    if is_cut {
        format!("{found} shown, there are more: --limit N shows N, --limit 0 all")
    } else {
        format!("{found} found")
    }
}

fn print(page: &[Entity], first: &[String], output: &mut Output) -> Result<(), Failure> {
    match output.form().clone() {
        Form::Json => page.iter().try_for_each(|entity| output.json(entity)),
        Form::Text(_) if page.is_empty() => Ok(()),
        Form::Text(screen) => print_table(page, first, output, &screen),
    }
}

/// The values that the search is about, by their top-level names: what it sorts by, then what it
/// asks for. They stand first in a table, where there is room for them.
fn leading(sort: Option<&str>, filter: &str) -> Vec<String> {
    let mut paths: Vec<String> = sort.iter().map(|field| (*field).to_owned()).collect();
    // A filter that cannot be read here is the gateway's to refuse.
    if let Ok(Json::Object(members)) = strict::parse(filter) {
        let asked = members.into_iter().map(|(path, _)| path);
        paths.extend(asked.filter(|path| !path.starts_with('$')));
    }
    let tops = paths.iter().filter_map(|path| path.split('.').next());
    tops.map(str::to_owned).collect()
}

fn print_table(
    page: &[Entity],
    first: &[String],
    output: &mut Output,
    screen: &Screen,
) -> Result<(), Failure> {
    let present: BTreeSet<&String> = page
        .iter()
        .flat_map(|entity| entity.values.keys())
        .collect();
    let mut names: Vec<&String> = Vec::with_capacity(present.len());
    for name in first.iter().chain(present.iter().copied()) {
        if present.contains(name) && !names.contains(&name) {
            names.push(name);
        }
    }
    let mut header = vec!["KEY".to_owned()];
    header.extend(names.iter().map(|name| text::plain(name)));
    let mut table = Table::new(header);
    table.keep_whole(0);
    for entity in page {
        let mut row = vec![Cell::text(text::plain(&entity.key))];
        row.extend(names.iter().map(|name| match entity.values.get(*name) {
            None => Cell::default(),
            Some(number @ Value::Number(_)) => Cell::number(text::value(number)),
            Some(other) => Cell::text(text::value(other)),
        }));
        table.row(row);
    }
    output.table(&table, screen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_search_is_about_comes_first() {
        let filter = r#"{"owner.name": "x", "$or": [{"a": 1}], "seats": {"$gte": 50}}"#;
        assert_eq!(leading(Some("year"), filter), ["year", "owner", "seats"]);
        assert!(leading(None, "{").is_empty());
    }

    #[test]
    fn limits_become_pages_of_one_size() {
        for (limit, page) in [
            (0, 1_000),
            (1, 1),
            (100, 100),
            (10_000, 10_000),
            (10_001, 1_000),
        ] {
            assert_eq!(Appetite::new(limit).page(), page, "{limit}");
        }
        let mut appetite = Appetite::new(3);
        let mut first = vec![1, 2];
        appetite.take(&mut first);
        assert!(!appetite.is_sated());
        let mut second = vec![3, 4];
        appetite.take(&mut second);
        assert_eq!((first, second), (vec![1, 2], vec![3]));
        assert!(appetite.is_sated());
    }
}
