//! A batch of rows and the bytes that they stand in.
//!
//! A row's texts are places in its batch, so that rows cost no allocation of their own. Whoever
//! made the batch has looked into its rows: what is an event is a JSON object with its keys picked
//! up, everything else is a [`Fault`].

use std::borrow::Cow;
use std::ops::Range;

use super::misfit::Misfit;
use super::pointer::Fields;

/// Where a text of a batch stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// As it was read.
    Read(Range<usize>),
    /// Made from what was read.
    Made(Range<usize>),
}

impl Text {
    /// Where `part`, which is borrowed from `whole`, the bytes of this text, stands.
    fn within(&self, whole: &[u8], part: &str) -> Text {
        let offset = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
        let place = |range: &Range<usize>| {
            let from = range.start + offset;
            from..from + part.len()
        };
        match self {
            Text::Read(range) => Text::Read(place(range)),
            Text::Made(range) => Text::Made(place(range)),
        }
    }
}

/// Why a row is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong and where.
    pub misfit: Misfit,
    /// Nothing behind this row can be read, since its end cannot be told.
    pub ends_input: bool,
}

/// What a row says, as texts of its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event's JSON.
    pub payload: Text,
    /// Ordering key, when one was asked for.
    pub key: Option<Text>,
    /// Dedup key, when one was asked for.
    pub dedup: Option<Text>,
}

impl Event {
    /// An event that has not been looked into.
    pub fn of(payload: Text) -> Self {
        Event {
            payload,
            key: None,
            dedup: None,
        }
    }
}

/// One row of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Physical line where the row begins, counted from 1.
    pub line: u64,
    /// The event, when it is one.
    pub event: Result<Event, Box<Fault>>,
    /// The row as it stands in the input; of one over the limit, its beginning.
    pub raw: Text,
}

/// Rows and the bytes they stand in.
#[derive(Debug, Default)]
pub struct Batch {
    /// The input's bytes.
    pub(super) read: Vec<u8>,
    /// Bytes made from them.
    pub(super) made: Vec<u8>,
    /// The rows, in the order of the input.
    pub rows: Vec<Row>,
}

impl Batch {
    /// The bytes of a row's text.
    pub fn text(&self, text: &Text) -> &[u8] {
        match text {
            Text::Read(range) => self.read.get(range.clone()),
            Text::Made(range) => self.made.get(range.clone()),
        }
        .unwrap_or_default()
    }

    /// A text that was proved to be UTF-8 while it was read.
    pub fn key(&self, text: Option<&Text>) -> Option<&str> {
        std::str::from_utf8(self.text(text?)).ok()
    }

    /// Looks into every row that may be an event.
    pub(super) fn look_into(&mut self, fields: &Fields) {
        let mut rows = std::mem::take(&mut self.rows);
        for row in &mut rows {
            if let Ok(event) = &mut row.event
                && let Err(misfit) = self.pick(fields, event)
            {
                row.event = Err(Box::new(Fault {
                    misfit,
                    ends_input: false,
                }));
            }
        }
        self.rows = rows;
    }

    fn pick(&mut self, fields: &Fields, event: &mut Event) -> Result<(), Misfit> {
        let payload = self.text(&event.payload);
        let picked = fields.read(payload).map_err(|misfit| match event.payload {
            Text::Read(_) => misfit,
            // A column of the JSON made from a CSV row says nothing about the row.
            Text::Made(_) => Misfit {
                column: 1,
                ..misfit
            },
        })?;
        let found = [picked.key, picked.dedup].map(|found| {
            found.map(|found| match found {
                Cow::Borrowed(text) => Ok(event.payload.within(payload, text)),
                Cow::Owned(text) => Err(text),
            })
        });
        let [key, dedup] = found.map(|found| {
            found.map(|found| {
                found.unwrap_or_else(|unescaped| {
                    let from = self.made.len();
                    self.made.extend_from_slice(unescaped.as_bytes());
                    Text::Made(from..self.made.len())
                })
            })
        });
        (event.key, event.dedup) = (key, dedup);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod test_split {
    //! Feeds a splitter the way the reading thread does and writes out what it found.

    use super::{Batch, Row};

    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Read {
        pub line: u64,
        pub event: Result<String, String>,
        pub raw: String,
    }

    pub fn read(
        chunks: &[&[u8]],
        mut split: impl FnMut(&[u8], bool, &mut Vec<u8>, &mut Vec<Row>) -> usize,
    ) -> Vec<Read> {
        let mut found = Vec::new();
        let mut kept = Vec::new();
        let last: &[u8] = &[];
        for (index, chunk) in chunks.iter().chain([&last]).enumerate() {
            kept.extend_from_slice(chunk);
            let mut batch = Batch::default();
            let used = split(
                &kept,
                index == chunks.len(),
                &mut batch.made,
                &mut batch.rows,
            );
            batch.read.clone_from(&kept);
            kept.drain(..used);
            for row in &batch.rows {
                let text = |text| String::from_utf8_lossy(batch.text(text)).into_owned();
                let event = match &row.event {
                    Ok(event) => Ok(text(&event.payload)),
                    Err(fault) => Err(format!("{}: {}", fault.misfit.column, fault.misfit.reason)),
                };
                found.push(Read {
                    line: row.line,
                    event,
                    raw: text(&row.raw),
                });
            }
        }
        found
    }
}
