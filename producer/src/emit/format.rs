//! NDJSON or CSV: asked for, told by the file's name, or told by its first line.
//!
//! Only standard input and files whose names say nothing are looked into, and only a first line
//! that can hardly be anything else is taken for a CSV header: two or more different names,
//! separated by commas.

use clap::ValueEnum;

use super::source::Input;

/// How events stand in an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Ndjson,
    /// A header, then one row an event.
    Csv,
}

/// What `--input` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FormatChoice {
    /// By the file's name (.csv, .ndjson, .jsonl, .json, before .gz or .zst), else by the first line.
    #[default]
    Auto,
    /// One JSON object a line.
    Ndjson,
    /// A header, then one row an event.
    Csv,
}

impl FormatChoice {
    /// The format of `input`, which begins with `beginning` (its first line, or much of it).
    pub fn decide(self, input: &Input, beginning: &[u8]) -> Format {
        match self {
            FormatChoice::Ndjson => Format::Ndjson,
            FormatChoice::Csv => Format::Csv,
            FormatChoice::Auto => by_name(input).unwrap_or_else(|| {
                let format = by_first_line(beginning);
                if format == Format::Csv {
                    tracing::info!(%input, "the first line looks like a CSV header: reading CSV (--input ndjson forbids it)");
                }
                format
            }),
        }
    }
}

fn by_name(input: &Input) -> Option<Format> {
    let Input::File(path) = input else {
        return None;
    };
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let plain = [".gz", ".gzip", ".zst", ".zstd"]
        .iter()
        .find_map(|packed| name.strip_suffix(packed));
    match plain.unwrap_or(&name).rsplit_once('.')?.1 {
        "csv" => Some(Format::Csv),
        "ndjson" | "jsonl" | "json" => Some(Format::Ndjson),
        _ => None,
    }
}

fn by_first_line(beginning: &[u8]) -> Format {
    let line = beginning
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let Ok(line) = std::str::from_utf8(line) else {
        return Format::Ndjson;
    };
    let names: Vec<_> = line
        .trim_end_matches('\r')
        .split(',')
        .map(|name| name.trim_matches('"'))
        .collect();
    let plausible = |name: &&str| {
        name.starts_with(|first: char| first.is_alphabetic() || first == '_')
            && name
                .chars()
                .all(|c| c.is_alphanumeric() || "_-. ".contains(c))
            && names.iter().filter(|other| other == &name).count() == 1
    };
    if names.len() > 1 && names.iter().all(plausible) {
        Format::Csv
    } else {
        Format::Ndjson
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto(name: &str, beginning: &str) -> Format {
        let input = if name == "-" {
            Input::Standard
        } else {
            Input::File(name.into())
        };
        FormatChoice::Auto.decide(&input, beginning.as_bytes())
    }

    #[test]
    fn a_name_decides_whatever_the_first_line_looks_like() {
        assert_eq!(auto("edits.csv", "{}"), Format::Csv);
        assert_eq!(auto("dir.csv/EDITS.CSV.gz", "{}"), Format::Csv);
        assert_eq!(auto("edits.jsonl.zst", "id,name\n"), Format::Ndjson);
        assert_eq!(auto("edits.ndjson", "id,name\n"), Format::Ndjson);
    }

    #[test]
    fn without_a_telling_name_a_header_line_decides() {
        assert_eq!(auto("-", "id,name\r\n1,a\r\n"), Format::Csv);
        assert_eq!(
            auto("/dev/fd/63", "\u{feff}\"id\",\"user name\"\n"),
            Format::Csv
        );
        for line in [
            "{\"a\":1,\"b\":2}",
            "[1,2]",
            "1,2",
            "not json",
            "oops, not json",
            "a,a",
            "a,,b",
            "",
        ] {
            assert_eq!(auto("-", line), Format::Ndjson, "{line}");
        }
    }

    #[test]
    fn what_was_asked_for_counts_before_all_else() {
        let csv = Input::File("edits.csv".into());
        assert_eq!(
            FormatChoice::Ndjson.decide(&csv, b"id,name\n"),
            Format::Ndjson
        );
        assert_eq!(
            FormatChoice::Csv.decide(&Input::Standard, b"{}"),
            Format::Csv
        );
    }
}
