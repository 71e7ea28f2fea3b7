//! The rejects file: NDJSON, one line for each input line that did not become an event, in the
//! order in which they were found out.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::misfit::Misfit;

#[derive(Serialize)]
struct Reject<'a> {
    file: &'a str,
    line: u64,
    column: u64,
    reason: &'a str,
    raw: &'a str,
}

/// Writes rejected lines down.
#[derive(Debug)]
pub struct Rejects {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Rejects {
    /// Begins a new rejects file; an older one of that name is overwritten.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Rejects {
            path: path.to_owned(),
            file: BufWriter::new(File::create(path)?),
        })
    }

    /// Where the rejects go.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down one rejected line. Of bytes that are no UTF-8, U+FFFD stands in `raw`.
    pub fn write(&mut self, file: &str, line: u64, misfit: &Misfit, raw: &[u8]) -> io::Result<()> {
        let raw = String::from_utf8_lossy(raw);
        let reject = Reject {
            file,
            line,
            column: misfit.column,
            reason: &misfit.reason,
            raw: &raw,
        };
        serde_json::to_writer(&mut self.file, &reject)?;
        self.file.write_all(b"\n")
    }

    /// Hands everything written to the operating system.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        reason = "a test that cannot set up its case has failed"
    )]

    use super::*;

    #[test]
    fn a_reject_is_a_json_line_with_file_line_column_reason_and_raw() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects");
        let mut rejects = Rejects::create(&path).unwrap();
        rejects
            .write("a.ndjson", 7, &Misfit::shape(3, "not UTF-8"), b"{\"\xff")
            .unwrap();
        rejects.flush().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "{\"file\":\"a.ndjson\",\"line\":7,\"column\":3,\"reason\":\"not UTF-8\",\"raw\":\"{\\\"\u{fffd}\"}\n"
        );
    }
}
