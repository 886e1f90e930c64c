//! `history`: every change of one entity, and what it changed; `diff`: what two states differ in.

use serde::Serialize;
use serde_json::{Map, Value, json};
use stategate_client::{Client, EntityRef, Error, KindRef, Method, SearchEvents, Version};

use super::{
    diff::{self, Change},
    entity::{self, RefArgs},
    failure::{Exit, Failure},
    json::{self as answers, Event},
    near,
    output::{Form, Output, Screen},
    search::Appetite,
    text,
    when::When,
};

/// What `history` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each version is shown with what it changed: + what came, - what went, ~ what became something else; and \
with its time, as exact as it must be to name this version in `get --at` and `revert --at`; and with who made \
it, where callers are authenticated. As JSON, each is the whole event with all claims that are kept.

Examples:
  stategate history faa airport JFK
  stategate history faa airport JFK --reverse --limit 3 --relative
  stategate history faa airport JFK --ndjson | jq .entity.values")]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    entity: RefArgs,
    /// Newest first
    #[arg(long)]
    reverse: bool,
    /// Most versions to print; 0 prints all
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: u64,
}

/// What `diff` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  stategate diff faa airport JFK 1 3
  stategate diff faa airport JFK 1            version 1 and now
  stategate diff faa airport JFK 1d 1h        yesterday and an hour ago
  stategate diff faa airport JFK '2026-01-31 15:47:44'
  stategate diff faa airport JFK 2026-01-31T08:00:00Z now --json")]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    entity: RefArgs,
    /// A version (3), the end of a time as commands show it (2026-01-31 15:47:44, 2026-01-31,
    /// 2026-01-31T15:47:44Z, nanoseconds), or how long ago (10m, 2h, 1d)
    #[arg(value_name = "A")]
    from: Moment,
    /// Another, or `now`
    #[arg(value_name = "B", default_value = "now")]
    to: Moment,
}

/// A point in an entity's past.
#[derive(Debug, Clone, PartialEq)]
enum Moment {
    Now,
    Version(Version),
    Time(When),
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "now" {
            return Ok(Self::Now);
        }
        let number = text.strip_prefix('v').unwrap_or(text);
        match (text.parse(), number.parse::<u64>()) {
            // Of so many digits, nanoseconds: no entity has as many versions.
            (Ok(time), _) => Ok(Self::Time(time)),
            (Err(_), Ok(0)) => Err("versions start at 1".to_owned()),
            (Err(_), Ok(version)) => Ok(Self::Version(Version::new(version))),
            (Err(problem), Err(_)) => Err(format!("{problem}; or write a version")),
        }
    }
}

/// Prints an entity's events.
pub(crate) async fn run(
    client: &Client,
    args: HistoryArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let entity = args.entity.entity()?;
    let of = KindRef::new(entity.domain(), entity.kind()).map_err(Error::from)?;
    let filter = json!({"entity.key": {"$eq": entity.key()}});
    let mut appetite = Appetite::new(args.limit);
    let mut search = SearchEvents::new(&of)
        .filter(&filter)
        .limit(appetite.page());
    if args.reverse {
        search = search.sort_by_reverse("position");
    }
    output.begin_list();
    let mut printer = Printer::new(args.reverse);
    loop {
        let found = client.search_events(&search).await?;
        for event in &found.items {
            printer.event(Event::from(event), &mut appetite, output)?;
        }
        // One more than is wanted says what the last one changed, or when it was over.
        match found.next {
            Some(page) if !printer.is_over(appetite) => search = search.page(page),
            _ => break,
        }
    }
    printer.end(output)?;
    if printer.is_empty {
        let name = text::plain(&entity.to_string());
        let never = Failure::new(Exit::NotFound, format!("no event of an entity {name}"));
        return Err(near::missing(client, &entity, never).await);
    }
    Ok(())
}

/// Versions as they are printed: with what each changed, which the one before it tells, and with a time
/// that ends before that of the one after it.
struct Printer {
    is_reverse: bool,
    is_empty: bool,
    /// The event that came last and is not printed yet, and the one that came before that.
    waits: Option<Event>,
    past: Option<Event>,
}

impl Printer {
    fn new(is_reverse: bool) -> Self {
        Self {
            is_reverse,
            is_empty: true,
            waits: None,
            past: None,
        }
    }

    fn is_over(&self, appetite: Appetite) -> bool {
        appetite.is_sated() && self.waits.is_none()
    }

    fn event(
        &mut self,
        event: Event,
        appetite: &mut Appetite,
        output: &mut Output,
    ) -> Result<(), Failure> {
        self.is_empty = false;
        let is_wanted = appetite.take_one();
        let Form::Text(screen) = output.form().clone() else {
            return if is_wanted {
                output.json(&event)
            } else {
                Ok(())
            };
        };
        if let Some(waits) = self.waits.take() {
            self.print(&waits, Some(&event), output, &screen)?;
            self.past = Some(waits);
        }
        self.waits = is_wanted.then_some(event);
        Ok(())
    }

    fn end(&mut self, output: &mut Output) -> Result<(), Failure> {
        match (self.waits.take(), output.form().clone()) {
            (Some(last), Form::Text(screen)) => self.print(&last, None, output, &screen),
            _ => Ok(()),
        }
    }

    fn print(
        &self,
        event: &Event,
        next: Option<&Event>,
        output: &mut Output,
        screen: &Screen,
    ) -> Result<(), Failure> {
        let (older, newer) = if self.is_reverse {
            (next, self.past.as_ref())
        } else {
            (self.past.as_ref(), next)
        };
        print(event, older, newer, output, screen)
    }
}

/// Prints one version.
fn print(
    event: &Event,
    before: Option<&Event>,
    after: Option<&Event>,
    output: &mut Output,
    screen: &Screen,
) -> Result<(), Failure> {
    let paint = screen.paint;
    let method = text::method(event.method);
    let method = match method.as_str() {
        "Del" => paint.red("Del   "),
        _ => format!("{method:<6}"),
    };
    let id = text::plain(&event.id);
    output.line(&format!(
        "{}  {method}  {}  {}",
        paint.bold(&format!("v{}", event.version)),
        screen
            .clock
            .time_before(event.time, after.map(|after| after.time)),
        paint.faint(&id)
    ))?;
    if let Some(author) = event.author() {
        let by = text::cut(&text::plain(author), screen.width.saturating_sub(5));
        output.line(&format!("  {}", paint.faint(&format!("by {by}"))))?;
    }
    let Some(state) = event.state() else {
        return output.line(&format!("  {}", paint.red("- everything")));
    };
    let changes = diff::changes(before.and_then(Event::state), Some(state));
    if changes.is_empty() {
        let nothing = if state.is_empty() {
            "no values"
        } else {
            "changed nothing"
        };
        return output.line(&format!("  {}", paint.faint(nothing)));
    }
    diff::print(&changes, output, screen)
}

/// One side of a comparison.
#[derive(Debug, Serialize)]
struct Side {
    /// The entity's version then; none when it did not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Map<String, Value>>,
}

/// What two states differ in.
#[derive(Debug, Serialize)]
struct Compared {
    from: Side,
    to: Side,
    changes: Vec<Change>,
}

/// Prints what two states of an entity differ in.
pub(crate) async fn diff(
    client: &Client,
    args: DiffArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let entity = args.entity.entity()?;
    let from = side(client, &entity, args.from).await?;
    let to = side(client, &entity, args.to).await?;
    if from.version.is_none() && to.version.is_none() {
        let name = text::plain(&entity.to_string());
        let never = format!("no entity {name} at either time");
        let never = Failure::new(Exit::NotFound, never);
        return Err(near::missing(client, &entity, never).await);
    }
    let compared = Compared {
        changes: diff::changes(from.values.as_ref(), to.values.as_ref()),
        from,
        to,
    };
    let Form::Text(screen) = output.form().clone() else {
        return output.json(&compared);
    };
    let name = |side: &Side| match &side.version {
        Some(version) => format!("version {version}"),
        None => "not there".to_owned(),
    };
    output.line(&format!(
        "{}  {}",
        screen.paint.bold(&text::plain(&entity.to_string())),
        screen.paint.faint(&format!(
            "{} → {}",
            name(&compared.from),
            name(&compared.to)
        ))
    ))?;
    if compared.changes.is_empty() {
        return output.line("  no difference");
    }
    diff::print(&compared.changes, output, &screen)
}

async fn side(client: &Client, entity: &EntityRef, moment: Moment) -> Result<Side, Failure> {
    let absent = Side {
        version: None,
        values: None,
    };
    let found = match moment {
        Moment::Now => client.get(entity).await,
        Moment::Time(when) => client.get_at(entity, entity::at(&when)).await,
        // By its event, since a version that deleted the entity is one to compare with, too.
        Moment::Version(version) => {
            let event = client.event_of_version(entity, version).await;
            let event = near::found(client, entity, event).await?;
            return Ok(Side {
                version: Some(version.to_string()),
                values: (event.method != Method::Del).then(|| answers::object(&event.values)),
            });
        }
    };
    match found {
        Ok(found) => Ok(Side {
            version: Some(found.version.to_string()),
            values: Some(answers::members(found.values)),
        }),
        Err(error) if error.is_not_found() => Ok(absent),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::cli::{
        json::tests::{claims, event},
        output::Paint,
        testing::Printed,
        text::Clock,
    };

    fn told(is_reverse: bool, limit: u64) -> Vec<String> {
        let mut events = vec![
            event(1, Method::Set, r#"{"alt":13,"name":"John F Kennedy Intl"}"#),
            event(
                2,
                Method::Edit,
                r#"{"alt":14,"name":"John F Kennedy Intl"}"#,
            ),
            event(3, Method::Del, r#"{"alt":14,"name":"John F Kennedy Intl"}"#),
            event(4, Method::Revert, r#"{"alt":13}"#),
        ];
        // The third follows within the second; the others have the same one, and look different.
        for (event, more) in events
            .iter_mut()
            .zip([0, 1_500_000_000, 1_500_900_000, 3_000_000_000])
        {
            event.time.0 += more;
        }
        if is_reverse {
            events.reverse();
        }
        let printed = Printed::default();
        let mut output = printed.text_output(Screen {
            width: 80,
            paint: Paint::Nothing,
            clock: Clock::Zone(TimeZone::UTC),
        });
        let mut appetite = Appetite::new(limit);
        let mut printer = Printer::new(is_reverse);
        for event in &events {
            printer
                .event(Event::from(event), &mut appetite, &mut output)
                .unwrap();
        }
        printer.end(&mut output).unwrap();
        output.finish(Ok(())).unwrap();
        printed.lines()
    }

    #[test]
    fn each_version_says_what_it_changed() {
        let version = |n, method, second| {
            format!(
                "v{n}  {method:<6}  2013-01-01 06:00:{second}  1b4e28ba-2fa1-4d2b-883f-0016d3cca427"
            )
        };
        let blocks = [
            vec![
                version(1, "Set", "00"),
                "  + alt   13".to_owned(),
                "  + name  John F Kennedy Intl".to_owned(),
            ],
            vec![
                version(2, "Edit", "01.500000"),
                "  ~ alt  13 → 14".to_owned(),
            ],
            vec![version(3, "Del", "01"), "  - everything".to_owned()],
            vec![version(4, "Revert", "03"), "  + alt  13".to_owned()],
        ];
        assert_eq!(told(false, 0), blocks.concat());
        assert_eq!(told(false, 2), blocks[..2].concat());
        let mut newest_first = blocks;
        newest_first.reverse();
        assert_eq!(told(true, 0), newest_first.concat());
        assert_eq!(told(true, 3), newest_first[..3].concat());
    }

    #[test]
    fn each_version_says_who_made_it() {
        let mut first = event(1, Method::Set, "{}");
        first.claims = claims(r#"{"iss":"https://a.example","sub":"ada","tenant":"acme"}"#);
        let printed = Printed::default();
        let screen = Screen {
            width: 80,
            paint: Paint::Nothing,
            clock: Clock::Zone(TimeZone::UTC),
        };
        let mut output = printed.text_output(screen.clone());
        print(&Event::from(&first), None, None, &mut output, &screen).unwrap();
        output.finish(Ok(())).unwrap();
        assert_eq!(printed.lines()[1], "  by ada");
    }

    #[test]
    fn moments_are_versions_times_or_now() {
        assert_eq!("now".parse(), Ok(Moment::Now));
        assert_eq!("3".parse(), Ok(Moment::Version(Version::new(3))));
        assert_eq!("v3".parse(), Ok(Moment::Version(Version::new(3))));
        for time in [
            "2h",
            "2013-01-01 06:00:00",
            "2013-01-01",
            "1357020000000000000",
        ] {
            assert!(matches!(time.parse(), Ok(Moment::Time(_))), "{time}");
        }
        for wrong in ["0", "-1", "then", ""] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }
}
