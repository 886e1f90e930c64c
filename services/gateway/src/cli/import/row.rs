//! A row on its way from a file to the gateway, and the reasons that it does not get there.

use std::fmt;

use stategate_client::{EntityRef, Payload};

/// Where a row stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The line it begins on, from 1.
    pub(crate) line: u64,
    /// Which element of the array it is, from 1, where there is an array.
    pub(crate) element: Option<u64>,
}

impl Place {
    /// A line.
    pub(crate) fn line(line: u64) -> Self {
        Self {
            line,
            element: None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        match self.element {
            Some(element) => write!(f, " (element {element})"),
            None => Ok(()),
        }
    }
}

/// A row that can be sent.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) place: Place,
    /// Which row of the file it is, from 1, bad ones counted.
    pub(crate) number: u64,
    pub(crate) entity: EntityRef,
    pub(crate) values: Payload,
}

/// Why a row cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowError {
    column: Option<String>,
    why: String,
}

impl RowError {
    /// For what is in one column.
    pub(crate) fn column(name: &str, why: impl Into<String>) -> Self {
        Self {
            column: Some(name.to_owned()),
            why: why.into(),
        }
    }

    /// For the row as a whole.
    pub(crate) fn row(why: impl Into<String>) -> Self {
        Self {
            column: None,
            why: why.into(),
        }
    }
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(column) = &self.column {
            write!(f, "column `{column}`: ")?;
        }
        f.write_str(&self.why)
    }
}

/// What a file yields.
pub(crate) type Parsed = Result<Row, (Place, RowError)>;
