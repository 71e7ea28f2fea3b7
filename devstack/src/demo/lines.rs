//! The lines of the input, to be compared with what arrived.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::DemoError;

/// All lines of a file packed with gzip, in order, without their ends.
///
/// # Errors
/// When it cannot be read, or is not UTF-8.
pub fn read(path: &Path) -> Result<Vec<String>, DemoError> {
    let input = |source| DemoError::Input {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(input)?;
    BufReader::new(MultiGzDecoder::new(file))
        .lines()
        .collect::<Result<_, _>>()
        .map_err(input)
}

/// How the texts of the results compare with the lines that were sent, byte for byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Comparison {
    /// Lines that are there exactly once.
    pub once: usize,
    /// Lines that are not there.
    pub missing: usize,
    /// Results that are there beside another one of the same line.
    pub repeated: usize,
    /// Results of no line.
    pub foreign: usize,
}

impl Comparison {
    /// Compares; no two lines may be the same.
    #[must_use]
    pub fn of(lines: &[String], results: &[String]) -> Self {
        let mut found: std::collections::HashMap<&str, usize> =
            lines.iter().map(|line| (line.as_str(), 0)).collect();
        let mut comparison = Self::default();
        for result in results {
            match found.get_mut(result.as_str()) {
                Some(times) => *times += 1,
                None => comparison.foreign += 1,
            }
        }
        for times in found.into_values() {
            match times {
                0 => comparison.missing += 1,
                1 => comparison.once += 1,
                more => comparison.repeated += more - 1,
            }
        }
        comparison
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_missing_repeated_or_not_ours_is_told_apart() {
        let texts = |texts: &[&str]| {
            texts
                .iter()
                .map(|&text| text.to_owned())
                .collect::<Vec<_>>()
        };
        let comparison =
            Comparison::of(&texts(&["a", "b", "c"]), &texts(&["c", "a", "a", "d", "a"]));
        assert_eq!(
            comparison,
            Comparison {
                once: 1,
                missing: 1,
                repeated: 2,
                foreign: 1
            }
        );
    }
}
