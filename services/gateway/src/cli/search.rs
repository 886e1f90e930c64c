//! `search`: the entities of a domain and type, through as many pages as it takes.

use std::collections::BTreeSet;

use stategate_model::{
    Value,
    json::{self as strict, Json},
};
use stategate_protocol::pb;

use super::{
    client::Gateway,
    failure::{Failure, Kind},
    json,
    output::{Form, Note, Output, Screen},
    table::{Cell, Table},
    text,
};

/// What `search` is asked for.
#[derive(Debug, clap::Args)]
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
    offset: i32,
}

/// How much of the results is still wanted, and how much of it to ask for at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appetite {
    left: u64,
    page: i32,
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
            page: i32::try_from(page).unwrap_or(1),
        }
    }

    /// The `limit` of each request.
    pub(crate) fn page(self) -> i32 {
        self.page
    }

    /// Takes what is wanted of a page.
    pub(crate) fn take<T>(&mut self, page: &mut Vec<T>) {
        page.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= page.len() as u64;
    }

    /// Whether everything wanted was taken.
    pub(crate) fn is_sated(self) -> bool {
        self.left == 0
    }
}

/// Prints what is found.
pub(crate) async fn run(gateway: &Gateway, args: Args, output: &mut Output) -> Result<(), Failure> {
    let mut appetite = Appetite::new(args.limit);
    let mut options = pb::SearchEntityOpts {
        domain: args.domain,
        r#type: args.kind,
        query_string: args.filter,
        limit: appetite.page(),
        offset: args.offset,
        sort: args.sort.map(|field| pb::Sort {
            field,
            reverse: args.reverse,
        }),
        ..pb::SearchEntityOpts::default()
    };
    let first = leading(&options);
    let mut found = 0_u64;
    loop {
        let request = gateway.request(options.clone());
        let answer = gateway
            .answer(Kind::Read, gateway.entities().search(request))
            .await?
            .into_inner();
        let mut page: Vec<_> = answer
            .entities
            .into_iter()
            .map(json::Entity::from)
            .collect();
        let got = page.len();
        appetite.take(&mut page);
        let is_cut = page.len() < got || !answer.next_page_token.is_empty();
        found += page.len() as u64;
        print(&page, &first, output)?;
        if appetite.is_sated() || answer.next_page_token.is_empty() {
            if let Form::Text(_) = output.form() {
                output.flush()?;
                summary(found, is_cut);
            }
            return Ok(());
        }
        options.page_token = answer.next_page_token;
        options.offset = 0;
    }
}

fn summary(found: u64, is_cut: bool) {
    let found = text::count(found);
    let note = if is_cut {
        format!("{found} shown, there are more: --limit N shows N, --limit 0 all")
    } else {
        format!("{found} found")
    };
    Note::stderr().say(&note);
}

fn print(page: &[json::Entity], first: &[String], output: &mut Output) -> Result<(), Failure> {
    match output.form().clone() {
        Form::Json => page.iter().try_for_each(|entity| output.json(entity)),
        Form::Text(_) if page.is_empty() => Ok(()),
        Form::Text(screen) => print_table(page, first, output, &screen),
    }
}

/// The values that the search is about, by their top-level names: what it sorts by, then what it
/// asks for. They stand first in a table, where there is room for them.
fn leading(options: &pb::SearchEntityOpts) -> Vec<String> {
    let mut paths: Vec<String> = options.sort.iter().map(|sort| sort.field.clone()).collect();
    // A filter that cannot be read here is the gateway's to refuse.
    if let Ok(Json::Object(members)) = strict::parse(&options.query_string) {
        let asked = members.into_iter().map(|(path, _)| path);
        paths.extend(asked.filter(|path| !path.starts_with('$')));
    }
    let tops = paths.iter().filter_map(|path| path.split('.').next());
    tops.map(str::to_owned).collect()
}

fn print_table(
    page: &[json::Entity],
    first: &[String],
    output: &mut Output,
    screen: &Screen,
) -> Result<(), Failure> {
    let present: BTreeSet<&String> = page
        .iter()
        .filter_map(|entity| entity.values.as_ref())
        .flat_map(|values| values.keys())
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
        row.extend(names.iter().map(|name| {
            let value = entity.values.as_ref().and_then(|values| values.get(*name));
            match value {
                None => Cell::default(),
                Some(number @ Value::Number(_)) => Cell::number(text::value(number)),
                Some(other) => Cell::text(text::value(other)),
            }
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
        let options = pb::SearchEntityOpts {
            query_string: r#"{"owner.name": "x", "$or": [{"a": 1}], "seats": {"$gte": 50}}"#
                .to_owned(),
            sort: Some(pb::Sort {
                field: "year".to_owned(),
                reverse: false,
            }),
            ..pb::SearchEntityOpts::default()
        };
        assert_eq!(leading(&options), ["year", "owner", "seats"]);
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
