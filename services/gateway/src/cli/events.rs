//! `events`: a search of the history of a type; and how an event is printed there and by `watch`.

use serde_json::Value;
use stategate_client::{Client, Error, KindRef, SearchEvents, Timestamp};

use super::{
    failure::Failure,
    json::Event,
    output::{Form, Output, Screen},
    search::{self, Appetite},
    table::{Cell, Table},
    text,
    when::When,
};

/// Most columns for who made an event, where its values stand beside it.
const AUTHOR_WIDTH: usize = 32;

/// What `events` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A filter's paths start at the event: entity.key, entity.values.x, claims.sub, method, time, version, \
position, lane.

Examples:
  stategate events faa airport
  stategate events faa airport '{\"entity.key\": {\"$in\": [\"JFK\", \"LGA\"]}}'
  stategate events faa airport --min 1h --reverse --limit 20
  stategate events faa airport --min 2026-01-01 --max 2026-01-31
  stategate events faa airport '{\"method\": \"/stategate.EntityService/Del\"}'
  stategate events faa plane '{\"claims.sub\": \"ada\"}' --sort entity.values.seats")]
pub(crate) struct Args {
    /// Business domain or tenant, such as `faa`
    domain: String,
    /// Kind of entity, such as `airport`
    #[arg(value_name = "TYPE")]
    kind: String,
    /// A JSON filter over the event, such as '{"entity.key": "JFK"}'; none: everything
    #[arg(default_value = "", hide_default_value = true)]
    filter: String,
    /// Only events from the beginning of this time on, as commands show times: 2026-01-31 15:47:44,
    /// 2026-01-31, 2026-01-31T15:47:44Z, nanoseconds, or how long ago (10m, 2h, 1d)
    #[arg(long, value_name = "TIME")]
    min: Option<When>,
    /// Only events up to the end of this time
    #[arg(long, value_name = "TIME")]
    max: Option<When>,
    /// Sort by the value at this path; else in the order they happened
    #[arg(long, value_name = "FIELD")]
    sort: Option<String>,
    /// Sort downwards: without --sort, the newest first
    #[arg(long)]
    reverse: bool,
    /// Most events to print; 0 prints all
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
    /// Events to leave out first
    #[arg(long, value_name = "N", default_value_t = 0)]
    offset: u32,
}

/// Prints what is found.
pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let of = KindRef::new(&args.domain, &args.kind).map_err(Error::from)?;
    let mut appetite = Appetite::new(args.limit);
    let mut search = SearchEvents::new(&of)
        .filter_text(args.filter)
        .offset(args.offset)
        .limit(appetite.page());
    search = match (args.sort, args.reverse) {
        (Some(field), false) => search.sort_by(field),
        (Some(field), true) => search.sort_by_reverse(field),
        (None, true) => search.sort_by_reverse("position"),
        (None, false) => search,
    };
    if let Some(min) = args.min {
        search = search.min(Timestamp(min.first()));
    }
    if let Some(max) = args.max {
        // None is bound by 0, and nothing happened before.
        search = search.max(Timestamp(max.last().max(1)));
    }
    output.begin_list();
    let mut found = 0_u64;
    loop {
        let mut page = client.search_events(&search).await?;
        let got = page.items.len();
        appetite.take(&mut page.items);
        let is_cut = page.items.len() < got || page.next.is_some();
        found += page.items.len() as u64;
        let events: Vec<_> = page.items.iter().map(Event::from).collect();
        match output.form().clone() {
            Form::Json => events.iter().try_for_each(|event| output.json(event))?,
            Form::Text(_) if events.is_empty() => {}
            Form::Text(screen) => output.table(&table(&events, &screen), &screen)?,
        }
        match page.next {
            Some(token) if !appetite.is_sated() => search = search.page(token),
            _ => {
                output.note(search::summary(found, is_cut));
                return Ok(());
            }
        }
    }
}

fn table(events: &[Event], screen: &Screen) -> Table {
    let is_signed = events.iter().any(|event| event.author().is_some());
    let mut header = vec!["TIME", "METHOD", "KEY", "VERSION"];
    if is_signed {
        header.push("BY");
    }
    header.push("VALUES");
    let mut table = Table::new(header.into_iter().map(str::to_owned).collect());
    for whole in [0, 2] {
        table.keep_whole(whole);
    }
    for event in events {
        let mut row = vec![
            Cell::text(screen.clock.time(event.time)),
            Cell::text(text::method(event.method)),
            Cell::text(text::plain(&event.entity.key)),
            Cell::number(event.version.to_string()),
        ];
        if is_signed {
            row.push(Cell::text(text::plain(event.author().unwrap_or_default())));
        }
        row.push(Cell::text(values(event)));
        table.row(row);
    }
    table
}

/// An event on one line: when, what, which entity, who, its values as far as they fit.
pub(crate) fn line(event: &Event, screen: &Screen) -> String {
    let time = screen.clock.exact_time(event.time);
    let method = text::method(event.method);
    let name = text::plain(&event.entity.name());
    let version = format!("v{}", event.version);
    // A name may be as long as a token permits.
    let by = event.author().map_or_else(String::new, |author| {
        let author = text::cut(&text::plain(author), AUTHOR_WIDTH);
        format!("  by {author}")
    });
    let before = text::width(&time)
        + method.len().max(6)
        + text::width(&name)
        + version.len()
        + text::width(&by)
        + 4 * 2;
    let shown = match screen.width.checked_sub(before) {
        Some(room) => text::cut(&values(event), room),
        None => String::new(),
    };
    let method = match method.as_str() {
        "Del" => screen.paint.red("Del   "),
        _ => format!("{method:<6}"),
    };
    format!(
        "{}  {method}  {}  {version}{}  {shown}",
        screen.paint.faint(&time),
        screen.paint.bold(&name),
        screen.paint.faint(&by),
    )
}

fn values(event: &Event) -> String {
    text::plain(&Value::Object(event.entity.values.clone()).to_string())
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use stategate_client::Method;

    use super::*;
    use crate::cli::{
        json::{self as answers, tests::event},
        output::Paint,
        text::Clock,
    };

    #[test]
    fn an_event_is_one_line_that_fits() {
        let values = r#"{"alt":13,"name":"John F Kennedy Intl"}"#;
        let event = Event::from(&event(3, Method::Set, values));
        let mut screen = Screen {
            width: 120,
            paint: Paint::Nothing,
            clock: Clock::Zone(TimeZone::UTC),
        };
        assert_eq!(
            line(&event, &screen),
            r#"2013-01-01 06:00:00.000  Set     faa/airport/JFK  v3  {"alt":13,"name":"John F Kennedy Intl"}"#
        );
        let mut signed = event.clone();
        signed.claims = serde_json::from_str(r#"{"sub":"ada"}"#)
            .map(answers::members)
            .unwrap();
        assert_eq!(
            line(&signed, &screen),
            r#"2013-01-01 06:00:00.000  Set     faa/airport/JFK  v3  by ada  {"alt":13,"name":"John F Kennedy Intl"}"#
        );
        let fitted = table(std::slice::from_ref(&event), &screen).fit(80);
        assert_eq!(
            fitted.header,
            "TIME                 METHOD  KEY  VERSION  VALUES"
        );
        screen.width = 70;
        let shown = line(&event, &screen);
        assert!(text::width(&shown) <= 70 && shown.ends_with('…'), "{shown}");
    }
}
