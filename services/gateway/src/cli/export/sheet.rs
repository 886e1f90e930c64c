//! Entities as a sheet: a row each, a column for each top-level value that any of them has.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use serde_json::Value;

use crate::cli::{
    failure::Failure,
    json::Entity,
    sheet::{Cell, OF_MANY, OF_ONE},
};

/// Rows that wait for all columns to be known.
#[derive(Debug)]
pub(super) struct Sheet {
    names: &'static [&'static str],
    rows: Vec<Entity>,
    columns: BTreeSet<String>,
}

impl Sheet {
    /// A sheet of so many types.
    pub(super) fn of(types: usize) -> Self {
        Self {
            names: if types > 1 { OF_MANY } else { OF_ONE },
            rows: Vec::new(),
            columns: BTreeSet::new(),
        }
    }

    pub(super) fn push(&mut self, entity: Entity) {
        for name in entity.values.keys() {
            if !self.columns.contains(name) {
                self.columns.insert(name.clone());
            }
        }
        self.rows.push(entity);
    }

    /// Writes the sheet: `is_exact`, as the values are, else for spreadsheets (see [`crate::cli::sheet`]).
    pub(super) fn write(
        self,
        delimiter: u8,
        is_exact: bool,
        to: &mut impl Write,
    ) -> Result<(), Failure> {
        let text = |text: &str| match is_exact {
            true => Cell::bare(text),
            false => Cell::text(text),
        };
        let value = |value: Option<&Value>| match is_exact {
            true => exact(value),
            false => Cell::value(value),
        };
        if is_exact && let Some(name) = self.names.iter().find(|name| self.columns.contains(**name))
        {
            return Err(Failure::failed(format!(
                "a value is named `{name}`, as a column of every sheet is; leave --exact out, which tells them apart"
            )));
        }
        let names = self.names.iter().copied().map(Cell::bare);
        let columns = self.columns.iter().map(|name| text(name));
        record(to, delimiter, names.chain(columns))?;
        for row in &self.rows {
            let name = |column: &&str| match *column {
                "@domain" => text(&row.domain),
                "@type" => text(&row.kind),
                "@key" => text(&row.key),
                _ => Cell::bare(row.version.to_string()),
            };
            let values = self.columns.iter().map(|name| value(row.values.get(name)));
            record(to, delimiter, self.names.iter().map(name).chain(values))?;
        }
        Ok(to.flush()?)
    }
}

fn exact(value: Option<&Value>) -> Cell {
    Cell::bare(match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    })
}

fn record(to: &mut impl Write, delimiter: u8, cells: impl Iterator<Item = Cell>) -> io::Result<()> {
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            to.write_all(&[delimiter])?;
        }
        to.write_all(cell.written(delimiter).as_bytes())?;
    }
    to.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::json::members;

    fn written(values: &[(&str, Value)], is_exact: bool) -> String {
        let mut sheet = Sheet::of(1);
        for (key, values) in values {
            sheet.push(Entity {
                domain: "faa".to_owned(),
                kind: "airport".to_owned(),
                key: (*key).to_owned(),
                values: members(values.clone()),
                version: 2,
            });
        }
        let mut text = Vec::new();
        sheet.write(b',', is_exact, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn columns_are_those_of_all_rows() {
        let rows = [
            ("JFK", json!({"alt": 13, "name": "Kennedy, John F"})),
            (
                "LGA",
                json!({"busy": true, "alt": null, "at": {"lat": 1.5}}),
            ),
        ];
        assert_eq!(
            written(&rows, false),
            "@key,@version,alt,at,busy,name\n\
             JFK,2,13,,,\"Kennedy, John F\"\n\
             LGA,2,\"\",\"{\"\"lat\"\":1.5}\",true,\n"
        );
        assert_eq!(
            written(&rows, true),
            "@key,@version,alt,at,busy,name\n\
             JFK,2,13,,,\"Kennedy, John F\"\n\
             LGA,2,,\"{\"\"lat\"\":1.5}\",true,\n"
        );
    }

    #[test]
    fn no_cell_is_a_formula_unless_asked_for() {
        let rows = [(
            "=k",
            json!({"=h": "=HYPERLINK(1)", "@key": "@x", "n": -5, "s": "-5", "t": "\tx", "p": "+1"}),
        )];
        assert_eq!(
            written(&rows, false),
            "@key,@version,'=h,'@key,n,p,s,t\n'=k,2,'=HYPERLINK(1),'@x,-5,'+1,'-5,\"'\tx\"\n"
        );
        let rows = [("=k", json!({"=h": "=HYPERLINK(1)", "n": -5}))];
        assert_eq!(
            written(&rows, true),
            "@key,@version,=h,n\n=k,2,=HYPERLINK(1),-5\n"
        );
    }
}
