//! Which columns of a file become values, and under which names.

use std::str::FromStr;

use stategate_model::Object;

use crate::cli::{failure::Failure, text};

/// What is asked for.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Selection {
    /// The columns to take, and no others: names, or #3 for the third of a CSV file
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    columns: Vec<String>,
    /// Columns to leave out; the key may still be made of them
    #[arg(
        long,
        value_name = "COLUMN,…",
        value_delimiter = ',',
        conflicts_with = "columns"
    )]
    without: Vec<String>,
    /// Take a column under another name; may be given several times. The other options name columns as
    /// the file does
    #[arg(long = "rename", value_name = "COLUMN=NAME")]
    renames: Vec<Rename>,
}

/// A new name for a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rename {
    from: String,
    to: String,
}

impl FromStr for Rename {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok(Self {
                from: from.to_owned(),
                to: to.to_owned(),
            }),
            _ => Err(format!("`{text}` is not COLUMN=NAME")),
        }
    }
}

impl Selection {
    /// Whether all is taken as it is.
    pub(super) fn is_everything(&self) -> bool {
        self.columns.is_empty() && self.without.is_empty() && self.renames.is_empty()
    }

    /// Every name that is asked for.
    pub(super) fn all_names(&self) -> Vec<String> {
        let renamed = self.renames.iter().map(|rename| &rename.from);
        let named = self.columns.iter().chain(&self.without);
        named.chain(renamed).cloned().collect()
    }

    /// Whether only what is named is taken.
    pub(super) fn is_of_named(&self) -> bool {
        !self.columns.is_empty()
    }

    /// The members of an object that are taken, under their new names.
    pub(super) fn of(&self, object: &Object) -> Result<Object, String> {
        let mut taken = Object::new();
        for (name, value) in object {
            let is_taken = if self.columns.is_empty() {
                !self.without.contains(name)
            } else {
                self.columns.contains(name)
            };
            if !is_taken {
                continue;
            }
            let renamed = self.renames.iter().find(|rename| rename.from == *name);
            let name = renamed.map_or(name, |rename| &rename.to);
            if taken.insert(name.clone(), value.clone()).is_some() {
                return Err(format!("has two values named `{name}`, by --rename"));
            }
        }
        Ok(taken)
    }

    /// What becomes of each column of a sheet with this header: its name as a value, or `None` where it
    /// is left out. Each value has one name, and each name is there.
    pub(super) fn names(&self, header: &Header) -> Result<Vec<Option<String>>, Failure> {
        let all = header.names.iter().cloned().map(Some);
        let mut names: Vec<Option<String>> = all.collect();
        if self.is_of_named() {
            let mut is_taken = vec![false; names.len()];
            for column in &self.columns {
                if let Some(taken) = is_taken.get_mut(header.find("--columns", column)?) {
                    *taken = true;
                }
            }
            let left_out = |(at, name): (usize, &mut Option<String>)| {
                if !is_taken.get(at).copied().unwrap_or_default() {
                    *name = None;
                }
            };
            names.iter_mut().enumerate().for_each(left_out);
        }
        for column in &self.without {
            if let Some(name) = names.get_mut(header.find("--without", column)?) {
                *name = None;
            }
        }
        let mut renamed = vec![false; names.len()];
        for Rename { from, to } in &self.renames {
            let at = header.find("--rename", from)?;
            if let (Some(Some(name)), Some(renamed)) = (names.get_mut(at), renamed.get_mut(at)) {
                name.clone_from(to);
                *renamed = true;
            }
        }
        header.check(&names, &renamed)?;
        Ok(names)
    }
}

/// The first line of a sheet.
#[derive(Debug)]
pub(super) struct Header {
    /// What it says, column by column.
    pub(super) names: Vec<String>,
    /// The columns before these say which entity a row is.
    pub(super) first: usize,
    /// Whether `export` wrote it, so that a column without a name is a value without one.
    pub(super) is_exported: bool,
}

impl Header {
    /// The column of that name, or of that number.
    pub(super) fn find(&self, option: &str, column: &str) -> Result<usize, Failure> {
        // Those of an export go before values of the same names.
        let mark = self.positions(column).find(|at| *at < self.first);
        if let Some(mark) = mark {
            return Ok(mark);
        }
        let mut named = self.positions(column);
        match (named.next(), named.next()) {
            (Some(at), None) => Ok(at),
            (Some(one), Some(other)) => Err(Failure::usage(format!(
                "{option} names the column `{}`, and the file has two: #{} and #{}, which can be written instead",
                text::plain(column),
                one + 1,
                other + 1
            ))),
            (None, _) => {
                let number = column.strip_prefix('#');
                let number: Option<usize> = number.and_then(|number| number.parse().ok());
                number
                    .and_then(|number| number.checked_sub(1))
                    .filter(|at| *at < self.names.len())
                    .ok_or_else(|| {
                        Failure::usage(format!(
                            "{option} names the column `{}`, which the file does not have; it has {}",
                            text::plain(column),
                            text::plain(&self.names.join(", "))
                        ))
                    })
            }
        }
    }

    fn positions(&self, column: &str) -> impl Iterator<Item = usize> {
        let all = self.names.iter().enumerate();
        all.filter(move |(_, name)| *name == column)
            .map(|(at, _)| at)
    }

    fn check(&self, names: &[Option<String>], renamed: &[bool]) -> Result<(), Failure> {
        let values = || {
            let all = names.iter().enumerate().skip(self.first);
            all.filter_map(|(at, name)| Some((at, name.as_deref()?)))
        };
        let nameless: Vec<usize> = values()
            .filter(|(at, name)| {
                name.trim().is_empty()
                    && !self.is_exported
                    && !renamed.get(*at).copied().unwrap_or_default()
            })
            .map(|(at, _)| at + 1)
            .collect();
        if let Some(first) = nameless.first() {
            let list: Vec<String> = nameless.iter().map(|at| format!("#{at}")).collect();
            let (columns, have) = match nameless.len() {
                1 => ("column", "has"),
                _ => ("columns", "have"),
            };
            let list = list.join(",");
            return Err(Failure::failed(format!(
                "line 1: {columns} {list} {have} no name, which may be a comma too many; --without '{list}' leaves out what stands there, --rename '#{first}=NAME' names it"
            )));
        }
        for (at, name) in values() {
            let earlier = values().take_while(|(before, _)| *before < at);
            let same = earlier.filter(|(_, before)| *before == name).last();
            if let Some((before, _)) = same {
                let (one, other) = (before + 1, at + 1);
                return Err(Failure::failed(format!(
                    "line 1: two columns are named `{}`, #{one} and #{other}; --without '#{other}' leaves one out, --rename '#{other}=NAME' gives it another name",
                    text::plain(name)
                )));
            }
        }
        Ok(())
    }
}
