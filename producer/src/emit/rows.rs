//! The reading side of `emit`: a thread that opens the inputs one after another, unpacks them, cuts
//! them into rows and looks into each row for what makes it an event.
//!
//! Rows travel in batches through a short channel, whose buffers come back to be filled again; so
//! memory is bounded, and the sending side stays awake for acknowledgements and signals while a
//! read blocks. Inputs are never mixed: each begins with [`Message::Begin`] and ends with
//! [`Message::End`] or [`Message::Broken`].

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use super::batch::{Batch, Row};
use super::csv_rows::CsvRows;
use super::digest::digest;
use super::format::{Format, FormatChoice};
use super::interrupt::Interrupt;
use super::lines::Lines;
use super::pointer::Fields;
use super::source::Input;

const CHUNK: usize = 256 * 1024;
const BATCHES_AHEAD: usize = 4;

/// What the reading thread tells.
#[derive(Debug)]
pub enum Message {
    /// The next input was opened; its digest, when one was asked for.
    Begin { file: usize, digest: Option<String> },
    /// Rows of the input that was opened last.
    Rows(Batch),
    /// The input was read to its end.
    End { file: usize },
    /// The input could not be opened, or not be read beyond what was given out.
    Broken { file: usize, error: io::Error },
}

/// What to read and how.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The inputs, in order.
    pub inputs: Vec<Input>,
    /// NDJSON or CSV, or to be found out.
    pub format: FormatChoice,
    /// First physical line to be given out.
    pub from_line: u64,
    /// Which fields give the keys.
    pub fields: Fields,
    /// Bytes that a row may have.
    pub limit: usize,
    /// Whether the digest of each input is wanted.
    pub digest: bool,
}

/// The sending side's end of the reading thread.
#[derive(Debug)]
pub struct Rows {
    messages: Receiver<Message>,
    empties: Sender<Batch>,
    taken: Arc<AtomicU64>,
}

impl Rows {
    /// Starts reading. The thread ends by itself after the last input, or when this value is
    /// dropped and its read returns.
    pub fn start(reading: Reading, interrupt: Interrupt) -> io::Result<Rows> {
        let (outlet, messages) = sync_channel(BATCHES_AHEAD);
        let (empties, returned) = channel();
        let taken = Arc::new(AtomicU64::new(0));
        let reader = Reader {
            reading,
            interrupt,
            outlet,
            returned,
            taken: Arc::clone(&taken),
        };
        std::thread::Builder::new()
            .name("read".to_owned())
            .spawn(move || reader.run())?;
        Ok(Rows {
            messages,
            empties,
            taken,
        })
    }

    /// The next message: `Ok(None)` when there was none within `wait`.
    pub fn next(&self, wait: Duration) -> Result<Option<Message>, Finished> {
        match self.messages.recv_timeout(wait) {
            Ok(message) => Ok(Some(message)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Finished),
        }
    }

    /// Gives a batch's buffers back.
    pub fn recycle(&self, batch: Batch) {
        // After the last input nobody wants it.
        let _ = self.empties.send(batch);
    }

    /// Stored bytes read so far, of all inputs together.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// Every input has been told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished;

/// The sending side is gone.
struct Unwanted;

enum Splitter {
    Lines(Lines),
    Csv(CsvRows),
}

impl Splitter {
    fn split(
        &mut self,
        bytes: &[u8],
        last: bool,
        made: &mut Vec<u8>,
        rows: &mut Vec<Row>,
    ) -> io::Result<usize> {
        match self {
            Splitter::Lines(lines) => Ok(lines.split(bytes, last, made, rows)),
            Splitter::Csv(csv) => csv.split(bytes, last, made, rows),
        }
    }
}

struct Reader {
    reading: Reading,
    interrupt: Interrupt,
    outlet: SyncSender<Message>,
    returned: Receiver<Batch>,
    taken: Arc<AtomicU64>,
}

impl Reader {
    fn run(self) {
        for (file, input) in self.reading.inputs.iter().enumerate() {
            let told = match self.input(file, input) {
                Ok(Ok(())) => self.tell(Message::End { file }),
                Ok(Err(Unwanted)) => return,
                Err(error) => self.tell(Message::Broken { file, error }),
            };
            if told.is_err() {
                return;
            }
        }
    }

    fn tell(&self, message: Message) -> Result<(), Unwanted> {
        self.outlet.send(message).map_err(|_| Unwanted)
    }

    fn input(&self, file: usize, input: &Input) -> io::Result<Result<(), Unwanted>> {
        let version = input.version();
        let digest = if self.reading.digest {
            tracing::info!(file = %input, "reading the file once for its digest");
            let content = input.open(Arc::default())?;
            match digest(content, || self.interrupt.requested())? {
                None => return Ok(Err(Unwanted)),
                digest => digest,
            }
        } else {
            None
        };
        let content = input.open(Arc::clone(&self.taken))?;
        if self.tell(Message::Begin { file, digest }).is_err() {
            return Ok(Err(Unwanted));
        }
        let told = self.rows(input, content)?;
        if version != input.version() {
            return Err(io::Error::other("the file was changed while it was read"));
        }
        Ok(told)
    }

    fn rows(&self, input: &Input, mut content: Box<dyn Read>) -> io::Result<Result<(), Unwanted>> {
        let mut chunk = Batch::default();
        let mut kept = first_line(&mut content)?;
        let format = self.reading.format.decide(input, &kept);
        let Reading {
            from_line, limit, ..
        } = self.reading;
        let mut splitter = match format {
            Format::Ndjson => Splitter::Lines(Lines::new(from_line, limit)),
            Format::Csv => Splitter::Csv(CsvRows::new(from_line, limit)),
        };
        let mut ended = false;
        loop {
            let split = splitter.split(&kept, ended, &mut chunk.made, &mut chunk.rows)?;
            let mut next = self.returned.try_recv().unwrap_or_default();
            next.rows.clear();
            next.made.clear();
            next.read.clear();
            next.read
                .extend_from_slice(kept.get(split..).unwrap_or_default());
            let ends_input = chunk
                .rows
                .last()
                .is_some_and(|row| row.event.as_ref().is_err_and(|fault| fault.ends_input));
            if !chunk.rows.is_empty() {
                chunk.read = kept;
                chunk.look_into(&self.reading.fields);
                if self.tell(Message::Rows(chunk)).is_err() {
                    return Ok(Err(Unwanted));
                }
            }
            if ended || ends_input {
                return Ok(Ok(()));
            }
            ended = fill(&mut content, &mut next.read)? == 0;
            kept = std::mem::take(&mut next.read);
            chunk = next;
        }
    }
}

/// Reads until the first line is there, or enough of it to tell what it is.
fn first_line(content: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < CHUNK && !bytes.contains(&b'\n') {
        if fill(content, &mut bytes)? == 0 {
            break;
        }
    }
    Ok(bytes)
}

/// Appends one read's worth of bytes; 0 at the end.
fn fill(content: &mut dyn Read, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let kept = bytes.len();
    bytes.resize(kept + CHUNK, 0);
    let count = loop {
        match content.read(bytes.get_mut(kept..).unwrap_or_default()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => break outcome,
        }
    };
    bytes.truncate(kept + count.as_ref().copied().unwrap_or(0));
    count
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
