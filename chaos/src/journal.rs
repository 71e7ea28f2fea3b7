//! What handlers did, in the order in which they did it, kept outside of the product.
//!
//! One file a round, appended to by all workers and by the harness, one line an event, each written by a
//! single call. The kernel puts appends one after another, so a line's place in the file is its place in
//! time across processes, and no clock is needed. A worker's death is a line of the harness, written once the
//! process is gone: none of its lines comes later.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::str::FromStr;

use uuid::Uuid;

/// Appends events to a round's journal.
#[derive(Debug)]
pub struct Journal(File);

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A handler was entered.
    Start(Attempt),
    /// A handler is about to return, or was dropped.
    End(Attempt, How),
    /// A worker process is gone.
    Death {
        /// Its process number.
        pid: u32,
    },
    /// Something that a reader may want to know; no law looks at it.
    Note(String),
}

/// One attempt of one task, as the handler was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The worker's process number.
    pub pid: u32,
    /// The task.
    pub task: Uuid,
    /// Which record of the plan it came by: a repeat has the id of the task that it repeats.
    pub record: usize,
    /// Its run, from 0.
    pub run: u16,
    /// The attempt of that run, from 1.
    pub attempt: u16,
    /// The fencing token: the partition.
    pub partition: i32,
    /// The fencing token: the partition's sequence number.
    pub seq: i64,
}

/// How an attempt ended, as the handler saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It returned success.
    Ok,
    /// It returned a failure that may be tried again.
    Fail,
    /// It returned a failure for good.
    Permanent,
    /// It panicked.
    Panic,
    /// It was told to stop because it ran longer than its policy allows.
    TimedOut,
    /// It was told to stop for another reason, or was dropped.
    Stopped,
}

const HOWS: [(How, &str); 6] = [
    (How::Ok, "ok"),
    (How::Fail, "fail"),
    (How::Permanent, "permanent"),
    (How::Panic, "panic"),
    (How::TimedOut, "timed-out"),
    (How::Stopped, "stopped"),
];

impl Journal {
    /// Opens the journal at `path`, made if there is none.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map(Self)
    }

    /// Appends one line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, event: &Event) -> io::Result<()> {
        let line = format!("{event}\n");
        let mut file = &self.0;
        file.write_all(line.as_bytes())
    }
}

/// All events of the journal at `path`, in order.
///
/// # Errors
/// When it cannot be read, or a line is none of ours.
pub fn read(path: &Path) -> io::Result<Vec<Event>> {
    let text = std::fs::read_to_string(path)?;
    let parse = |line: &str| {
        line.parse()
            .map_err(|()| io::Error::other(format!("not a line of a journal: {line:?}")))
    };
    text.lines().map(parse).collect()
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pid,
            task,
            record,
            run,
            attempt,
            partition,
            seq,
        } = self;
        write!(f, "{pid} {task} {record} {run} {attempt} {partition} {seq}")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(attempt) => write!(f, "S {attempt}"),
            Self::End(attempt, how) => {
                let word = HOWS.iter().find(|(known, _)| known == how);
                write!(f, "E {attempt} {}", word.map_or("", |(_, word)| word))
            }
            Self::Death { pid } => write!(f, "D {pid}"),
            Self::Note(text) => write!(f, "# {}", text.replace('\n', " ")),
        }
    }
}

impl FromStr for Event {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        if let Some(text) = line.strip_prefix("# ") {
            return Ok(Self::Note(text.to_owned()));
        }
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["D", pid] => Ok(Self::Death { pid: number(pid)? }),
            ["S", rest @ ..] => Ok(Self::Start(attempt(rest)?)),
            ["E", rest @ .., how] => {
                let how = HOWS.iter().find(|(_, word)| word == how).ok_or(())?.0;
                Ok(Self::End(attempt(rest)?, how))
            }
            _ => Err(()),
        }
    }
}

fn attempt(words: &[&str]) -> Result<Attempt, ()> {
    let [pid, task, record, run, attempt, partition, seq] = words else {
        return Err(());
    };
    Ok(Attempt {
        pid: number(pid)?,
        task: number(task)?,
        record: number(record)?,
        run: number(run)?,
        attempt: number(attempt)?,
        partition: number(partition)?,
        seq: number(seq)?,
    })
}

fn number<T: FromStr>(word: &str) -> Result<T, ()> {
    word.parse().map_err(|_| ())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn lines_read_back_in_order_as_they_were_written() {
        let attempt = Attempt {
            pid: 41,
            task: Uuid::from_u128(5),
            record: 8,
            run: 0,
            attempt: 2,
            partition: 3,
            seq: 17,
        };
        let events = [
            Event::Note("worker 1 frozen\nfor long".to_owned()),
            Event::Start(attempt),
            Event::End(attempt, How::Stopped),
            Event::Death { pid: 41 },
        ];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = Journal::open(&path).unwrap();
        for event in &events {
            journal.write(event).unwrap();
        }
        let found = read(&path).unwrap();
        assert_eq!(found.get(1..), events.get(1..));
        assert!(matches!(&found[0], Event::Note(text) if text == "worker 1 frozen for long"));
    }
}
