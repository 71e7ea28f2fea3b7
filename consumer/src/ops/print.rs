//! Results on stdout, as a table for people or as JSON for scripts.

use comfy_table::{ContentArrangement, Table, presets};
use millrace_settings::Format;

/// Prints rows: as a table with these columns, or as a JSON array of the values themselves.
///
/// # Errors
/// When a value cannot be written as JSON.
pub fn rows<T: serde::Serialize>(
    format: Format,
    columns: &[&str],
    values: &[T],
    cells: impl Fn(&T) -> Vec<String>,
) -> anyhow::Result<()> {
    match format {
        Format::Json => println!("{}", serde_json::to_string_pretty(values)?),
        Format::Table => {
            let mut table = Table::new();
            table
                .load_style(presets::NOTHING)
                .set_content_arrangement(ContentArrangement::Disabled)
                .set_header(columns);
            for value in values {
                table.add_row(cells(value));
            }
            println!("{}", table.trim_fmt());
        }
    }
    Ok(())
}

/// A value, or a dash.
#[must_use]
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
