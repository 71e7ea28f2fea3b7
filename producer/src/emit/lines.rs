//! NDJSON: one event a line.
//!
//! Lines end with LF or CRLF and are counted physically from 1, blank ones too; a line of only
//! white space holds no event and is passed over. A byte order mark at the start is no part of the
//! first line. No more than the limit is ever held of one line: the rest of a longer one is
//! counted and thrown away.

use super::batch::{Event, Fault, Row, Text};
use super::misfit::{Misfit, MisfitKind};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Splits chunks of text into lines.
#[derive(Debug)]
pub struct Lines {
    /// Number of the line that begins next, or that is not finished yet.
    line: u64,
    /// First line to be given out.
    from_line: u64,
    /// Bytes that a line may have.
    limit: usize,
    /// Bytes of the unfinished line that hold no line end.
    scanned: usize,
    /// The beginning of a line over the limit, and how many bytes it has so far.
    overlong: Option<(Vec<u8>, usize)>,
}

impl Lines {
    /// Gives out lines from `from_line` on; lines over `limit` bytes come out as faults.
    pub fn new(from_line: u64, limit: usize) -> Self {
        Lines {
            line: 1,
            from_line,
            limit,
            scanned: 0,
            overlong: None,
        }
    }

    /// Appends the lines of `bytes` to `rows` and says how many bytes are used up; the rest is to
    /// come again at the start of the next chunk. With `last`, an unfinished line is a line.
    pub fn split(
        &mut self,
        bytes: &[u8],
        last: bool,
        made: &mut Vec<u8>,
        rows: &mut Vec<Row>,
    ) -> usize {
        let mut start = 0;
        loop {
            let scan_from = start + self.scanned;
            let unscanned = bytes.get(scan_from..).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', unscanned) {
                let end = scan_from + at;
                self.line(bytes, start, end, made, rows);
                start = end + 1;
                self.scanned = 0;
                continue;
            }
            let length = bytes.len() - start;
            if last {
                if length > 0 || self.overlong.is_some() {
                    self.line(bytes, start, bytes.len(), made, rows);
                }
                return bytes.len();
            }
            if self.overlong.is_some() || length > self.limit + BYTE_ORDER_MARK.len() + 1 {
                let part = bytes.get(start..).unwrap_or_default();
                let (_, seen) = self.overlong.get_or_insert_with(|| (part.to_vec(), 0));
                *seen += length;
                self.scanned = 0;
                return bytes.len();
            }
            self.scanned = length;
            return start;
        }
    }

    fn line(
        &mut self,
        bytes: &[u8],
        mut start: usize,
        mut end: usize,
        made: &mut Vec<u8>,
        rows: &mut Vec<Row>,
    ) {
        let line = self.line;
        self.line += 1;
        let overlong = self.overlong.take();
        if line < self.from_line {
            return;
        }
        if let Some((mut beginning, seen)) = overlong {
            let length = seen + (end - start);
            beginning.truncate(self.limit);
            let from = made.len();
            made.extend_from_slice(&beginning);
            let raw = Text::Made(from..made.len());
            rows.push(Row {
                line,
                event: Err(too_long(length, self.limit)),
                raw,
            });
            return;
        }
        let text = bytes.get(start..end).unwrap_or_default();
        if line == 1 && text.starts_with(BYTE_ORDER_MARK) {
            start += BYTE_ORDER_MARK.len();
        }
        if text.ends_with(b"\r") {
            end -= 1;
        }
        let text = bytes.get(start..end).unwrap_or_default();
        if text.trim_ascii_start().is_empty() {
            return;
        }
        let raw = Text::Read(start..end);
        let event = if text.len() > self.limit {
            Err(too_long(text.len(), self.limit))
        } else {
            Ok(Event::of(raw.clone()))
        };
        rows.push(Row { line, event, raw });
    }
}

fn too_long(length: usize, limit: usize) -> Box<Fault> {
    let reason = format!("the line has {length} bytes, more than the {limit} an event may have");
    Box::new(Fault {
        misfit: Misfit {
            kind: MisfitKind::TooLarge,
            column: 1,
            reason,
        },
        ends_input: false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::batch::test_split::{Read, read};
    use super::*;

    fn lines(chunks: &[&[u8]], from_line: u64, limit: usize) -> Vec<Read> {
        let mut lines = Lines::new(from_line, limit);
        read(chunks, |bytes, last, made, rows| {
            lines.split(bytes, last, made, rows)
        })
    }

    fn good(line: u64, text: &str) -> Read {
        Read {
            line,
            event: Ok(text.into()),
            raw: text.into(),
        }
    }

    #[test]
    fn lines_are_counted_physically_and_blank_ones_passed_over() {
        let text: &[u8] = b"{1}\r\n\n  \t\r\n{4}\n\r\n{6}";
        assert_eq!(
            lines(&[text], 1, 100),
            [good(1, "{1}"), good(4, "{4}"), good(6, "{6}")]
        );
        assert_eq!(lines(&[b""], 1, 100), []);
        assert_eq!(lines(&[b"\n\n"], 1, 100), []);
    }

    #[test]
    fn from_line_names_a_physical_line() {
        assert_eq!(
            lines(&[b"{1}\n\n{3}\n{4}\n"], 3, 100),
            [good(3, "{3}"), good(4, "{4}")]
        );
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        assert_eq!(lines(&[b"\xef\xbb\xbf{1}\n"], 1, 3), [good(1, "{1}")]);
    }

    #[test]
    fn of_a_line_over_the_limit_only_the_beginning_is_held() {
        let mut chunks: Vec<&[u8]> = vec![b"{1}\n01234567"];
        chunks.extend(std::iter::repeat_n(&b"89012345"[..], 1_000));
        chunks.push(b"\n{3}\n");
        let found = lines(&chunks, 1, 6);
        assert_eq!(found.len(), 3);
        assert_eq!(found[1].line, 2);
        assert_eq!(found[1].raw, "012345");
        assert!(
            found[1]
                .event
                .as_ref()
                .is_err_and(|reason| reason.contains("has 8008 bytes"))
        );
        assert_eq!(found[2], good(3, "{3}"));
    }

    #[test]
    fn a_line_over_the_limit_in_one_chunk_keeps_its_text() {
        let found = lines(&[b"0123456789\n{}\n"], 1, 6);
        assert_eq!(
            (found[0].raw.as_str(), found[0].event.is_err()),
            ("0123456789", true)
        );
        assert_eq!(found[1], good(2, "{}"));
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_text_is_cut(
            text in "[a\r\n ]{0,60}",
            cuts in prop::collection::vec(0..60_usize, 0..6),
        ) {
            let expected: Vec<_> = text
                .split('\n')
                .zip(1..)
                .map(|(line, number)| (number, line.strip_suffix('\r').unwrap_or(line)))
                .filter(|(_, line)| !line.trim_ascii().is_empty())
                .map(|(number, line)| good(number, line))
                .collect();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks: Vec<_> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(lines(&chunks, 1, 1_000), expected);
        }
    }
}
