//! A small table for the terminal: a header, words to the left, columns with numbers to the right.

use std::fmt;

/// Names of columns, and rows of as many cells.
pub struct Table<'a> {
    columns: &'a [String],
    rows: &'a [Vec<String>],
}

impl<'a> Table<'a> {
    /// Shown by its `Display`.
    pub fn new(columns: &'a [String], rows: &'a [Vec<String>]) -> Self {
        Self { columns, rows }
    }

    fn cells(&self, column: usize) -> impl Iterator<Item = &str> {
        self.rows
            .iter()
            .filter_map(move |row| row.get(column).map(String::as_str))
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, row: &[String]) -> fmt::Result {
        let mut line = String::from("    ");
        for (column, name) in self.columns.iter().enumerate() {
            let cell = row.get(column).map_or("", String::as_str);
            let widths = self.cells(column).chain([name.as_str()]);
            let width = widths.map(|text| text.chars().count()).max().unwrap_or(0);
            if self.cells(column).any(|cell| cell.parse::<f64>().is_ok()) {
                line.push_str(&format!("{cell:>width$}  "));
            } else {
                line.push_str(&format!("{cell:<width$}  "));
            }
        }
        writeln!(f, "{}", line.trim_end())
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, self.columns)?;
        self.rows.iter().try_for_each(|row| self.write(f, row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_to_the_left_and_numbers_to_the_right() {
        let columns = ["channel", "edits"].map(str::to_owned);
        let rows = [["#en", "11549"], ["#vi", "749"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(
            Table::new(&columns, &rows).to_string(),
            "    channel  edits\n    #en      11549\n    #vi        749\n"
        );
    }
}
