//! CSV with a header (RFC 4180): each row becomes a JSON object of strings, in the header's order.
//!
//! Written here, not taken from a crate, for three things that a reader over a stream does not
//! give: the physical line of each row's start (fields may hold line ends), a bound on the memory
//! that one row takes, and going on behind a row that is wrong. A row that outgrows the bound, as
//! after a quote that is never closed, ends the input, since nobody can tell where the next begins.

use std::borrow::Cow;
use std::io;

use super::batch::{Event, Fault, Row, Text};
use super::misfit::{Misfit, MisfitKind};

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Where in a row the search for its end stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    FieldStart,
    Plain,
    Quoted,
    QuoteClosed,
}

/// Splits chunks of text into rows.
#[derive(Debug)]
pub struct CsvRows {
    /// The JSON in front of each field: `{"id":` and `,"name":`. Empty until the header is read.
    names: Vec<String>,
    /// Physical line of the row that begins next, or that is not finished yet.
    line: u64,
    /// Line ends inside the unfinished row.
    inner_lines: u64,
    from_line: u64,
    limit: usize,
    scan: Scan,
    /// Bytes of the unfinished row that were searched.
    scanned: usize,
    ended: bool,
}

impl CsvRows {
    /// Gives out rows that begin at line `from_line` or later; the header is read in any case.
    pub fn new(from_line: u64, limit: usize) -> Self {
        CsvRows {
            names: Vec::new(),
            line: 1,
            inner_lines: 0,
            from_line,
            limit,
            scan: Scan::FieldStart,
            scanned: 0,
            ended: false,
        }
    }

    /// Appends the rows of `bytes` to `rows`, and their JSON to `made`; says how many bytes are
    /// used up, the rest is to come again at the start of the next chunk. With `last`, an
    /// unfinished row is a row.
    pub fn split(
        &mut self,
        bytes: &[u8],
        last: bool,
        made: &mut Vec<u8>,
        rows: &mut Vec<Row>,
    ) -> io::Result<usize> {
        let mut start = 0;
        while !self.ended {
            if let Some(end) = self.row_end(bytes, start) {
                self.row(bytes, start, end, made, rows)?;
                start = end + 1;
                continue;
            }
            let length = bytes.len() - start;
            if last && length > 0 && self.scan == Scan::Quoted {
                let reason = format!(
                    "a quote opened in the row at line {} is never closed",
                    self.line
                );
                self.end_input(
                    bytes.get(start..).unwrap_or_default(),
                    Misfit::shape(1, reason),
                    made,
                    rows,
                );
            } else if last && length > 0 {
                self.row(bytes, start, bytes.len(), made, rows)?;
            } else if length > self.limit {
                let reason = format!(
                    "the row is longer than the {} bytes an event may have (is a quote never closed?)",
                    self.limit
                );
                let misfit = Misfit {
                    kind: MisfitKind::TooLarge,
                    column: 1,
                    reason,
                };
                self.end_input(bytes.get(start..).unwrap_or_default(), misfit, made, rows);
            }
            break;
        }
        Ok(if self.ended || last {
            bytes.len()
        } else {
            start
        })
    }

    /// Searches on for the line end that ends the row at `start`.
    fn row_end(&mut self, bytes: &[u8], start: usize) -> Option<usize> {
        let from = start + self.scanned;
        let mut scan = self.scan;
        for (at, byte) in bytes.get(from..).unwrap_or_default().iter().enumerate() {
            scan = match (scan, byte) {
                (Scan::Quoted, b'"') => Scan::QuoteClosed,
                (Scan::Quoted, _) => {
                    self.inner_lines += u64::from(*byte == b'\n');
                    Scan::Quoted
                }
                (_, b'\n') => {
                    self.scan = Scan::FieldStart;
                    self.scanned = 0;
                    return Some(from + at);
                }
                (Scan::FieldStart | Scan::QuoteClosed, b'"') => Scan::Quoted,
                (_, b',') => Scan::FieldStart,
                _ => Scan::Plain,
            };
        }
        self.scan = scan;
        self.scanned = bytes.len() - start;
        None
    }

    fn row(
        &mut self,
        bytes: &[u8],
        start: usize,
        mut end: usize,
        made: &mut Vec<u8>,
        rows: &mut Vec<Row>,
    ) -> io::Result<()> {
        let line = self.line;
        self.line += 1 + std::mem::take(&mut self.inner_lines);
        if bytes
            .get(start..end)
            .is_some_and(|text| text.ends_with(b"\r"))
        {
            end -= 1;
        }
        let text = bytes.get(start..end).unwrap_or_default();
        if text.is_empty() {
            return Ok(());
        }
        if self.names.is_empty() {
            return match header(text) {
                Ok(names) => names.iter().enumerate().try_for_each(|(index, name)| {
                    let name = serde_json::to_string(name)?;
                    let opening = if index == 0 { '{' } else { ',' };
                    self.names.push(format!("{opening}{name}:"));
                    Ok(())
                }),
                Err(misfit) => {
                    self.line = line;
                    self.end_input(text, misfit, made, rows);
                    Ok(())
                }
            };
        }
        if line < self.from_line {
            return Ok(());
        }
        let raw = Text::Read(start..end);
        let from = made.len();
        let event = match self.object(text, made)? {
            Ok(()) => Ok(Event::of(Text::Made(from..made.len()))),
            Err(misfit) => {
                made.truncate(from);
                Err(Box::new(Fault {
                    misfit,
                    ends_input: false,
                }))
            }
        };
        rows.push(Row { line, event, raw });
        Ok(())
    }

    /// Writes the row's JSON.
    fn object(&self, text: &[u8], made: &mut Vec<u8>) -> io::Result<Result<(), Misfit>> {
        if text.len() > self.limit {
            let reason = format!(
                "the row has {} bytes, more than the {} an event may have",
                text.len(),
                self.limit
            );
            return Ok(Err(Misfit {
                kind: MisfitKind::TooLarge,
                column: 1,
                reason,
            }));
        }
        let text = match utf8(text) {
            Ok(text) => text,
            Err(misfit) => return Ok(Err(misfit)),
        };
        let mut fields = Fields::of(text);
        for (index, name) in self.names.iter().enumerate() {
            let field = match fields.next() {
                Some(Ok(field)) => field,
                Some(Err(misfit)) => return Ok(Err(misfit)),
                None => {
                    let reason = format!(
                        "the row has {index} fields, the header {}",
                        self.names.len()
                    );
                    return Ok(Err(Misfit::shape(column(text, text.len()), reason)));
                }
            };
            made.extend_from_slice(name.as_bytes());
            serde_json::to_writer(&mut *made, &field)?;
        }
        if let Some(at) = fields.rest {
            let count = self.names.len() + fields.count();
            let reason = format!(
                "the row has {count} fields, the header {}",
                self.names.len()
            );
            return Ok(Err(Misfit::shape(column(text, at), reason)));
        }
        made.push(b'}');
        Ok(Ok(()))
    }

    fn end_input(
        &mut self,
        text: &[u8],
        mut misfit: Misfit,
        made: &mut Vec<u8>,
        rows: &mut Vec<Row>,
    ) {
        self.ended = true;
        misfit.reason.push_str("; nothing behind it is read");
        let from = made.len();
        made.extend_from_slice(text.get(..self.limit).unwrap_or(text));
        let raw = Text::Made(from..made.len());
        let fault = Fault {
            misfit,
            ends_input: true,
        };
        rows.push(Row {
            line: self.line,
            event: Err(Box::new(fault)),
            raw,
        });
    }
}

fn header(text: &[u8]) -> Result<Vec<Cow<'_, str>>, Misfit> {
    let text = utf8(text)?;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let names = Fields::of(text).collect::<Result<Vec<_>, _>>()?;
    let twice = names
        .iter()
        .enumerate()
        .find(|(index, name)| names.iter().take(*index).any(|other| other == *name));
    match twice {
        Some((_, name)) => Err(Misfit::shape(
            1,
            format!("the header names the column {name:?} twice"),
        )),
        None => Ok(names),
    }
}

fn utf8(text: &[u8]) -> Result<&str, Misfit> {
    std::str::from_utf8(text).map_err(|error| {
        let valid = text.get(..error.valid_up_to()).unwrap_or_default();
        Misfit::shape(
            String::from_utf8_lossy(valid).chars().count() as u64 + 1,
            "not UTF-8",
        )
    })
}

/// The character, counted from 1, at byte `at` of the row.
fn column(text: &str, at: usize) -> u64 {
    text.get(..at).unwrap_or(text).chars().count() as u64 + 1
}

/// The fields of one row.
struct Fields<'a> {
    text: &'a str,
    /// Where the next field begins; `None` behind the last.
    rest: Option<usize>,
}

impl<'a> Fields<'a> {
    fn of(text: &'a str) -> Self {
        Fields {
            text,
            rest: Some(0),
        }
    }

    fn quoted(&mut self, start: usize) -> Result<Cow<'a, str>, Misfit> {
        let bytes = self.text.as_bytes();
        let mut at = start;
        let mut doubled = false;
        while let Some(quote) = bytes.get(at..).and_then(|rest| memchr::memchr(b'"', rest)) {
            let closing = at + quote;
            match bytes.get(closing + 1) {
                Some(b'"') => {
                    doubled = true;
                    at = closing + 2;
                    continue;
                }
                Some(b',') => self.rest = Some(closing + 2),
                None => self.rest = None,
                Some(_) => {
                    let reason = "expected a comma behind the closing quote";
                    return Err(Misfit::shape(column(self.text, closing + 1), reason));
                }
            }
            let field = self.text.get(start..closing).unwrap_or_default();
            return Ok(if doubled {
                field.replace("\"\"", "\"").into()
            } else {
                field.into()
            });
        }
        Err(Misfit::shape(
            column(self.text, start),
            "the quote is never closed",
        ))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Cow<'a, str>, Misfit>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.rest.take()?;
        let text = self.text.get(start..)?;
        if text.starts_with('"') {
            return Some(self.quoted(start + 1));
        }
        let field = match memchr::memchr(b',', text.as_bytes()) {
            Some(comma) => {
                self.rest = Some(start + comma + 1);
                text.get(..comma)?
            }
            None => text,
        };
        Some(Ok(field.into()))
    }
}

#[cfg(test)]
#[path = "csv_rows_tests.rs"]
mod tests;
