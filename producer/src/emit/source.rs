//! Where events come from: a file or standard input, plain or compressed.
//!
//! What a file is decided by its first bytes, not by its name. Members of a gzip file and frames
//! of a zstd file that follow each other are read as one. Reading holds a fixed amount of memory:
//! a buffer, and the decompressor's window.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const BUFFER: usize = 64 * 1024;

/// One input of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Standard input, written `-`.
    Standard,
    /// A file.
    File(PathBuf),
}

impl Input {
    /// The size in bytes as stored, where the input is a regular file.
    pub fn size(&self) -> Option<u64> {
        self.version().map(|version| version.size)
    }

    /// Size and time of change, to notice that a file was changed while it was read; `None` when
    /// the input is no regular file.
    pub fn version(&self) -> Option<Version> {
        let Input::File(path) = self else { return None };
        let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some(Version {
            size: metadata.len(),
            changed: metadata.modified().ok()?,
        })
    }

    /// Whether the input can be opened, without reading from it.
    pub fn probe(&self) -> io::Result<()> {
        match self {
            Input::Standard => Ok(()),
            Input::File(path) if path.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            // Opening a pipe would wait for its writer, or take the pipe from the real reader.
            Input::File(path) if path.metadata()?.is_file() => File::open(path).map(drop),
            Input::File(_) => Ok(()),
        }
    }

    /// Opens the input and unpacks it; `taken` counts the stored bytes that were read.
    pub fn open(&self, taken: Arc<AtomicU64>) -> io::Result<Box<dyn Read>> {
        let stored: Box<dyn Read> = match self {
            Input::Standard => Box::new(io::stdin()),
            Input::File(path) => Box::new(File::open(path)?),
        };
        unpack(Counted { stored, taken })
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Standard => f.write_str("-"),
            Input::File(path) => path.display().fmt(f),
        }
    }
}

/// What a regular file was at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    size: u64,
    changed: SystemTime,
}

fn unpack(mut stored: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    let mut magic = Vec::with_capacity(ZSTD.len());
    stored
        .by_ref()
        .take(ZSTD.len() as u64)
        .read_to_end(&mut magic)?;
    let gzip = magic.starts_with(&GZIP);
    let zstd = magic.starts_with(&ZSTD);
    let whole = Cursor::new(magic).chain(stored);
    Ok(if gzip {
        let packed = BufReader::with_capacity(BUFFER, whole);
        Box::new(flate2::bufread::MultiGzDecoder::new(packed))
    } else if zstd {
        let packed = BufReader::with_capacity(BUFFER, whole);
        Box::new(zstd::stream::read::Decoder::with_buffer(packed)?)
    } else {
        Box::new(whole)
    })
}

struct Counted<R> {
    stored: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stored.read(buffer)?;
        self.taken.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        reason = "a test that cannot set up its case has failed"
    )]

    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &str) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap()
    }

    fn zstd(text: &str) -> Vec<u8> {
        zstd::stream::encode_all(text.as_bytes(), 1).unwrap()
    }

    fn read(stored: Vec<u8>) -> io::Result<String> {
        let mut text = String::new();
        unpack(Cursor::new(stored))?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn what_is_packed_is_told_by_its_first_bytes() {
        assert_eq!(read(b"{}\n".to_vec()).unwrap(), "{}\n");
        assert_eq!(read(Vec::new()).unwrap(), "");
        assert_eq!(read(gzip("{\"a\":1}\n")).unwrap(), "{\"a\":1}\n");
        assert_eq!(read(zstd("{\"a\":1}\n")).unwrap(), "{\"a\":1}\n");
    }

    #[test]
    fn members_and_frames_one_after_another_are_one_stream() {
        assert_eq!(read([gzip("a\n"), gzip("b\n")].concat()).unwrap(), "a\nb\n");
        assert_eq!(read([zstd("a\n"), zstd("b\n")].concat()).unwrap(), "a\nb\n");
    }

    #[test]
    fn a_packed_file_that_was_cut_off_is_an_error() {
        let mut cut = gzip(&"0123456789".repeat(1_000));
        cut.truncate(cut.len() - 9);
        assert_eq!(read(cut).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut cut = zstd(&"0123456789".repeat(1_000));
        cut.truncate(cut.len() - 3);
        assert!(read(cut).is_err());
    }

    #[test]
    fn stored_bytes_are_counted_and_a_changed_file_is_another_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        std::fs::write(&path, gzip("{}\n")).unwrap();
        let input = Input::File(path.clone());
        let before = input.version().unwrap();
        let taken = Arc::new(AtomicU64::new(0));
        let mut text = String::new();
        input
            .open(Arc::clone(&taken))
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(taken.load(Ordering::Relaxed), input.size().unwrap());
        assert_eq!(input.version(), Some(before));
        std::fs::write(&path, gzip("{\"more\":true}\n")).unwrap();
        assert_ne!(input.version(), Some(before));
    }
}
