//! Tables that fit the terminal: a line a row, long texts cut, columns that have no room left out.

use super::text;

/// What stands between two columns.
const GAP: &str = "  ";
/// How long a text may be, tried in this order until the table fits.
const CAPS: [usize; 5] = [usize::MAX, 60, 40, 24, 16];

/// One cell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    text: String,
    is_number: bool,
}

impl Cell {
    /// A text, set to the left.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            is_number: false,
        }
    }

    /// A number, set to the right.
    pub(crate) fn number(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            is_number: true,
        }
    }
}

/// A table in the making.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<Cell>>,
    whole: Vec<usize>,
}

/// A table as lines.
#[derive(Debug)]
pub(crate) struct Fitted {
    pub(crate) header: String,
    pub(crate) rows: Vec<String>,
    /// How many columns had no room.
    pub(crate) left_out: usize,
}

impl Table {
    pub(crate) fn new(header: Vec<String>) -> Self {
        Self {
            header,
            rows: Vec::new(),
            whole: Vec::new(),
        }
    }

    /// Never cuts the texts of a column, while the terminal has room for them.
    pub(crate) fn keep_whole(&mut self, column: usize) {
        self.whole.push(column);
    }

    /// Adds a row; cells that it has too few of are empty.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The lines, none of which is wider than `width`.
    pub(crate) fn fit(&self, width: usize) -> Fitted {
        let natural: Vec<usize> = (0..self.header.len()).map(|at| self.natural(at)).collect();
        let mut widths = natural.clone();
        for cap in CAPS {
            for (column, width) in widths.iter_mut().enumerate() {
                if !self.whole.contains(&column) {
                    *width = natural[column].min(cap);
                }
            }
            if total(&widths) <= width {
                break;
            }
        }
        while widths.len() > 1 && total(&widths) > width {
            widths.pop();
        }
        // What room is left goes to the texts that were cut.
        let mut room = width.saturating_sub(total(&widths));
        for (column, natural) in widths.iter_mut().zip(&natural) {
            let more = room.min(natural.saturating_sub(*column));
            *column += more;
            room -= more;
        }
        if let [only] = widths.as_mut_slice() {
            *only = (*only).min(width);
        }
        let header: Vec<Cell> = self.header.iter().map(Cell::text).collect();
        Fitted {
            header: line(&header, &widths),
            rows: self.rows.iter().map(|row| line(row, &widths)).collect(),
            left_out: self.header.len() - widths.len(),
        }
    }

    fn natural(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| text::width(&cell.text)).max();
        widest
            .unwrap_or(0)
            .max(text::width(&self.header[column]))
            .max(1)
    }
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1)
}

fn line(cells: &[Cell], widths: &[usize]) -> String {
    let mut line = String::new();
    for (at, width) in widths.iter().enumerate() {
        if at > 0 {
            line.push_str(GAP);
        }
        let Some(cell) = cells.get(at) else {
            continue;
        };
        let shown = text::cut(&cell.text, *width);
        let padding = " ".repeat(width - text::width(&shown));
        if cell.is_number {
            line.push_str(&padding);
            line.push_str(&shown);
        } else {
            line.push_str(&shown);
            line.push_str(&padding);
        }
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn airports() -> Table {
        let mut table = Table::new(vec!["KEY".to_owned(), "alt".to_owned(), "name".to_owned()]);
        table.row(vec![
            Cell::text("JFK"),
            Cell::number("13"),
            Cell::text("John F Kennedy Intl"),
        ]);
        table.row(vec![
            Cell::text("04G"),
            Cell::number("1044"),
            Cell::text("Lansdowne Airport"),
        ]);
        table.row(vec![Cell::text("X")]);
        table
    }

    #[test]
    fn columns_line_up() {
        let fitted = airports().fit(80);
        assert_eq!(fitted.header, "KEY  alt   name");
        assert_eq!(
            fitted.rows,
            [
                "JFK    13  John F Kennedy Intl",
                "04G  1044  Lansdowne Airport",
                "X"
            ]
        );
        assert_eq!(fitted.left_out, 0);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 1..60 {
            let fitted = airports().fit(width);
            for line in fitted.rows.iter().chain([&fitted.header]) {
                assert!(text::width(line) <= width, "{width}: {line}");
            }
        }
        let fitted = airports().fit(12);
        assert_eq!((fitted.header.as_str(), fitted.left_out), ("KEY  alt", 1));
    }

    #[test]
    fn what_is_to_be_copied_stays_whole() {
        let mut table = Table::new(vec!["EVENT".to_owned(), "VALUES".to_owned()]);
        table.keep_whole(0);
        table.row(vec![
            Cell::text("x".repeat(36)),
            Cell::text("y".repeat(200)),
        ]);
        assert_eq!(
            table.fit(64).rows[0],
            format!("{}  {}…", "x".repeat(36), "y".repeat(25))
        );
        assert_eq!(
            table.fit(54).rows[0],
            format!("{}  {}…", "x".repeat(36), "y".repeat(15))
        );
    }

    #[test]
    fn long_texts_give_way_before_columns_do() {
        let mut table = Table::new(vec!["KEY".to_owned(), "text".to_owned(), "n".to_owned()]);
        table.row(vec![
            Cell::text("k"),
            Cell::text("x".repeat(200)),
            Cell::number("1"),
        ]);
        let fitted = table.fit(80);
        assert_eq!(fitted.left_out, 0);
        assert_eq!(fitted.rows[0], format!("k    {}…  1", "x".repeat(71)));
    }
}
