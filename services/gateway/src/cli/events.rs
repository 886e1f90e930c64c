//! `history`: every change of one entity; and how an event is printed, here and by `watch`.

use serde_json::json as document;
use stategate_model::{Value, json as canonical};
use stategate_protocol::pb;

use super::{
    client::Gateway,
    failure::{Exit, Failure, Kind},
    json,
    output::{Form, Output, Screen},
    search::Appetite,
    table::{Cell, Table},
    text,
};

/// What `history` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    /// Business domain or tenant, such as `faa`
    domain: String,
    /// Kind of entity, such as `airport`
    #[arg(value_name = "TYPE")]
    kind: String,
    /// The entity's name within its kind, such as `JFK`
    key: String,
    /// Newest first
    #[arg(long)]
    reverse: bool,
    /// Most events to print; 0 prints all
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: u64,
}

/// Prints an entity's events.
pub(crate) async fn history(
    gateway: &Gateway,
    args: HistoryArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut appetite = Appetite::new(args.limit);
    let name = text::plain(&format!("{}/{}/{}", args.domain, args.kind, args.key));
    let mut options = pb::SearchEventOpts {
        domain: args.domain,
        r#type: args.kind,
        query_string: document!({"entity.key": {"$eq": args.key}}).to_string(),
        limit: appetite.page(),
        sort: args.reverse.then(|| pb::Sort {
            field: "position".to_owned(),
            reverse: true,
        }),
        ..pb::SearchEventOpts::default()
    };
    let mut found = 0_u64;
    loop {
        let request = gateway.request(options.clone());
        let answer = gateway
            .answer(Kind::Read, gateway.events().search(request))
            .await?
            .into_inner();
        let mut page: Vec<_> = answer.events.into_iter().map(json::Event::from).collect();
        appetite.take(&mut page);
        found += page.len() as u64;
        match output.form().clone() {
            Form::Json => page.iter().try_for_each(|event| output.json(event))?,
            Form::Text(screen) if !page.is_empty() => print_table(&page, output, &screen)?,
            Form::Text(_) => {}
        }
        if appetite.is_sated() || answer.next_page_token.is_empty() {
            break;
        }
        options.page_token = answer.next_page_token;
    }
    if found == 0 {
        let never = format!("no event of an entity {name}");
        return Err(Failure::new(Exit::NotFound, never));
    }
    Ok(())
}

fn print_table(
    events: &[json::Event],
    output: &mut Output,
    screen: &Screen,
) -> Result<(), Failure> {
    let header = ["VERSION", "TIME", "METHOD", "EVENT", "VALUES"];
    let mut table = Table::new(header.map(str::to_owned).to_vec());
    // `revert` takes the whole id.
    table.keep_whole(3);
    for event in events {
        table.row(vec![
            Cell::number(event.version.to_string()),
            Cell::text(text::time(event.time, &screen.zone)),
            Cell::text(text::method(&event.method)),
            Cell::text(text::plain(&event.id)),
            Cell::text(values(event)),
        ]);
    }
    output.table(&table, screen)
}

/// An event on one line: when, what, which entity, its values as far as they fit.
pub(crate) fn line(event: &json::Event, screen: &Screen) -> String {
    let time = text::time(event.time, &screen.zone);
    let method = text::method(&event.method);
    let Some(entity) = &event.entity else {
        let line = format!(
            "{time}  {method:<6}  lane {} position {}",
            event.lane, event.position
        );
        return screen.paint.faint(&text::cut(&line, screen.width));
    };
    let name = text::plain(&format!("{}/{}/{}", entity.domain, entity.kind, entity.key));
    let version = format!("v{}", event.version);
    let before = time.len() + method.len().max(6) + text::width(&name) + version.len() + 4 * 2;
    let shown = match screen.width.checked_sub(before) {
        Some(room) => text::cut(&values(event), room),
        None => String::new(),
    };
    format!(
        "{}  {method:<6}  {}  {version}  {shown}",
        screen.paint.faint(&time),
        screen.paint.bold(&name)
    )
}

fn values(event: &json::Event) -> String {
    let values = event
        .entity
        .as_ref()
        .and_then(|entity| entity.values.as_ref());
    values.map_or_else(String::new, |values| {
        text::plain(&canonical::canonical_value(&Value::Object(values.clone())))
    })
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::cli::output::Paint;

    #[test]
    fn an_event_is_one_line_that_fits() {
        let event = json::Event {
            id: "e1".to_owned(),
            entity: Some(json::Entity {
                domain: "faa".to_owned(),
                kind: "airport".to_owned(),
                key: "JFK".to_owned(),
                values: Some(
                    canonical::parse_object(r#"{"alt":13,"name":"John F Kennedy Intl"}"#).unwrap(),
                ),
                version: 0,
            }),
            claims: None,
            time: 1_357_020_000_000_000_000,
            method: "/stategate.EntityService/Set".to_owned(),
            version: 3,
            lane: 0,
            position: 9,
            trace_parent: String::new(),
        };
        let mut screen = Screen {
            width: 120,
            paint: Paint::Nothing,
            zone: TimeZone::UTC,
        };
        assert_eq!(
            line(&event, &screen),
            r#"2013-01-01 06:00:00.000  Set     faa/airport/JFK  v3  {"alt":13,"name":"John F Kennedy Intl"}"#
        );
        screen.width = 70;
        let shown = line(&event, &screen);
        assert!(text::width(&shown) <= 70 && shown.ends_with('…'), "{shown}");
    }
}
