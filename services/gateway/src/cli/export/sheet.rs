//! Entities as a sheet: a row each, a column for each top-level value that any of them has.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use serde_json::Value;

use crate::cli::{failure::Failure, json::Entity};

/// The columns that say which entity a row is: where all are of one type, and where they are not.
const OF_ONE: &[&str] = &["@key", "@version"];
const OF_MANY: &[&str] = &["@domain", "@type", "@key", "@version"];

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

    /// Writes the sheet.
    pub(super) fn write(self, to: &mut impl Write) -> Result<(), Failure> {
        let mut writer = csv::Writer::from_writer(to);
        let header = self.names.iter().copied();
        let header = header.chain(self.columns.iter().map(String::as_str));
        writer.write_record(header).map_err(io::Error::from)?;
        for row in &self.rows {
            let name = |column: &&str| match *column {
                "@domain" => row.domain.clone(),
                "@type" => row.kind.clone(),
                "@key" => row.key.clone(),
                _ => row.version.to_string(),
            };
            let values = self.columns.iter().map(|name| cell(row.values.get(name)));
            let cells: Vec<String> = self.names.iter().map(name).chain(values).collect();
            writer.write_record(&cells).map_err(io::Error::from)?;
        }
        Ok(writer.flush()?)
    }
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::json::members;

    #[test]
    fn columns_are_those_of_all_rows() {
        let mut sheet = Sheet::of(1);
        for (key, values) in [
            ("JFK", json!({"alt": 13, "name": "Kennedy, John F"})),
            (
                "LGA",
                json!({"busy": true, "alt": null, "at": {"lat": 1.5}}),
            ),
        ] {
            sheet.push(Entity {
                domain: "faa".to_owned(),
                kind: "airport".to_owned(),
                key: key.to_owned(),
                values: members(values),
                version: 2,
            });
        }
        let mut text = Vec::new();
        sheet.write(&mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "@key,@version,alt,at,busy,name\n\
             JFK,2,13,,,\"Kennedy, John F\"\n\
             LGA,2,,\"{\"\"lat\"\":1.5}\",true,\n"
        );
    }
}
